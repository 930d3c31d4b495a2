"""Still pictures: how large they are read, and what FFmpeg does not say of them. Used in the child alone.

FFmpeg paints what a cut JPEG or GIF lacks in some colour and calls the picture whole. Pillow does not, and is asked
about the formats for which that matters.
"""

import contextlib
import math

from av.container import InputContainer

from ..errors import InputError
from ..messages import Message

LARGEST_STILL_PX = 200_000_000  # phones of 2025 make these
LONGEST_SIDE = 4096
# H.264's level 5.1, which every player of the last ten years takes, has 36,864 blocks of 16 x 16; a little is left for
# blocks that the edges cut.
LARGEST_FILM_PX = 36_000 * 256
FILLED_UP = ("JPEG", "GIF")  # what FFmpeg makes whole, by Pillow's names


def is_picture(container: InputContainer) -> bool:
    """Is it a file of one picture by its format, not a film?"""
    return container.format.name == "image2" or container.format.name.endswith("_pipe")


def film_size(width: int, height: int) -> tuple[int, int]:
    """The largest size, even where it is another, at which a picture makes a film that plays everywhere."""
    scale = min(LONGEST_SIDE / max(width, height), math.sqrt(LARGEST_FILM_PX / (width * height)))
    return (width, height) if scale >= 1 else (int(width * scale) // 2 * 2, int(height * scale) // 2 * 2)


def halvings(width: int, height: int) -> int:
    """How often a JPEG may be halved while it is decoded (0 .. 3) and still be as large as `film_size`."""
    return min(3, int(math.log2(width / film_size(width, height)[0])))


def check_whole(path: str, codec: str, strictly_read: bool) -> list[str]:
    """Raise InputError where a picture that FFmpeg gave is not all there; returns sentences on lesser harm.

    strictly_read  FFmpeg found nothing wrong with it when told to be strict (of JPEG: all its rows were there, though
                   the two bytes that end it may be missing)
    """
    if codec == "tiff" and _compression(path) in ("jpeg", "tiff_jpeg"):
        raise InputError("{file} is a TIFF that holds a JPEG, which is not supported; save it as JPEG or PNG.")
    if codec == "mjpeg" and strictly_read or not _is_cut(path):
        return [] if strictly_read else [Message("The picture is damaged; what could be decoded was taken.")]
    raise InputError("{file} is cut short: a part of the picture is missing. Copy or download it again.")


def animated_webp(path: str) -> bool:
    """Does a WebP say in its header that it moves?"""
    with open(path, "rb") as file:
        head = file.read(21)
    return head[8:16] == b"WEBPVP8X" and bool(head[20] & 2)


def _is_cut(path: str) -> bool:
    """Does Pillow miss data at the end? False of what is none of FILLED_UP."""
    from PIL import GifImagePlugin, Image, JpegImagePlugin  # noqa: F401 (each makes its format known)

    Image.MAX_IMAGE_PIXELS = None  # the size was looked at before
    try:
        picture = Image.open(path, formats=FILLED_UP)
    except (OSError, ValueError, SyntaxError):
        return False
    with picture:
        picture.draft("RGB", (picture.width // 8, picture.height // 8))  # a JPEG an eighth as large: little memory
        try:
            picture.load()
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            return "truncated" in str(error)
    return False


def _compression(path: str) -> str:
    """How a TIFF packs its pixels, in Pillow's words."""
    from PIL import Image, TiffImagePlugin  # noqa: F401

    with contextlib.suppress(OSError, ValueError, SyntaxError), Image.open(path, formats=("TIFF",)) as picture:
        return str(picture.info.get("compression", ""))
    return ""
