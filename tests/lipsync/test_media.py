"""What goes in: every kind of video, picture and sound comes out as the frames and samples that a viewer gets."""

import contextlib
import errno
import gc
import os
import signal
import struct
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image, ImageCms, ImageOps
from skimage.data import astronaut

from lipsync import sandbox
from lipsync.errors import InputError
from lipsync.media import reader as media
from lipsync.media.reader import FrameReader, SoundReader, ahead, probe, read_sound, read_waveform, sound_notes
from tests.helpers.media_maker import click_times, clicks, count_up, number_of, numbered, voice_format, write_media
from tests.helpers.wild import each_wild_clip

pytestmark = pytest.mark.slow  # a child process each; the fast suite reads and writes through test_pipeline
NTSC = Fraction(30000, 1001)
QUARTERS = np.zeros((48, 64, 3), np.uint8)
QUARTERS[:24, :32], QUARTERS[:24, 32:], QUARTERS[24:, :32], QUARTERS[24:, 32:] = 250, (200, 30, 30), (30, 180, 60), 90


def numbers(path: Path, segments=None) -> list[int]:
    with FrameReader(probe(path), segments) as reader:
        return [number_of(frame) for frame in reader]


def children() -> set[int]:
    """Live children of this process that read files: those of its fork server."""
    server, mine = sandbox._server.process.pid if sandbox._server else -1, set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == server:
                mine.add(int(entry.parent.name))
    return mine


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """No test may leave a child or an open descriptor."""
    sandbox.warm()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert not children()
    assert len(os.listdir("/proc/self/fd")) <= before


# --- rates and time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "ts"])
@pytest.mark.parametrize(
    "fps", [Fraction(22), Fraction(22131, 1000), Fraction(24000, 1001), Fraction(25), NTSC, Fraction(60)]
)
def test_a_constant_rate_is_exact_and_every_frame_comes_once(tmp_path, fps, ending):
    path = write_media(tmp_path / f"clip.{ending}", count_up(40), fps)
    info = probe(path)
    assert not info.varies and info.frames == 40 and not info.notes
    assert info.fps == fps if ending in ("mp4", "mov") else abs(info.fps / fps - 1) < 1e-4
    assert info.duration_s == pytest.approx(40 / fps, abs=0.002)
    assert numbers(path) == list(range(40))


@pytest.mark.parametrize(
    "codec, ending, pixels",
    [
        ("mpeg4", "avi", "yuv420p"),
        ("libvpx-vp9", "webm", "yuv420p"),
        ("mjpeg", "avi", "yuvj420p"),
        ("mpeg2video", "mpg", "yuv420p"),
        ("libx265", "mp4", "yuv420p"),
        ("prores_ks", "mov", "yuv422p10le"),
        ("ffv1", "mkv", "yuv444p"),
        ("flv", "flv", "yuv420p"),
        ("libx264", "h264", "yuv420p"),
        ("libsvtav1", "mp4", "yuv420p10le"),
    ],
)
def test_containers_and_codecs(tmp_path, codec, ending, pixels):
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {codec}")
    path = write_media(tmp_path / f"clip.{ending}", count_up(30), 25, codec, pixels)
    info = probe(path)
    assert (info.fps, info.frames, info.width, info.height) == (25, 30, 128, 96)
    assert numbers(path) == list(range(30))
    assert numbers(path, [(20, 23), (12, 8)]) == [20, 21, 22, 11, 10, 9, 8]


def test_a_varying_rate_is_shown_by_the_clock(tmp_path):
    rng = np.random.default_rng(0)
    stamps = np.cumsum(rng.integers(15, 60, 60)).tolist()
    path = write_media(tmp_path / "phone.mp4", count_up(60), 30, stamps_ms=stamps)
    info = probe(path)
    assert info.varies and "varies" in info.notes[0]
    times = (np.array(stamps) - stamps[0]) / 1000
    assert float(info.fps) == pytest.approx(59 / times[-1], rel=0.03)
    seen = numbers(path)
    assert len(seen) == info.frames and seen == sorted(seen)
    for tick, shown in enumerate(seen):  # within half a tick of the picture that the clock asks for
        assert times[shown] <= (tick + 0.51) / float(info.fps)
        assert shown == 59 or times[shown + 1] >= (tick + 0.49) / float(info.fps)


def test_dropped_frames_keep_the_nominal_rate(tmp_path):
    kept = [k for k in range(100) if k not in (31, 32, 70)]
    path = write_media(tmp_path / "dropped.mp4", [numbered(k) for k in kept], 25, stamps_ms=[40 * k for k in kept])
    info = probe(path)
    assert (info.fps, info.varies, info.frames) == (25, True, 100)
    assert numbers(path) == [30 if k in (31, 32) else 69 if k == 70 else k for k in range(100)]


def held(fps: Fraction, skipped: range, n: int = 75) -> tuple[list[int], list[int]]:
    """Numbers and times in ms of the pictures that are left when some are dropped."""
    kept = [k for k in range(n) if k not in skipped]
    return kept, [round(1000 * k / fps) for k in kept]


@pytest.mark.parametrize(
    "fps",
    [
        Fraction(12),
        Fraction(15),
        Fraction(24),
        Fraction(24000, 1001),
        Fraction(25),
        NTSC,
        Fraction(30),
        Fraction(50),
        Fraction(60),
    ],
)
@pytest.mark.parametrize("skipped", [range(30, 49), range(10, 40), range(3, 60, 3)])
def test_held_pictures_do_not_lower_the_rate(tmp_path, fps, skipped):
    kept, stamps = held(fps, skipped)
    path = write_media(tmp_path / "held.mkv", [numbered(k) for k in kept], min(fps, 25), stamps_ms=stamps)
    info = probe(path)
    assert (info.fps, info.varies) == (fps, True) and "varies" in info.notes[0]
    seen = numbers(path)
    assert abs(len(seen) - 75) <= 1 and set(seen) == set(kept)  # Matroska says of the last that it lasts 40 ms
    assert seen[:74] == [max(k for k in kept if k <= tick) for tick in range(74)]


@pytest.mark.parametrize("fps, given", [(120, 60), (90, 45), (Fraction(120000, 1001), Fraction(60000, 1001)), (5, 25)])
def test_rates_that_are_too_high_or_too_low_are_changed_and_said(tmp_path, fps, given):
    path = write_media(tmp_path / "clip.mp4", count_up(30), fps)
    info = probe(path)
    assert info.fps == given and info.notes
    assert info.duration_s == pytest.approx(float(30 / fps), abs=0.001)
    seen = numbers(path)
    assert len(seen) == info.frames
    assert seen[:3] == ([0, 0, 0] if fps == 5 else [0, 2, 4])


