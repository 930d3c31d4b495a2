"""Files that lie, swell or break off, made from our own media; and what must hold whichever of them is read.

Nothing here is an exploit: each file is plainly wrong in one place, and the tests ask for a refusal or a result.
"""

import os
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from lipsync.errors import LipsyncError
from lipsync.label.boxes import NESTED
from lipsync.label.manifest import verify
from lipsync.media.reader import FrameReader, SoundReader, probe
from tests.helpers.media_maker import clicks, count_up, write_media

LONGEST_S = 60.0  # for any one thing done with any file, on a machine that does nothing else
PIXELS = 100 << 20  # read of each at most
MEDIA = {  # ending: how write_media makes it
    "mp4": {"codec": "libx264", "sound_codec": "aac"},
    "mov": {"codec": "libx264", "sound_codec": "pcm_s16le"},
    "mkv": {"codec": "libx264", "sound_codec": "flac"},
    "webm": {"codec": "libvpx-vp9", "sound_codec": "libopus"},
    "avi": {"codec": "mpeg4", "sound_codec": "libmp3lame"},
    "ts": {"codec": "mpeg2video", "sound_codec": "mp2"},
    "mpg": {"codec": "mpeg2video", "sound_codec": "mp2"},
    "flv": {"codec": "flv", "sound_codec": "aac", "sound_rate": 44_100},
    "wmv": {"codec": "wmv2", "sound_codec": "libmp3lame"},
    "3gp": {"codec": "mpeg4", "sound_codec": "aac"},
    "gif": {"codec": "gif", "pixels": "rgb8", "sound": None},
    "png": None,
    "jpg": None,
    "webp": None,
    "bmp": None,
    "tiff": None,
    "ppm": None,
    "wav": {"sound_codec": "pcm_s16le"},
    "mp3": {"sound_codec": "libmp3lame"},
    "flac": {"sound_codec": "flac"},
    "ogg": {"sound_codec": "libopus"},
    "m4a": {"sound_codec": "aac"},
    "aac": {"sound_codec": "aac"},
    "aiff": {"sound_codec": "pcm_s16be"},
}
SOUNDS = {"wav", "mp3", "flac", "ogg", "m4a", "aac", "aiff"}
TEXTS = {
    "concat": "ffconcat version 1.0\nfile neighbour.mp4\n",
    "old concat": "file 'neighbour.mp4'\nfile 'neighbour.mp4'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nneighbour.mp4\n#EXT-X-ENDLIST\n",
    "hls key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="neighbour.mp4"\n#EXTINF:9,\nneighbour.mp4\n#EXT-X-ENDLIST\n',
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>neighbour.mp4</BaseURL></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="neighbour.png"/></svg>',
    "smooth": '<?xml version="1.0"?><SmoothStreamingMedia MajorVersion="2" Duration="1"></SmoothStreamingMedia>',
    "metadata": ";FFMETADATA1\ntitle=x\n",
    "subtitles": "1\n00:00:00,000 --> 00:00:09,000\nwords\n",
    "webvtt": "WEBVTT\n\n00:00.000 --> 00:09.000\nwords\n",
    "ass": "[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,words\n",
    "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2013"/>',
    "filter": "movie=neighbour.mp4",
}


def make_media(folder: Path, ending: str) -> Path:
    """A second or less of numbered pictures, clicks, or both."""
    path = folder / f"plain.{ending}"
    if MEDIA[ending] is None:
        Image.fromarray(count_up(20)[19]).save(path)
        return path
    how = {"sound": clicks(0.8, [0.2, 0.5], MEDIA[ending].get("sound_rate", 48_000)), **MEDIA[ending]}
    return write_media(path, () if ending in SOUNDS else count_up(20), **how)


