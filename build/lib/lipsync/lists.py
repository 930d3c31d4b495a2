"""Folders and lists of clips, as people and their programs leave them: what is a clip, and what a list says.

One rule for the batch and the evaluation. A folder also holds subtitles, thumbnails, locks and half downloads; a list
comes from a spreadsheet, which has its own separator, encoding and empty rows.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

from .errors import InputError


def _endings(words: str) -> frozenset[str]:
    return frozenset(f".{word}" for word in words.split())


FILMS = _endings(
    "mp4 m4v mov mkv webm avi mpg mpeg mpe m2v ts mts m2ts vob flv f4v wmv asf 3gp 3g2 ogv mxf dv y4m h264 264 h265 "
    "265 hevc mjpeg mjpg rm rmvb divx gif apng"
)
STILLS = _endings("png jpg jpeg jpe jfif webp bmp tif tiff avif heic heif jp2 ppm pgm pnm tga")
# Known to be no clips, whatever is in them: documents, sounds, files about others, and files that are not finished.
OTHERS = _endings(
    "csv tsv json txt md html xml yaml yml log pdf zip gz 7z rar safetensors npz npy pt pth "
    "wav mp3 m4a aac flac ogg oga opus wma aif aiff amr "
    "srt vtt ass ssa sub idx sbv lrc align textgrid lab nfo xmp aae thm lrv edl db ini url lnk torrent "
    "part crdownload download partial tmp temp bak swp lock"
)
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SERIES = 10  # pictures whose names count on, in a folder without films, are the frames of one


def clips_in(folder: Path, stills: bool, deep: bool) -> list[Path]:
    """The clips of a folder by name: films, and pictures where `stills`; of its sub-folders too where `deep`.

    A file with a film's ending is one, readable or not: what cannot be read is said where it is used. One with an
    ending that tells nothing is looked into. Hidden files, locks (~name, name~) and half downloads are none.
    """
    files = sorted(p for p in (folder.rglob("*") if deep else folder.iterdir()) if p.is_file())
    return [p for p in files if _is_clip(p, stills)]


def _is_clip(path: Path, stills: bool) -> bool:
    name, ending = path.name.lower(), path.suffix.lower()
    if name.startswith((".", "~")) or name.endswith("~") or ending in OTHERS:
        return False
    if ending in FILMS:
        return True
    if ending in STILLS:
        return stills
    from .media.reader import probe  # a child process each, for the few files of unknown endings

    try:
        info = probe(path)
    except InputError:
        return False
    return info.has_video and (stills or not info.is_still)


def frames_of_one(files: Iterable[Path]) -> bool:
    """Are these the frames of one film: pictures alone, ten or more, whose names differ by a number that counts on?"""
    files = list(files)
    if len(files) < SERIES or any(p.suffix.lower() not in STILLS for p in files):
        return False
    parts = [re.fullmatch(r"(.*?)(\d+)", p.stem) for p in files]
    if not all(parts) or len({(m[1], p.suffix.lower()) for m, p in zip(parts, files, strict=True)}) > 1:
        return False
    numbers = sorted(int(m[2]) for m in parts)
    return numbers[-1] - numbers[0] + 1 == len(set(numbers)) == len(numbers)


def read_list(path: Path, needed: Iterable[str], what: str) -> list[dict[str, str]]:
    """The rows of a list with a header, by small column names; rows without any content are left out.

    Commas, semicolons or tabs between columns; UTF-8 or UTF-16, with a mark or without.
    needed  columns that must be there; what: the list in sentences, "list of pairs"
    Raises InputError, with what was found.
    """
    needed = list(needed)
    try:
        text, encoding = _decoded(path.read_bytes())
    except OSError as error:
        raise InputError(f"The {what} {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The {what} {path} cannot be read: {error}. Save it as CSV in UTF-8.") from error
    told = re.match(r"sep=(.)\r?\n", text, re.IGNORECASE)  # Excel's own first line
    text = text[told.end() :] if told else text
    head = next((line for line in text.splitlines() if line.strip()), "")
    separator = told[1] if told else max(SEPARATORS, key=head.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise InputError(f"The {what} {path} cannot be read: {error}.") from error
    lines = [[cell.strip() for cell in line] for line in lines if any(cell.strip() for cell in line)]
    columns = [cell.lower() for cell in lines[0]] if lines else []
    if len(lines) < 2 or not set(needed) <= set(columns):
        names = " and ".join(needed)
        found = f"in {encoding} with {SEPARATORS.get(separator, repr(separator))} between columns, its header is"
        raise InputError(
            f"The {what} {path} needs a header with the column{'s' * (len(needed) > 1)} {names}, and rows below it; "
            f"read {found} {', '.join(columns) or 'empty'}."
        )
    return [dict(zip(columns, line, strict=False)) for line in lines[1:]]


def _decoded(data: bytes) -> tuple[str, str]:
    """The text of a list and its encoding. Raises UnicodeDecodeError."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16"), "UTF-16"
    if b"\0" in data[:2]:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
        return data.decode(encoding), "UTF-16"
    return data.decode("utf-8-sig"), "UTF-8"