def test_animated_gif_and_png(tmp_path):
    pictures = [Image.fromarray(numbered(k)) for k in range(7)]
    for name in ("a.gif", "a.png"):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=100)
        info = probe(tmp_path / name)
        assert (info.fps, info.frames, info.is_still) == (10, 7, False)
        assert numbers(tmp_path / name) == list(range(7))


def test_animated_webp_is_refused_with_a_way_out(tmp_path):
    pictures = [Image.fromarray(numbered(k)) for k in range(3)]
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=100)
    with pytest.raises(InputError, match="a.webp.*Animated WebP is not supported; save it as GIF or MP4"):
        probe(tmp_path / "a.webp")


def test_a_truncated_webp_is_not_called_animated(tmp_path):
    Image.fromarray(QUARTERS).save(tmp_path / "a.webp", lossless=True)
    data = (tmp_path / "a.webp").read_bytes()
    (tmp_path / "a.webp").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError, match="could be decoded: the file is cut short") as caught:
        probe(tmp_path / "a.webp")
    assert "nimated" not in str(caught.value)


# --- stills ----------------------------------------------------------------------------------------------------

PHOTO = astronaut()[:480, :480]


def photo(path: Path, **how: object) -> bytes:
    """Write the astronaut's picture in a format; returns its bytes."""
    Image.fromarray(PHOTO).save(path, **how)
    return path.read_bytes()


@pytest.mark.parametrize(
    "name, how",
    [
        ("a.jpg", {}),
        ("a.jpg", {"progressive": True}),
        ("a.jpg", {"subsampling": 0}),
        ("a.gif", {}),
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.tif", {}),
        ("a.tga", {}),
        ("a.webp", {"lossless": True}),
        ("a.ppm", {}),
        ("a.jp2", {}),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.66, 0.95])
def test_a_still_that_ends_early_is_one_sentence(tmp_path, name, how, share):
    data = photo(tmp_path / name, **how)
    assert probe(tmp_path / name).notes == ()
    (tmp_path / name).write_bytes(data[: round(len(data) * share)])
    with pytest.raises(InputError, match=rf"{name} (is cut short|could be decoded|cannot be read)"):
        probe(tmp_path / name)