def examine(path: Path) -> str:
    """Do with a file all that a visitor can have done with it; returns what became of each, in words.

    Raises AssertionError where it takes too long or is told in more than a sentence; anything else that is not a
    LipsyncError passes through.
    """
    told = []

    def tried(action: Callable[[], object]) -> object:
        began = time.monotonic()
        try:
            result, words = action(), "fine"
        except LipsyncError as error:
            result, words = None, str(error)
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        assert time.monotonic() - began < LONGEST_S * busy, (path.name, words)
        assert "\n" not in words and "Traceback" not in words and str(path.parent) not in words, words
        told.append(words)
        return result

    info = tried(lambda: probe(path))
    if info and info.has_video:
        most = max(1, PIXELS // (info.width * info.height))
        with FrameReader(info) as reader:
            tried(lambda: sum(1 for _ in islice(reader, min(most, 60))))
        with FrameReader(info, [(min(info.frames, most, 9), 0)]) as reader:
            tried(lambda: sum(1 for _ in reader))
    if info and info.has_audio:
        with SoundReader(path) as sound:
            tried(lambda: sum(1 for _ in islice(sound, 30)))
    tried(lambda: verify(path))
    return "; ".join(told)


# --- lies and bombs --------------------------------------------------------------------------------------------------


def lies(folder: Path) -> Iterator[tuple[str, Path]]:
    """(what is wrong, file), one after the other; each is made in `folder`, which holds the plain media."""
    for make in (texts, box_sizes, table_counts, dimensions, sounds, swellings, crowds, odds):
        for place, (what, ending, data) in enumerate(make(folder)):
            path = folder / f"{make.__name__}{place}.{ending}"
            path.write_bytes(data)
            yield what, path


def texts(_: Path) -> Iterator[tuple[str, str, bytes]]:
    for what, text in TEXTS.items():
        for ending in ("mp4", "mkv", "png", "wav"):
            yield f"{what} as {ending}", ending, text.encode()


def walk(data: bytes, at: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int]]:
    """(kind, place) of every box of an MP4, those within others too."""
    end = len(data) if end is None else end
    while at + 8 <= end:
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size < 8:
            return
        yield kind, at
        if kind in NESTED:
            yield from walk(data, at + 8 + NESTED[kind], min(end, at + size))
        at += size