def test_a_jpeg_may_be_followed_by_anything_and_lack_its_last_two_bytes(tmp_path):
    data = photo(tmp_path / "a.jpg")
    film = write_media(tmp_path / "film.mp4", count_up(5)).read_bytes()
    with FrameReader(probe(tmp_path / "a.jpg")) as reader:
        whole = next(reader)
    for tail in (film, b"junk" * 999, bytes(5000)):
        (tmp_path / "b.jpg").write_bytes(data + tail)
        info = probe(tmp_path / "b.jpg")
        assert info.is_still and info.notes == ()
        with FrameReader(info) as reader:
            assert np.array_equal(next(reader), whole)
    (tmp_path / "c.jpg").write_bytes(data[:-2])
    assert probe(tmp_path / "c.jpg").notes == ()
    (tmp_path / "d.jpg").write_bytes(data[: len(data) * 2 // 3] + bytes(len(data) // 3))  # a download that stopped
    with pytest.raises(InputError, match=r"d\.jpg is cut short"):
        probe(tmp_path / "d.jpg")


def test_a_jpeg_with_a_hole_is_taken_with_a_warning(tmp_path):
    data = bytearray(photo(tmp_path / "a.jpg"))
    data[len(data) // 2 : len(data) // 2 + 400] = b"\xff\xd0" * 200  # restart marks that nobody announced
    (tmp_path / "a.jpg").write_bytes(data)
    assert probe(tmp_path / "a.jpg").notes == ("The picture is damaged; what could be decoded was taken.",)


def test_a_jpeg_inside_a_tiff_is_refused_with_a_way_out(tmp_path):
    photo(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(InputError, match=r"a\.tif is a TIFF that holds a JPEG.*save it as JPEG or PNG"):
        probe(tmp_path / "a.tif")
    photo(tmp_path / "b.tif", compression="tiff_lzw")
    assert probe(tmp_path / "b.tif").is_still


@pytest.mark.parametrize(
    "size, ending", [((8064, 6048), "jpg"), ((3000, 8000), "jpg"), ((6000, 4000), "png"), ((16_320, 12_240), "jpg")]
)
def test_a_large_photo_is_made_smaller_while_it_is_decoded(tmp_path, size, ending):
    """To what every player takes (H.264's level 5.1: 36,864 blocks), in its proportions, upright, in little memory."""
    path, exif = tmp_path / f"p.{ending}", Image.Exif()
    exif[0x112] = 6
    Image.fromarray(QUARTERS).resize(size, Image.Resampling.NEAREST).save(path, exif=exif, compress_level=1)
    info = probe(path)
    wide, high = info.width, info.height
    assert max(wide, high) <= 4096 and -(-wide // 16) * -(-high // 16) <= 36_864 and not wide % 2 and not high % 2
    assert wide * high > 0.9 * 36_000 * 256 or max(wide, high) > 4090
    assert wide / high == pytest.approx(size[1] / size[0], rel=0.002) and info.rotation == 90
    assert f"of {size[0]} × {size[1]} pixels was made smaller" in info.notes[0]
    with FrameReader(info) as reader:
        frame = next(reader)
    small = np.asarray(Image.fromarray(frame).resize((48, 64), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - np.rot90(QUARTERS, -1))[2:-2, 2:-2].mean() < 5


def test_a_photo_that_is_not_too_large_is_left_as_it_is(tmp_path):
    Image.fromarray(QUARTERS).resize((4000, 2250)).save(tmp_path / "p.jpg")
    info = probe(tmp_path / "p.jpg")
    assert (info.width, info.height, info.notes) == (4000, 2250, ())


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "1", "P", "LA", "I;16"])
def test_pictures_of_every_kind_of_pixel(tmp_path, mode):
    ending = "jpg" if mode == "CMYK" else "png"
    kept = Image.fromarray(PHOTO[..., 1].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(PHOTO)
    (kept if mode == "I;16" else kept.convert(mode)).save(tmp_path / f"p.{ending}")
    with FrameReader(probe(tmp_path / f"p.{ending}")) as reader:
        seen = next(reader).astype(int)
    wanted = PHOTO if mode in ("RGBA", "CMYK", "P") else np.asarray(Image.fromarray(PHOTO).convert("L"))[..., None]
    if mode == "1":  # black and white, in patterns: right on the whole
        assert set(np.unique(seen)) == {0, 255} and seen.mean() == pytest.approx(wanted.mean(), abs=5)
    else:
        assert np.abs(seen - wanted).mean() < 25


def box(kind: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, parts))) + kind + b"".join(parts)


def as_protected(boxes: bytes) -> bytes:
    """The same MP4 with the boxes of common encryption in its sample entries."""
    out, at = b"", 0
    while at < len(boxes):
        size, kind = struct.unpack(">I4s", boxes[at : at + 8])
        body = boxes[at + 8 : at + size]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            body = as_protected(body)
        elif kind == b"stsd":
            (length,), coding = struct.unpack(">I", body[8:12]), body[12:16]
            scheme = box(b"schm", bytes(4), b"cenc", struct.pack(">I", 0x10000))
            info = box(
                b"sinf", box(b"frma", coding), scheme, box(b"schi", box(b"tenc", bytes(6), b"\1\x08", bytes(16)))
            )
            body = body[:8] + box(b"encv" if coding == b"avc1" else b"enca", body[16 : 8 + length], info)
        out, at = out + box(kind, body), at + size
    return out


def test_a_protected_video_is_said_to_be_protected(tmp_path):
    path = write_media(tmp_path / "a.mp4", count_up(25), sound=clicks(1, [0.5]))
    data, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    with av.open(str(path)) as whole:
        for packet in whole.demux():
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = rng.bytes(packet.size)
    path.write_bytes(as_protected(bytes(data)))
    with pytest.raises(InputError, match=r"No picture in a\.mp4 could be decoded: it is protected against copying"):
        probe(path)
    with pytest.raises(InputError, match=r"No sound in a\.mp4 could be decoded: it is protected against copying"):
        read_waveform(path)


def test_numbered_frames_are_told_to_be_joined(tmp_path):
    with pytest.raises(InputError, match=r"%04d\.png does not exist: the numbered frames of a film have to be joined"):
        probe(tmp_path / "%04d.png")


# --- any frame, in any order ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
def test_segments(tmp_path, ending, monkeypatch):
    options = {"g": "48", "bf": "3", "x264-params": "open-gop=1:keyint=48:min-keyint=48:scenecut=0"}
    codec = "mpeg4" if ending == "avi" else "libx264"
    path = write_media(
        tmp_path / f"clip.{ending}", count_up(250), 25, codec, options=None if ending == "avi" else options
    )
    forth = list(range(250))
    assert numbers(path, [(0, 250), (250, 0)]) == forth + forth[::-1]
    assert numbers(path, [(240, 250), (3, 6), (100, 97), (248, 251)]) == [
        *range(240, 250),
        3,
        4,
        5,
        99,
        98,
        97,
        248,
        249,
    ]
    assert numbers(path, [(k, k + 1) for k in (200, 47, 48, 49, 95, 96, 0, 249)]) == [200, 47, 48, 49, 95, 96, 0, 249]
    assert numbers(path, []) == []


def test_a_long_clip_there_and_back_in_bounded_memory(tmp_path):
    frames = [numbered(k % 256, 960, 540) for k in range(400)]
    path = write_media(tmp_path / "clip.mp4", frames, 25)
    with FrameReader(probe(path), [(0, 390), (390, 10)]) as reader:
        seen = [number_of(next(reader)) for _ in range(760)]
        status = Path(f"/proc/{children().pop()}/status").read_text()
        seen += [number_of(frame) for frame in reader]
    assert seen == [k % 256 for k in (*range(390), *range(389, 9, -1))]
    assert int(status.split("VmHWM:")[1].split()[0]) < 300_000  # kB, where all pictures would be 600,000


def test_a_still_gives_its_picture_for_any_index(tmp_path):
    Image.fromarray(QUARTERS).save(tmp_path / "still.png")
    info = probe(tmp_path / "still.png")
    assert (info.is_still, info.frames, info.has_audio, info.fps) == (True, 1, False, 25)
    with FrameReader(info) as reader:
        assert [np.array_equal(frame, QUARTERS) for frame in reader] == [True]
    with FrameReader(info, [(0, 3), (90, 88)]) as reader:
        frames = list(reader)
        assert reader.missing == 0
    frames[0][:] = 0  # each is its own array
    assert [np.array_equal(frame, QUARTERS) for frame in frames] == [False, True, True, True, True]


# --- what a picture looks like -------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(QUARTERS).save(tmp_path / "photo.jpg", exif=exif, quality=95, subsampling=0)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "photo.jpg"))).astype(int)
    info = probe(tmp_path / "photo.jpg")
    assert (info.height, info.width) == expected.shape[:2]
    with FrameReader(info) as reader:
        assert np.abs(next(reader) - expected).max() <= 2


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_rotation_metadata(tmp_path, turn):
    path = write_media(tmp_path / "phone.mp4", [QUARTERS] * 5, rotation=turn, options={"crf": "10"})
    info = probe(path)
    expected = np.rot90(QUARTERS, turn // 90)  # the display matrix counts anticlockwise
    assert (info.height, info.width) == expected.shape[:2]
    assert info.rotation == -turn % 360
    with FrameReader(info) as reader:
        assert np.abs(next(reader).astype(int) - expected)[4:-4, 4:-4].mean() < 4


@pytest.mark.parametrize(
    "aspect, turn, size",
    [
        ("16/15", 0, (768, 576)),
        ("8/9", 0, (720, 648)),
        ("16/15", 90, (576, 768)),
        ("1/200", 0, (720, 576)),
        ("400/401", 0, (720, 576)),
    ],
)
def test_pixels_that_are_not_square(tmp_path, aspect, turn, size):
    path = write_media(tmp_path / "tape.mp4", count_up(4, 720, 576), aspect=Fraction(aspect), rotation=turn)
    info = probe(path)
    assert (info.width, info.height) == size
    with FrameReader(info) as reader:
        assert [frame.shape for frame in reader] == [(size[1], size[0], 3)] * 4


RGB = np.array([[200, 40, 60], [30, 160, 220], [128, 128, 128], [16, 235, 90], [255, 255, 255], [0, 0, 0]], float)
KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}


def flat(rgb: np.ndarray, matrix: int, full: bool, size=(64, 48), bits: int = 8) -> av.VideoFrame:
    """A picture of one colour, its planes computed here from the matrix's definition."""
    kr, kb = KR_KB[matrix]
    r, g, b = rgb / 255
    y = kr * r + (1 - kr - kb) * g + kb * b
    chroma = np.array([(b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)])
    scale = 2 ** (bits - 8)
    levels = [255 * y, *(128 + 255 * chroma)] if full else [16 + 219 * y, *(128 + 224 * chroma)]
    frame = av.VideoFrame(*size, "yuv420p" if bits == 8 else "yuv420p10le")
    for plane, level in zip(frame.planes, levels, strict=True):
        kind = np.uint8 if bits == 8 else np.uint16
        value = np.clip(round(level * scale), 0, 256 * scale - 1)
        plane.update(np.full(plane.buffer_size // kind().itemsize, value, kind).tobytes())
    frame.color_range = 2 if full else 1
    return frame


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 9])
def test_colour_matrix_and_range(tmp_path, matrix, full, bits):
    pixels = "yuv420p" if bits == 8 else "yuv420p10le"
    tags = {"colorspace": matrix, "color_range": 2 if full else 1}
    frames = [flat(rgb, matrix, full, bits=bits) for rgb in RGB]
    path = write_media(tmp_path / "c.mkv", frames, 25, "libx264", pixels, options={"crf": "1", "bf": "0"}, context=tags)
    with FrameReader(probe(path)) as reader:
        seen = np.array([frame.mean((0, 1)) for frame in reader])
    assert np.abs(seen - RGB).max() < 3


@pytest.mark.parametrize("size, matrix", [((640, 480), 5), ((1280, 720), 1)])
def test_untagged_colour_is_taken_as_players_take_it(tmp_path, size, matrix):
    frames = [flat(rgb, matrix, False, size) for rgb in RGB]
    path = write_media(tmp_path / "c.mp4", frames, options={"crf": "1", "bf": "0"})
    with FrameReader(probe(path)) as reader:
        seen = np.array([frame.mean((0, 1)) for frame in reader])
    assert np.abs(seen - RGB).max() < 3


def pq(nits: float) -> float:
    """SMPTE ST 2084: light to signal, 0..1."""
    y = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_tone_mapped(tmp_path, transfer):
    nits = [0, 5, 40, 100, 200, 600, 1000]
    signals = [pq(n) for n in nits] if transfer == 16 else [0, 0.15, 0.35, 0.5, 0.75, 0.9, 1]
    frames = [flat(np.full(3, 255 * s), 9, False, bits=10) for s in signals]
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": transfer}
    path = write_media(
        tmp_path / "h.mkv", frames, 25, "libx264", "yuv420p10le", options={"crf": "1", "bf": "0"}, context=tags
    )
    info = probe(path)
    assert info.hdr and "tone-mapped" in info.notes[0]
    with FrameReader(info) as reader:
        seen = np.array([frame.mean((0, 1)) for frame in reader])
    assert np.ptp(seen, axis=1).max() < 3  # grey stays grey
    grey = seen.mean(1)
    assert (np.diff(grey) > 5).all()  # no two brightnesses fall together, none is burnt out
    assert grey[0] < 3 and 60 < grey[3] < 180 and grey[-1] > 190


def through_primaries(rgb, corners) -> np.ndarray:
    """What a screen of gamma 2.2 shows of colours under other primaries, as BT.709 levels."""
    columns = [np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*c, (0.3127, 0.329))]).T for c in (corners, BT709)]
    wide, narrow = (c[:, :3] * np.linalg.solve(c[:, :3], c[:, 3]) for c in columns)
    light = np.linalg.solve(narrow, wide @ (np.array(rgb) / 255) ** 2.2)
    return 255 * light.clip(0, 1) ** (1 / 2.2)


BT709 = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
P3, BT2020 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046))


@pytest.mark.parametrize("primaries, corners", [(12, P3), (9, BT2020)])
def test_wide_gamut_is_shown_as_it_looks(tmp_path, primaries, corners):
    skins = [(214, 158, 132), (150, 105, 85), (128, 128, 128)]
    tags = {"colorspace": 1, "color_range": 1, "color_primaries": primaries}
    frames = [flat(np.array(rgb), 1, False) for rgb in skins]
    path = write_media(tmp_path / "w.mkv", frames, 25, "libx264", options={"crf": "1", "bf": "0"}, context=tags)
    with FrameReader(probe(path)) as reader:
        seen = np.array([frame.mean((0, 1)) for frame in reader])
    wanted = np.array([through_primaries(rgb, corners) for rgb in skins])
    assert np.abs(seen - wanted).max() < 4 and np.abs(wanted[0] - skins[0]).max() > 10


def test_a_still_has_the_colours_of_its_profile(tmp_path):
    """A phone's JPEG in Display P3; a profile of its own made here: sRGB's with red and blue changed round."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, blue = srgb.index(b"rXYZ", 128), srgb.index(b"bXYZ", 128)
    other = bytearray(srgb.replace("sRGB".encode("utf-16-be"), "ours".encode("utf-16-be")))
    other[red + 4 : red + 8], other[blue + 4 : blue + 8] = srgb[blue + 4 : blue + 8], srgb[red + 4 : red + 8]
    picture = Image.fromarray(np.full((48, 64, 3), (200, 60, 50), np.uint8))
    for name, profile in (("plain", srgb), ("other", bytes(other))):
        picture.save(tmp_path / f"{name}.jpg", quality=98, subsampling=0, icc_profile=profile)
        picture.save(tmp_path / f"{name}.png", icc_profile=profile)
    for kind in ("jpg", "png"):
        for name, wanted in (("plain", (200, 60, 50)), ("other", (50, 60, 200))):
            with FrameReader(probe(tmp_path / f"{name}.{kind}")) as reader:
                assert np.abs(next(reader)[20, 20] - np.array(wanted, float)).max() <= 3, (kind, name)


def test_grey_and_palette_pictures(tmp_path):
    Image.fromarray(QUARTERS[..., 1]).save(tmp_path / "grey.png")
    Image.fromarray(QUARTERS).quantize(16).save(tmp_path / "palette.png")
    Image.fromarray(np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)).save(tmp_path / "deep.png")
    expected = {
        "grey": QUARTERS[..., 1:2],
        "palette": QUARTERS,
        "deep": np.linspace(0, 255, 64 * 48).reshape(48, 64, 1),
    }
    for name, picture in expected.items():
        with FrameReader(probe(tmp_path / f"{name}.png")) as reader:
            assert np.abs(next(reader) - picture.astype(float)).max() < 1.5, name


def test_alpha_is_put_on_black_and_said(tmp_path):
    clear = np.dstack([QUARTERS, np.full((48, 64), 255, np.uint8)])
    clear[:, :20, 3], clear[:, 20:40, 3] = 0, 128
    expected = (QUARTERS * (clear[..., 3:] / 255)).round()
    Image.fromarray(clear).save(tmp_path / "a.png")
    Image.fromarray(clear).save(tmp_path / "a.webp", lossless=True, exact=True)
    frame = av.VideoFrame.from_ndarray(clear, "rgba").reformat(format="yuva420p")
    write_media(tmp_path / "a.webm", [frame] * 3, codec="libvpx-vp9", pixels="yuva420p", options={"crf": "5", "b": "0"})
    write_media(
        tmp_path / "tagged.mkv",
        [frame] * 3,
        codec="libvpx-vp9",
        pixels="yuva420p",
        options={"crf": "5", "b": "0"},
        tags={"alpha_mode": "1"},
    )
    for name in ("a.png", "a.webp", "a.webm", "tagged.mkv"):
        info = probe(tmp_path / name)
        assert info.alpha and "black" in info.notes[0], name
        with FrameReader(info) as reader:
            difference = np.abs(next(reader) - expected)
        assert difference[:, :18].max() <= 1, name
        assert np.median(difference) <= 3, name
    Image.fromarray(clear[:, 40:]).save(tmp_path / "opaque.png")
    assert not probe(tmp_path / "opaque.png").alpha


def test_interlaced_fields_are_merged(tmp_path):
    frames = []
    for k in range(30):  # a bar that moves between the fields
        picture = np.full((96, 128, 3), 40, np.uint8)
        picture[0::2, 4 * k : 4 * k + 12] = 220
        picture[1::2, 4 * k + 2 : 4 * k + 14] = 220
        frames.append(picture)
    options = {"flags": "+ilme+ildct", "x264-params": "tff=1:interlaced=1", "crf": "8"}
    path = write_media(tmp_path / "tv.mp4", frames, options=options)
    info = probe(path)
    assert info.frames == 30 and "interlaced" in " ".join(info.notes)
    with FrameReader(info) as reader:
        seen = [frame.astype(int) for frame in reader]
    assert len(seen) == 30

    def comb(picture):
        return np.abs(2 * picture[1:-1] - picture[:-2] - picture[2:])[10:-10].mean()

    assert comb(seen[12]) < 0.35 * comb(frames[12].astype(int))
    with FrameReader(info, [(20, 22), (5, 4)]) as reader:
        assert [np.array_equal(a, seen[k]) for a, k in zip(reader, (20, 21, 4), strict=True)][2]


# --- files that are not what they say --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.8])
def test_a_truncated_video_is_short_and_says_so(tmp_path, ending, part):
    front = {"movflags": "+faststart"} if ending == "mp4" else {}
    rng = np.random.default_rng(0)
    frames = [np.clip(frame + rng.normal(0, 20, frame.shape), 0, 255).astype(np.uint8) for frame in count_up(100)]
    codec = "mpeg4" if ending == "avi" else "libx264"
    sound = clicks(4, [1])
    whole = write_media(tmp_path / f"whole.{ending}", frames, codec=codec, sound=sound, container_options=front)
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(whole.read_bytes()[: int(part * whole.stat().st_size)])
    info = probe(path)
    with FrameReader(info) as reader:
        given = sum(1 for _ in reader)
    assert given + reader.missing == info.frames
    assert 0 < given < 100
    if ending != "ts":  # a transport stream promises nothing
        assert info.frames == pytest.approx(100, abs=2)


def test_an_index_that_never_came_is_one_sentence(tmp_path):
    whole = write_media(tmp_path / "whole.mp4", count_up(50))
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"^cut.mp4 cannot be read as a video, a picture or a sound \(.*\)\.$"):
        probe(tmp_path / "cut.mp4")


def test_damage_in_the_middle_is_counted(tmp_path):
    whole = bytearray(write_media(tmp_path / "whole.ts", count_up(200), options={"g": "10"}).read_bytes())
    rng = np.random.default_rng(1)
    for at in rng.integers(len(whole) // 4, len(whole) // 2, 40):
        whole[at] ^= 255
    (tmp_path / "hurt.ts").write_bytes(whole)
    info = probe(tmp_path / "hurt.ts")
    with FrameReader(info) as reader:
        given = sum(1 for _ in reader)
    assert given == info.frames - reader.missing
    assert "damaged" in " ".join(reader.notes)


def bad_files(folder: Path) -> dict[str, str]:
    """Name -> what its sentence must say."""
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is a letter, not a film.\n" * 50)
    (folder / "letter.txt").write_text("This is a letter, not a film.\n" * 50)
    (folder / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "folder.mp4").mkdir()
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXTINF:5,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n")
    (folder / "list.ffconcat").write_text("ffconcat version 1.0\nfile whole.mp4\n")
    (folder / "map.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>")
    os.mkfifo(folder / "pipe.mp4")
    return {
        "empty.mp4": "is empty",
        "text.mp4": "cannot be read",
        "letter.txt": "cannot be read",
        "noise.mkv": "cannot be read",
        "folder.mp4": "is a folder",
        "list.m3u8": "cannot be read",
        "list.ffconcat": "cannot be read",
        "map.svg": "cannot be read",
        "pipe.mp4": "not an ordinary file",
        "missing.mp4": "does not exist",
        "http:example.mp4": "does not exist",
        "no\0name.mp4": "does not exist",
    }


def test_what_is_no_media_is_one_sentence(tmp_path):
    for name, words in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=words) as caught:
            probe(tmp_path / name)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = write_media(tmp_path / "mine.mp4", count_up(3))
    path.chmod(0)
    if os.geteuid() == 0:  # root may read everything

        def refuse(*_args: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"mine\.mp4 cannot be opened \(Permission denied\)"):
        probe(path)


def png_claiming(width: int, height: int) -> bytes:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [7000, 20_000, 100_000])
def test_a_picture_that_claims_to_be_enormous(tmp_path, side):
    (tmp_path / "huge.png").write_bytes(png_claiming(side, side))
    began = time.monotonic()
    with pytest.raises(InputError, match=r"huge\.png"):
        probe(tmp_path / "huge.png")
    assert time.monotonic() - began < 5


def test_a_video_that_claims_to_last_for_ever(tmp_path):
    path = write_media(tmp_path / "long.mkv", count_up(10), stamps_ms=[*range(0, 360, 40), 10**9])
    with pytest.raises(InputError, match=r"long\.mkv says that it lasts 2\d\d hours; at most 4 are taken"):
        probe(path)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "gif", "wav"])
def test_fuzzed_bytes_end_in_frames_or_in_one_sentence(tmp_path, ending):
    codec = {"avi": "mpeg4", "gif": "gif"}.get(ending, "libx264")
    frames = [] if ending == "wav" else count_up(20, 64, 48)
    sound = None if ending == "gif" else clicks(0.8, [0.4])
    pixels = "rgb8" if ending == "gif" else "yuv420p"
    whole = write_media(
        tmp_path / f"whole.{ending}",
        frames,
        25,
        codec,
        pixels,
        sound=sound,
        sound_codec="pcm_s16le" if ending in ("wav", "avi") else "aac",
    ).read_bytes()
    rng = np.random.default_rng(2)
    for trial in range(6):
        hurt = bytearray(whole)
        reach = 400 if trial % 2 else len(hurt)  # headers matter most
        for at in rng.integers(0, min(reach, len(hurt)), 12):
            hurt[at] = rng.integers(0, 256)
        path = tmp_path / f"hurt{trial}.{ending}"
        path.write_bytes(hurt)
        began = time.monotonic()
        try:
            info = probe(path)
            if info.has_video and info.frames < 5000:
                with FrameReader(info) as reader:
                    assert sum(1 for _ in reader) + reader.missing >= info.frames
            if info.has_audio:
                read_waveform(path)
        except InputError as error:
            assert path.name in str(error) and "\n" not in str(error)
        assert time.monotonic() - began < 20


# --- what is not taken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending, codec, pixels",
    [("avi", "zmbv", "bgr0"), ("mkv", "snow", "yuv420p"), ("avi", "asv1", "yuv420p")],
)
def test_a_codec_that_nobody_needs_is_not_decoded(tmp_path, ending, codec, pixels):
    path = write_media(tmp_path / f"c.{ending}", count_up(5), codec=codec, pixels=pixels, options={"strict": "-2"})
    with pytest.raises(InputError, match=rf"pictures of c\.{ending} are coded as {codec}, which is not taken"):
        probe(path)


@pytest.mark.parametrize("form", ["gxf", "swf", "ffmetadata", "webvtt", "ircam", "voc"])
def test_a_container_that_nobody_needs_is_not_opened(tmp_path, form):
    path = tmp_path / "c.mp4"
    starts = {
        "gxf": b"\0\0\0\0\1\xbc\0\0\0\0\0\0\0\0\xe1\xe2",
        "swf": b"FWS\x09",
        "ffmetadata": b";FFMETADATA1\n",
        "webvtt": b"WEBVTT\n\n",
        "ircam": b"\x64\xa3\1\0",
        "voc": b"Creative Voice File\x1a",
    }
    path.write_bytes(starts[form] + bytes(5000))
    with pytest.raises(InputError, match=r"c\.mp4 cannot be read as a video, a picture or a sound"):
        probe(path)


# --- the child -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    return write_media(tmp_path_factory.mktemp("long") / "long.mp4", count_up(600, 320, 240), sound=clicks(24, [1]))


def test_a_reader_that_is_closed_or_forgotten_leaves_no_child(long_clip):
    info = probe(long_clip)
    with FrameReader(info) as reader:
        next(reader)
        assert len(children()) == 1
    assert not children()
    reader.close()
    assert next(reader, None) is None
    reader = FrameReader(info)
    next(reader)
    del reader
    gc.collect()
    assert not children()
    sound = SoundReader(long_clip)
    next(sound)
    sound.close()
    assert not children()


def test_frames_read_ahead_are_the_same_and_bounded(long_clip, monkeypatch):
    info = probe(long_clip)
    with FrameReader(info, [(0, 60)]) as plain, FrameReader(info, [(0, 60)]) as reader:
        assert all(np.array_equal(a, b) for a, b in zip(plain, ahead(reader), strict=True))
    monkeypatch.setattr(media, "AHEAD_BYTES", 6 * info.width * info.height * 3)
    with FrameReader(info) as reader:
        frames = ahead(reader)
        next(frames)
        time.sleep(0.5)
        assert reader._left >= info.frames - 6
    assert not children()
    assert len(list(frames)) < 6  # what was read when the reader was closed; its end is no error


def test_closing_from_another_thread_ends_the_reading(long_clip):
    import threading

    with FrameReader(probe(long_clip), [(0, 600)] * 50) as reader:
        next(reader)  # on a busy machine the child may take longer than half a second to start
        threading.Timer(0.5, reader.close).start()
        given = sum(1 for _ in reader)
    assert given < 30_000


def test_a_crash_of_the_decoder_is_one_sentence(long_clip):
    with FrameReader(probe(long_clip), [(0, 600)] * 50) as reader:
        next(reader)
        os.kill(*children(), signal.SIGSEGV)
        with pytest.raises(InputError, match=r"long\.mp4 is damaged: the decoder broke down on it \(SIGSEGV\)"):
            for _ in reader:
                pass


def test_a_decoder_that_stalls_is_given_up(long_clip, monkeypatch):
    info = probe(long_clip)
    monkeypatch.setattr(media, "PROBE_S", 0.0)
    with pytest.raises(InputError, match="needs more time than one file is given"):
        probe(long_clip)
    monkeypatch.setattr(media, "STALL_S", 5)
    with FrameReader(info, [(0, 600)] * 50) as reader:
        next(reader)
        os.kill(*children(), signal.SIGSTOP)
        with pytest.raises(InputError, match="needs more time than one file is given"):
            for _ in reader:
                pass


def test_the_child_leaves_when_the_parent_is_killed(long_clip, tmp_path):
    import subprocess
    import sys

    code = (
        "import os, sys; from lipsync.media.reader import *;"
        "r = FrameReader(probe(sys.argv[1]), [(0, 600)] * 99); next(r);"
        "print(r._child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    root = Path(media.__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code, str(long_clip)], cwd=root, stdout=subprocess.PIPE, timeout=30)
    child = Path(f"/proc/{int(ran.stdout)}/cmdline")
    for _ in range(50):
        if not child.exists() or not child.read_bytes():
            return
        time.sleep(0.05)
    pytest.fail("the decoding child outlived its parent")


def test_the_package_loads_light():
    import subprocess
    import sys

    heavy = "('torch', 'cv2', 'openvino', 'scipy')"
    code = f"import sys, lipsync.media.decoder; print([m for m in {heavy} if m in sys.modules])"
    root = Path(media.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stdout == "[]\n"


# --- sound -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le", "pcm_u8", "flac"])
def test_sound_at_any_rate_keeps_its_moments_and_loudness(tmp_path, rate, codec):
    ending = "flac" if codec == "flac" else "wav"
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    tone[: rate // 2] = 0
    path = write_media(tmp_path / f"v.{ending}", sound=tone, sound_rate=rate, sound_codec=codec)
    info = probe(path)
    assert (info.has_video, info.has_audio, info.frames) == (False, True, 0)
    assert info.duration_s == pytest.approx(2, abs=0.01)
    wave = read_waveform(path)
    assert wave.dtype == np.float32 and abs(len(wave) - 32_000) <= 2
    t = np.arange(9000, 31_000) / 16_000
    assert np.abs(wave[9000:31_000] - 0.5 * np.sin(2 * np.pi * 440 * t)).max() < (0.02 if codec == "pcm_u8" else 0.003)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_mixed(tmp_path, channels):
    t = np.arange(32_000) / 16_000
    sound = np.zeros((32_000, channels))
    sound[:, 0] = 0.4 * np.sin(2 * np.pi * 300 * t)
    path = write_media(tmp_path / "v.wav", sound=sound, sound_rate=16_000, sound_codec="pcm_s16le")
    mono = read_waveform(path)
    left = np.concatenate(list(SoundReader(path, 16_000, 2)))
    assert mono.shape == (32_000,) and left.shape == (32_000, 2)
    # Of six channels a mix would leave a quarter of one: it is heard alone.
    assert np.abs(mono).max() == pytest.approx({1: 0.4, 2: 0.2, 6: 0.4}[channels], abs=0.03)
    assert np.abs(left[:, 0]).max() > (0.39 if channels < 6 else 0.1)
    assert np.abs(left[:, 1]).max() == pytest.approx(0.4 if channels == 1 else 0, abs=0.001)
    full = write_media(
        tmp_path / "full.wav", sound=np.full((16_000, channels), 0.99), sound_rate=16_000, sound_codec="pcm_s16le"
    )
    assert np.abs(read_waveform(full)).max() <= 1


@pytest.mark.parametrize(
    "ending, codec",
    [
        ("mp4", "aac"),
        ("mov", "aac"),
        ("mkv", "aac"),
        ("mkv", "libopus"),
        ("webm", "libopus"),
        ("avi", "libmp3lame"),
        ("mp4", "libmp3lame"),
    ],
)
@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_click_stays_at_its_picture(tmp_path, ending, codec, rate):
    """Encoder delay and edit lists: the flash and the click are half a frame apart at most."""
    rate = 48_000 if codec == "libopus" else rate
    pictures = "libvpx-vp9" if ending == "webm" else "mpeg4" if ending == "avi" else "libx264"
    flashes = (10, 37)
    frames = [np.full((96, 128, 3), 255 * (k in flashes), np.uint8) for k in range(50)]
    sound = clicks(2, [k / 25 for k in flashes], rate)
    path = write_media(tmp_path / f"c.{ending}", frames, 25, pictures, sound=sound, sound_rate=rate, sound_codec=codec)
    with FrameReader(probe(path)) as reader:
        seen = [k for k, frame in enumerate(reader) if frame.mean() > 128]
    heard = click_times(read_waveform(path), 16_000)
    if ending == "avi":  # has no word for the encoder's delay: pictures and sound move together, to whole frames
        assert heard == pytest.approx([k / 25 for k in seen], abs=0.02)
    else:
        assert seen == list(flashes)
        assert heard == pytest.approx([k / 25 for k in flashes], abs=0.005)


@pytest.mark.parametrize("late_s", [0.5, 0.17, -0.3])
def test_sound_that_starts_at_another_time(tmp_path, late_s):
    """Late sound is preceded by silence; early sound is cut at the first picture."""
    start = max(0, -late_s)
    frames, stamps = count_up(50), [round(1000 * (start + k / 25)) for k in range(50)]
    moment = 1.2  # of the click, in the container's clock
    sound = clicks(2, [moment - max(0, late_s)])
    path = write_media(
        tmp_path / "c.mkv", frames, stamps_ms=stamps, sound=sound, sound_codec="flac", sound_start_s=max(0, late_s)
    )
    assert probe(path).start_s == pytest.approx(start, abs=0.001)
    assert click_times(read_waveform(path), 16_000) == pytest.approx([moment - start], abs=0.002)


def test_a_gap_in_the_sound_is_silence(tmp_path):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as out:
        voice = out.add_stream("flac", rate=16_000, layout="mono")
        for first in (0, 48_000):  # one second, two seconds of nothing, one second
            part = clicks(1, [0.5], 16_000)[None]
            block = av.AudioFrame.from_ndarray((part * 32767).astype(np.int16), "s16", "mono")
            block.sample_rate, block.pts, block.time_base = 16_000, first, Fraction(1, 16_000)
            for packet in voice.encode(block):
                out.mux(packet)
        out.mux(voice.encode(None))
    wave = read_waveform(path)
    assert len(wave) == pytest.approx(64_000, abs=32)
    assert click_times(wave, 16_000) == pytest.approx([0.5, 3.5], abs=0.003)


def test_sound_comes_in_chunks_that_make_the_whole(long_clip):
    with SoundReader(long_clip, 48_000, 2) as reader:
        chunks = list(reader)
    assert all(chunk.dtype == np.float32 and chunk.shape == (48_000, 2) for chunk in chunks[:-1])
    assert click_times(np.concatenate(chunks)[:, 0], 48_000) == pytest.approx([1], abs=0.001)


def test_what_a_file_lacks_is_said(tmp_path):
    silent = write_media(tmp_path / "silent.mp4", count_up(3))
    voice = write_media(tmp_path / "voice.wav", sound=clicks(1, [0.5]), sound_codec="pcm_s16le")
    with pytest.raises(InputError, match=r"silent\.mp4 has no sound track"):
        read_waveform(silent)
    with pytest.raises(InputError, match=r"voice\.wav has no picture track"):
        FrameReader(probe(voice))


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as out:
        voice = out.add_stream("libmp3lame", rate=44_100, layout="mono")
        cover = out.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_ndarray(QUARTERS, "rgb24")))
        out.mux(cover.encode(None))
        for k in range(40):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), "fltp", "mono")
            block.sample_rate, block.pts = 44_100, k * 1152
            out.mux(voice.encode(block))
        out.mux(voice.encode(None))
    info = probe(path)
    assert (info.has_video, info.has_audio) == (False, True)


SPEECH = (0.5 * np.sin(2 * np.pi * 300 * np.arange(32_000) / 16_000) * (np.arange(32_000) // 4000 % 2)).astype(
    np.float32
)


def floats(path: Path, samples: np.ndarray, subtype: str = "FLOAT") -> Path:
    """A WAV file of float samples, (S,) or (S, C), at 16 kHz, whatever they are."""
    soundfile.write(path, samples, 16_000, subtype=subtype)
    return path


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_samples_that_are_no_numbers_are_silence_and_counted(tmp_path, subtype, channels):
    sound = np.repeat(SPEECH[:, None], channels, 1)
    sound[::5000, 0] = np.nan
    sound[7, -1] = -np.inf
    path = floats(tmp_path / "v.wav", sound, subtype)
    wave, notes = read_sound(path)
    assert np.isfinite(wave).all() and len(wave) == 32_000 and np.abs(wave).max() <= 0.51
    assert notes == ("8 samples of its sound are no numbers; they were taken as silence.",)
    assert sound_notes(path) == notes
    assert np.isfinite(np.concatenate(list(SoundReader(path, 48_000, 2)))).all()


@pytest.mark.parametrize("level, said", [(1.9, "1.9"), (1e30, "1e+30")])
def test_a_float_voice_above_full_scale_is_cut_off_and_said(tmp_path, level, said):
    wave, notes = read_sound(floats(tmp_path / "v.wav", level * 2 * SPEECH))
    assert np.abs(wave).max() == 1
    assert notes == (f"Its sound goes up to {said} times full scale; what is above that was cut off.",)
    assert read_sound(floats(tmp_path / "w.wav", 2 * SPEECH))[1] == ()


@pytest.mark.parametrize(
    "gains, lost",
    [
        ((1, -1), True),
        ((1, -0.9), True),
        ((-0.8, 1), True),
        ((1, 1), False),
        ((1, 0), False),
        ((1, -0.2), False),
        ((0, 0, 1, 0, 0, 0), True),
        ((0, 0, 0, 0, 1, 0), True),
        ((0, 0, 0, 1, 0, 0), True),
        ((1, -1, 0, 0, 0, 0), True),
        ((1, 1, 1, 0, 0.5, 0.5), False),
        ((0, 0, 0, 0, 0, 0, 0, 1), True),
    ],
)
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le"])
def test_what_a_mix_would_lose_is_heard_in_its_loudest_channel(tmp_path, gains, lost, codec):
    sound = SPEECH[:, None] * np.array(gains)
    path = floats(tmp_path / "v.wav", sound, "PCM_16" if codec == "pcm_s16le" else "FLOAT")
    wave, notes = read_sound(path)
    assert bool(notes) == lost and all("below the loudest of them, which was heard alone" in note for note in notes)
    if lost:
        loudest = SPEECH * gains[int(np.abs(gains).argmax())]
        assert np.abs(wave - loudest).max() < 1e-3
    else:
        assert 0.1 < np.abs(wave).max() < 0.51
    both = np.concatenate(list(SoundReader(path, 16_000, 2)))
    if len(gains) == 2:  # two channels stay what they are
        assert np.abs(both - sound).max() < 1e-3
    else:
        assert np.abs(both).max() > 0.15


def test_a_channel_that_turns_round_later_is_followed_without_a_click(tmp_path):
    """A quiet second in phase, then speech out of phase, of a low tone, in which a jump would show."""
    tone = 0.5 * np.sin(2 * np.pi * 50 * np.arange(48_000) / 16_000)
    sound = np.stack([tone, tone], 1)
    sound[:16_000] *= 0.01
    sound[16_000:, 1] *= -1
    wave, notes = read_sound(floats(tmp_path / "v.wav", sound))
    assert len(notes) == 1 and np.abs(wave[17_000:] - tone[17_000:]).max() < 1e-3
    assert np.abs(np.diff(wave)).max() < 0.02


def test_of_two_channels_alike_one_is_kept(tmp_path):
    """Out of phase, now one a little louder, now the other: to change between them would turn the voice round."""
    louder = np.where(np.arange(80_000) // 16_000 % 2, 1.2, 0.8)[:, None] ** [[1, -1]]
    voice = np.resize(SPEECH, 80_000) * 0.5
    wave, notes = read_sound(floats(tmp_path / "v.wav", voice[:, None] * louder * [1, -1]))
    assert len(notes) == 1 and (wave * -voice >= -1e-6).all()


def with_tracks(path: Path, *tracks: np.ndarray) -> Path:
    """A file of several sound tracks, the first the default one: each (S,) at 16 kHz."""
    with av.open(str(path), "w") as out:
        streams = [
            out.add_stream("flac" if path.suffix == ".mkv" else "aac", rate=16_000, layout="mono") for _ in tracks
        ]
        streams[0].disposition = av.stream.Disposition.default
        out.start_encoding()
        for stream, samples in zip(streams, tracks, strict=True):
            block = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = 16_000, 0, Fraction(1, 16_000)
            for part in voice_format(stream, "mono", 16_000).resample(block):
                out.mux(stream.encode(part))
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_silent_default_track_gives_way_to_one_with_sound(tmp_path, ending):
    silent, low = np.zeros(32_000), 0.2 * SPEECH
    path = with_tracks(tmp_path / f"v.{ending}", silent, SPEECH, low)
    wave, notes = read_sound(path)
    assert np.abs(wave).max() == pytest.approx(0.5, abs=0.05)
    assert notes == ("Number 1 of its 3 sound tracks is silent; number 2 was taken instead.",)
    assert np.abs(read_sound(path, track=3)[0]).max() == pytest.approx(0.1, abs=0.02)
    assert np.abs(read_sound(path, track=1)[0]).max() < 1e-3
    with pytest.raises(InputError, match=r"no sound track number 4 that can be decoded: it has 3"):
        read_sound(path, track=4)
    both = with_tracks(tmp_path / f"b.{ending}", SPEECH, low)
    wave, notes = read_sound(both)
    assert np.abs(wave).max() > 0.4 and notes == ("It has 2 sound tracks, of which number 1 was taken.",)
    none = with_tracks(tmp_path / f"n.{ending}", silent, silent)
    assert np.abs(read_sound(none)[0]).max() < 1e-3


# --- real clips ------------------------------------------------------------------------------------------------


@each_wild_clip
def test_a_real_clip_is_read_whole(video):
    info = probe(video)
    with av.open(str(video)) as container:
        expected = sum(1 for _ in container.decode(video=0))
    with FrameReader(info) as reader:
        given = sum(1 for _ in reader)
    assert (given, reader.missing) == (info.frames, 0)
    assert given == expected or info.varies and given > expected  # held pictures come more than once
    assert len(read_waveform(video)) / 16_000 == pytest.approx(info.duration_s, abs=0.3)


def test_the_late_sound_of_a_real_clip_is_late(shared_data):
    wave = read_waveform(shared_data / "wild" / "syllable_audio_late.mov")
    first = np.flatnonzero(np.abs(wave) > 0)[0] / 16_000
    assert first == pytest.approx(7501 / 44_100, abs=0.002)