def box_sizes(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    data = (folder / "plain.mp4").read_bytes()
    for kind, at in walk(data):
        for size in (0, 1, 7, 2**31 - 1, 2**32 - 1):
            yield f"{kind.decode('latin1')} of {size} bytes", "mp4", _put(data, at, size)


def table_counts(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    data = (folder / "plain.mp4").read_bytes()
    for kind, at in walk(data):
        places = {
            b"stts": 12,
            b"ctts": 12,
            b"stss": 12,
            b"stsc": 12,
            b"stco": 12,
            b"stsz": 16,
            b"elst": 12,
            b"dref": 12,
        }
        if kind in places:
            for count in (2**16, 2**31 - 1, 2**32 - 1):
                yield f"{kind.decode()} of {count} entries", "mp4", _put(data, at + places[kind], count)
        if kind == b"mvhd":
            for value in (0, 1, 2**32 - 1):
                yield f"{value} ticks a second", "mp4", _put(data, at + 20, value)
                yield f"{value} ticks long", "mp4", _put(data, at + 24, value)
        if kind == b"stts":
            for value in (0, 2**31 - 1):
                yield f"pictures {value} ticks apart", "mp4", _put(data, at + 20, value)


def dimensions(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    data = (folder / "plain.mp4").read_bytes()
    at = data.index(b"avc1", data.index(b"stsd"))
    for width, height in ((0, 0), (1, 65_535), (65_535, 65_535), (20_000, 20_000)):
        yield f"video of {width} x {height}", "mp4", _put(data, at + 28, width << 16 | height)
    for side in (1, 30_000, 2**31 - 1, 2**32 - 1):
        yield f"PNG of {side}", "png", png(side, side, zlib.compress(bytes(10)))
        yield f"BMP of {side}", "bmp", _put((folder / "plain.bmp").read_bytes(), 18, side, "little")
        yield f"PPM of {side}", "ppm", f"P6 {side} {side} 255\n".encode() + bytes(1000)
    jpeg = (folder / "plain.jpg").read_bytes()
    gif = (folder / "plain.gif").read_bytes()
    webp = (folder / "plain.webp").read_bytes()
    at = jpeg.index(b"\xff\xc0") + 5
    for side in (0, 6_000, 65_535):
        both = side.to_bytes(2, "big") * 2
        yield f"JPEG of {side}", "jpg", jpeg[:at] + both + jpeg[at + 4 :]
        yield f"GIF of {side}", "gif", gif[:6] + side.to_bytes(2, "little") * 2 + gif[10:]
    yield "WebP of 16383", "webp", webp[:26] + b"\xff\x3f\xff\x3f" + webp[30:]


def sounds(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    wav = (folder / "plain.wav").read_bytes()
    for what, at, size, values in (
        ("channels", 22, 2, (0, 255, 65_535)),
        ("samples a second", 24, 4, (0, 1, 2**31 - 1, 2**32 - 1)),
        ("bytes a sample", 32, 2, (0, 65_535)),
        ("bits", 34, 2, (0, 3, 65_535)),
        ("kind", 20, 2, (0, 17, 0xFFFE, 0xFFFF)),
        ("bytes", 40, 4, (0, 2**31, 2**32 - 1)),
    ):
        for value in values:
            yield f"WAV: {value} {what}", "wav", wav[:at] + value.to_bytes(size, "little") + wav[at + size :]
    flac = (folder / "plain.flac").read_bytes()
    yield "FLAC of 2^36 samples", "flac", flac[:21] + b"\x0f\xff\xff\xff\xff" + flac[26:]
    mp3 = (folder / "plain.mp3").read_bytes()
    yield "MP3 behind 256 MB of tags", "mp3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + mp3
    yield "MP3 behind tags within tags", "mp3", b"ID3\x04\0\0\0\0\0\x0a" * 5_000 + mp3
    numbers = folder / "numbers.wav"
    samples = np.tile(np.float32([np.nan, np.inf, -np.inf, 1e38]), 4_000)
    soundfile.write(numbers, samples, 16_000, "FLOAT")
    yield "WAV of no numbers", "wav", numbers.read_bytes()


def png(width: int, height: int, pixels: bytes, *more: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    parts = ((b"IHDR", head), *more, (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def swellings(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Small files that say much."""
    packer = zlib.compressobj(9)
    large = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()  # in a quarter of one
    rows = zlib.compress(bytes((3 * 6000 + 1) * 6000), 9)
    yield "PNG of 6000 x 6000, all there", "png", png(6000, 6000, rows)
    yield "PNG of 64 x 48 with 256 MB of pixels", "png", png(64, 48, large)
    for kind in (b"zTXt", b"iCCP"):
        yield (
            f"PNG with 256 MB of {kind.decode()}",
            "png",
            png(6, 4, zlib.compress(bytes(100)), (kind, b"x\0\0" + large)),
        )
    yield "PNG with 256 MB of iTXt", "png", png(6, 4, zlib.compress(bytes(100)), (b"iTXt", b"x\0\1\0\0\0" + large))
    data = (folder / "plain.mp4").read_bytes()
    yield "64 MB of zeros behind a video", "mp4", data + _box(b"mdat") + bytes(64 << 20)
    yield "zeros", "mp4", bytes(8 << 20)
    yield "a stream of key frames without end", "h264", (folder / "plain.mp4").read_bytes() * 50


def crowds(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Many of something, or one in the other."""
    data = (folder / "plain.mp4").read_bytes()
    for count in (1_000, 100_000):
        yield f"{count} empty boxes", "mp4", data + _box(b"free") * count
        yield f"{count} fragments", "mp4", data + _box(b"moof", _box(b"traf")) * count
        yield f"{count} boxes of somebody's", "mp4", data[:32] + _box(b"uuid", bytes(16)) * count + data[32:]
    for depth in (50, 3_000):
        for kind in (b"moov", b"udta", b"meta", b"trak"):
            inner = b""
            for _ in range(depth):
                inner = _box(kind, bytes(NESTED[kind]) + inner)
            yield f"{kind.decode()} {depth} deep", "mp4", data + inner
    tracks = b""
    at = data.index(b"trak") - 4
    one = data[at : at + int.from_bytes(data[at : at + 4], "big")]
    tracks = one * 500
    moov = data.index(b"moov") - 4
    size = int.from_bytes(data[moov : moov + 4], "big")
    yield "500 tracks", "mp4", _put(data[: moov + size] + tracks + data[moov + size :], moov, size + len(tracks))
    mkv = (folder / "plain.mkv").read_bytes()
    for count in (1_000, 500_000):
        yield f"{count} void elements", "mkv", mkv[:40] + b"\xec\x80" * count + mkv[40:]
    yield "clusters in clusters", "mkv", mkv + b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff" * 20_000
    avi = (folder / "plain.avi").read_bytes()
    yield "lists in lists", "avi", avi[:12] + b"LIST\xff\xff\xff\x7fhdrl" * 20_000 + avi[12:]
    wav = (folder / "plain.wav").read_bytes()
    yield "a WAV of 200000 parts", "wav", wav[:12] + b"junk\0\0\0\0" * 200_000 + wav[12:]
    jpeg = (folder / "plain.jpg").read_bytes()
    yield "a JPEG of 100000 parts", "jpg", jpeg[:2] + b"\xff\xe5\0\x04ab" * 100_000 + jpeg[2:]
    gif = (folder / "plain.gif").read_bytes()
    yield "a GIF of 100000 remarks", "gif", gif[:-1] + b"\x21\xfe\x01x\0" * 100_000 + b";"


def odds(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    rng = np.random.default_rng(5)
    for ending in ("mp4", "mkv", "png", "mp3"):
        yield "nothing", ending, b""
        yield "one byte", ending, b"\0"
        yield "noise", ending, rng.bytes(300_000)
        yield "its first bytes alone", ending, (folder / f"plain.{ending}").read_bytes()[:32]
        yield (
            "another kind of file behind its own first bytes",
            ending,
            ((folder / f"plain.{ending}").read_bytes()[:200] + (folder / "plain.webm").read_bytes()),
        )


def _box(kind: bytes, content: bytes = b"") -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def _put(data: bytes, at: int, value: int, order: str = "big") -> bytes:
    return data[:at] + value.to_bytes(4, order) + data[at + 4 :]


# --- damage ----------------------------------------------------------------------------------------------------------


def cuts(folder: Path, count: int, seed: int = 0) -> Iterator[tuple[str, Path]]:
    """Files that end early, of every kind in turn."""
    rng = np.random.default_rng(seed)
    for place in range(count):
        ending = list(MEDIA)[place % len(MEDIA)]
        data = (folder / f"plain.{ending}").read_bytes()
        length = int(rng.integers(1, len(data)))
        path = folder / f"cut{place}.{ending}"
        path.write_bytes(data[:length])
        yield f"{ending} cut after {length} bytes", path


def mutations(folder: Path, count: int, seed: int = 1) -> Iterator[tuple[str, Path]]:
    """Files with some bytes changed: half of them near the start, where the headers lie; some with a part moved."""
    rng = np.random.default_rng(seed)
    for place in range(count):
        ending = list(MEDIA)[place % len(MEDIA)]
        data = bytearray((folder / f"plain.{ending}").read_bytes())
        reach = len(data) if rng.random() < 0.5 else min(len(data), 2_000)
        for at in rng.integers(0, reach, int(rng.integers(1, 20))):
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
        if rng.random() < 0.2:
            a, b = sorted(rng.integers(0, len(data), 2))
            data[a:b] = b"" if rng.random() < 0.5 else data[a:b] * 2
        path = folder / f"mutation{place}.{ending}"
        path.write_bytes(data)
        yield f"{ending}, mutation {place} of seed {seed}", path


def unhashed(signed: bytes) -> range:
    """Where the label itself lies in a signed MP4."""
    at = dict(walk(signed))[b"uuid"]
    return range(at, at + int.from_bytes(signed[at : at + 4], "big"))


def label_attacks(signed: bytes, other: bytes, count: int, seed: int = 2) -> Iterator[tuple[str, bytes]]:
    """Changes to a signed MP4 that must not leave it labelled and intact; `other`: signed by the same hand."""
    rng = np.random.default_rng(seed)
    spared = {b"ftyp", b"free", b"skip", b"mfra"}  # C2PA's hash leaves these out
    places = dict(walk(signed))
    label, end = unhashed(signed).start, unhashed(signed).stop
    theirs, their_end = unhashed(other).start, unhashed(other).stop
    yield "another video's label", signed[:label] + other[theirs:their_end] + signed[end:]
    yield "both labels", signed[:end] + other[theirs:their_end] + signed[end:]
    yield "the other label first", signed[:label] + other[theirs:their_end] + signed[label:]
    yield "the label at the end", signed[:label] + signed[end:] + signed[label:end]
    yield "more film behind it", signed + _box(b"mdat", bytes(1000))
    yield "a second moov", signed + signed[places[b"moov"] : places[b"moov"] + 5000]
    while count > 0:
        count -= 1
        at = int(rng.integers(0, len(signed) - 8))
        inside = max((place, kind) for kind, place in walk(signed) if place <= at) if at >= 0 else (0, b"")
        if inside[1] in spared:
            continue
        how = count % 4
        if how == 0:
            yield f"bit at {at}", signed[:at] + bytes([signed[at] ^ 1 << rng.integers(8)]) + signed[at + 1 :]
        elif how == 1:
            yield f"cut at {at}", signed[:at]
        elif how == 2:
            size = int(rng.integers(1, 200))
            yield f"{size} bytes out at {at}", signed[:at] + signed[at + size :]
        else:
            size = int(rng.integers(1, 50))
            yield f"{size} bytes in at {at}", signed[:at] + rng.bytes(size) + signed[at:]
