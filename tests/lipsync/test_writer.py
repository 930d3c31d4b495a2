"""What goes out: a file that plays everywhere, in step with itself, whole or not there at all."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lipsync.errors import InputError, LipsyncError
from lipsync.media import reader as media
from lipsync.media.reader import FrameReader, VideoWriter, probe, read_waveform
from tests.helpers.media_maker import click_times, clicks, count_up, number_of, write_media

pytestmark = pytest.mark.slow  # a child process each; the fast suite reads and writes through test_pipeline
NTSC = Fraction(30000, 1001)
ROOT = Path(media.__file__).parents[2]


def stereo(sound: np.ndarray) -> np.ndarray:
    return np.repeat(sound[:, None], 2, 1)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    "fps", [Fraction(22), Fraction(1350, 61), Fraction(24000, 1001), Fraction(25), NTSC, Fraction(60)]
)
def test_frames_come_back_at_the_exact_rate(tmp_path, fps, ending):
    path = tmp_path / f"out.{ending}"
    with VideoWriter(path, 128, 96, fps) as writer:
        for frame in count_up(50):
            writer.write(frame)
    info = probe(path)
    assert info.fps == fps if ending != "mkv" else abs(info.fps / fps - 1) < 1e-4
    assert (info.frames, info.varies, info.start_s, info.has_audio) == (50, False, 0, False)
    with FrameReader(info) as reader:
        assert [number_of(frame) for frame in reader] == list(range(50))


def flash_and_click(path: Path, fps: Fraction, seconds: int, every: int, rate: int, channels: int = 2) -> None:
    """A white frame and a click at the same moment, once in `every` frames."""
    count = round(seconds * fps)
    flashes = range(every, count - 5, every)
    sound = clicks(seconds, [float(k / fps) for k in flashes], rate)[:, None].repeat(channels, 1)
    with VideoWriter(path, 64, 48, fps, rate, channels) as writer:
        for k in range(count):
            writer.write(np.full((48, 64, 3), 255 * (k in flashes), np.uint8))
            if k % 30 == 0:
                writer.write_sound(sound[: rate * 2])
                sound = sound[rate * 2 :]
        writer.write_sound(sound)
    info = probe(path)
    with FrameReader(info) as reader:
        seen = [k for k, frame in enumerate(reader) if frame.mean() > 128]
    assert seen == list(flashes)
    heard = click_times(read_waveform(path), 16_000)
    assert len(heard) == len(seen)
    apart = np.array(heard) * float(info.fps) - np.array(seen)
    assert np.abs(apart).max() < 0.5
    assert np.abs(apart).max() < 0.005 * float(fps) + 0.02  # in fact within 5 ms


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("rate, channels", [(8000, 1), (16_000, 1), (44_100, 2), (48_000, 2), (96_000, 2)])
def test_sound_and_pictures_agree(tmp_path, ending, rate, channels):
    flash_and_click(tmp_path / f"out.{ending}", Fraction(25), 4, 23, rate, channels)


@pytest.mark.slow
@pytest.mark.parametrize("fps", [NTSC, Fraction(1350, 61)])
def test_sound_and_pictures_agree_for_ten_minutes(tmp_path, fps):
    flash_and_click(tmp_path / "long.mp4", fps, 600, 301, 44_100)


def test_sound_may_come_at_any_time(tmp_path):
    sound = stereo(clicks(4, [1, 3]))
    for order in ("first", "last", "odd"):
        path = tmp_path / f"{order}.mp4"
        with VideoWriter(path, 128, 96, Fraction(25), 48_000) as writer:
            if order == "first":
                writer.write_sound(sound)
            for k, frame in enumerate(count_up(100)):
                writer.write(frame)
                if order == "odd":
                    writer.write_sound(sound[1920 * k : 1920 * (k + 1)])
            if order == "last":
                writer.write_sound(sound)
        assert click_times(read_waveform(path), 16_000) == pytest.approx([1, 3], abs=0.003), order
        assert probe(path).frames == 100


def test_an_odd_size_gets_one_repeated_row_and_column(tmp_path):
    rng = np.random.default_rng(0)
    frame = np.repeat(np.repeat(rng.integers(0, 256, (7, 9, 1), np.uint8), 15, 0), 15, 1).repeat(3, 2)
    with VideoWriter(tmp_path / "odd.mp4", 135, 105, Fraction(25), crf=1) as writer:
        assert writer.padded
        writer.write(frame)
        writer.write(frame)
    info = probe(tmp_path / "odd.mp4")
    assert (info.width, info.height) == (136, 106)
    with FrameReader(info) as reader:
        seen = next(reader).astype(int)
    expected = np.pad(frame, ((0, 1), (0, 1), (0, 0)), "edge")
    assert np.abs(seen - expected).max() < 10
    with VideoWriter(tmp_path / "even.mp4", 64, 48, Fraction(25)) as writer:
        assert not writer.padded
        writer.write(frame[:48, :64])


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (17, 5), (16, 2000)])
def test_extreme_sizes(tmp_path, size):
    with VideoWriter(tmp_path / "o.mp4", *size, Fraction(25)) as writer:
        for level in (0, 255):
            writer.write(np.full((size[1], size[0], 3), level, np.uint8))
    info = probe(tmp_path / "o.mp4")
    assert info.frames == 2 and info.width - size[0] in (0, 1)


def test_colours_come_back_and_are_tagged(tmp_path):
    colours = np.array([[200, 40, 60], [30, 160, 220], [128, 128, 128], [255, 255, 255], [0, 0, 0], [250, 200, 180]])
    with VideoWriter(tmp_path / "c.mp4", 64, 48, Fraction(25), crf=1) as writer:
        for colour in colours:
            writer.write(np.broadcast_to(colour.astype(np.uint8), (48, 64, 3)))
    with FrameReader(probe(tmp_path / "c.mp4")) as reader:
        seen = np.array([frame.mean((0, 1)) for frame in reader])
    assert np.abs(seen - colours).max() < 3
    with av.open(str(tmp_path / "c.mp4")) as container:
        first = next(container.decode(video=0))
        assert (first.format.name, first.colorspace, first.color_range) == ("yuv420p", 1, 1)
        assert (first.color_primaries, first.color_trc) == (1, 1)
        assert first.to_ndarray()[0, 0] == pytest.approx(
            16 + 219 * (colours[0] @ (0.2126, 0.7152, 0.0722)) / 255, abs=1
        )


def test_the_way_through_does_not_drift(tmp_path):
    """Stored 4:2:0 -> RGB -> 4:2:0 is exact, so what nobody touched stays what it was."""
    rng = np.random.default_rng(0)
    frame = av.VideoFrame(64, 48, "yuv420p")
    for plane, low, high in zip(frame.planes, (50, 118, 118), (200, 138, 138), strict=True):
        plane.update(rng.integers(low, high, plane.buffer_size, np.uint8).tobytes())
    tags = {"colorspace": 1, "color_range": 1}
    path = write_media(tmp_path / "a.mkv", [frame] * 2, codec="libx264", options={"qp": "0"}, context=tags)
    with FrameReader(probe(path)) as reader, VideoWriter(tmp_path / "b.mkv", 64, 48, Fraction(25), crf=0) as writer:
        for picture in reader:
            writer.write(picture)
    stored = [next(av.open(str(p)).decode(video=0)).to_ndarray().astype(int) for p in (path, tmp_path / "b.mkv")]
    assert np.array_equal(*stored)


def test_the_index_is_in_front_and_tags_survive(tmp_path):
    tags = {"comment": "made by a machine", "lipsync_model": "wav2lip", "title": "안녕"}
    path = tmp_path / "t.mp4"
    with VideoWriter(path, 64, 48, Fraction(25), 48_000, tags=tags) as writer:
        for frame in count_up(10, 64, 48):
            writer.write(frame)
        writer.write_sound(stereo(clicks(0.4, [0.1])))
    data = path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    with av.open(str(path)) as container:
        assert tags.items() <= container.metadata.items()
        assert container.streams.audio[0].codec_context.sample_rate == 48_000


# --- whole, or not there -------------------------------------------------------------------------------------


def test_nothing_is_seen_before_it_is_whole(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"the result of an earlier run")
    with VideoWriter(path, 64, 48, Fraction(25)) as writer:
        writer.write(count_up(1, 64, 48)[0])
        assert path.read_bytes() == b"the result of an earlier run"
    assert probe(path).frames == 1
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_or_an_abort_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", 64, 48, Fraction(25), 48_000) as writer:
        writer.write(count_up(1, 64, 48)[0])
        raise KeyboardInterrupt
    writer = VideoWriter(tmp_path / "b.mp4", 64, 48, Fraction(25))
    writer.abort()
    writer.abort()
    writer.close()
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(LipsyncError, match=r"out\.mp4 could not be written \(No such file or directory\)\."):
        VideoWriter(tmp_path / "nowhere" / "out.mp4", 64, 48, Fraction(25))
    with pytest.raises(InputError, match=r"out\.exe cannot be written: use one of \.mp4"):
        VideoWriter(tmp_path / "out.exe", 64, 48, Fraction(25))
    (tmp_path / "taken.mp4").mkdir()
    writer = VideoWriter(tmp_path / "taken.mp4", 64, 48, Fraction(25))
    writer.write(count_up(1, 64, 48)[0])
    with pytest.raises(LipsyncError, match=r"taken\.mp4 could not be written"):
        writer.close()
    assert [p.name for p in tmp_path.iterdir()] == ["taken.mp4"]


@pytest.mark.parametrize("limit", [0, 3000, 100_000, "all but the index"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, limit):
    """A limit on file size stands in for the disk: the same write fails in the same place."""
    code = """
import resource, signal, sys
from fractions import Fraction
import numpy as np
from lipsync.errors import LipsyncError
from lipsync.media.writer import VideoWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
rng = np.random.default_rng(0)
try:
    with VideoWriter(sys.argv[1], 320, 240, Fraction(25), 48000) as writer:
        for _ in range(60):
            writer.write(rng.integers(0, 256, (240, 320, 3), np.uint8))
            writer.write_sound(np.zeros((1920, 2), np.float32))
except LipsyncError as error:
    print(error)
else:
    print("written")
"""

    def run(size: int) -> str:
        command = [sys.executable, "-c", code, str(tmp_path / "out.mp4"), str(size)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    if limit == "all but the index":
        assert run(1 << 40) == "written"
        limit = (tmp_path / "out.mp4").stat().st_size - 1000
        (tmp_path / "out.mp4").unlink()
    said = run(limit)
    assert said.startswith("out.mp4 could not be written (") and said.endswith(".") and "\n" not in said
    assert not list(tmp_path.iterdir())


def test_what_is_no_frame_is_our_own_mistake(tmp_path):
    with pytest.raises(ValueError, match="a frame of"), VideoWriter(tmp_path / "o.mp4", 64, 48, Fraction(25)) as writer:
        writer.write(np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(ValueError, match="samples of"), VideoWriter(tmp_path / "o.mp4", 64, 48, Fraction(25)) as writer:
        writer.write_sound(np.zeros((100, 2), np.float32))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("first", ["pictures", "sound"])
def test_memory_is_bounded_whatever_comes_first(tmp_path, first):
    code = """
import sys
from fractions import Fraction
import numpy as np
from lipsync.media.writer import VideoWriter
rng = np.random.default_rng(0)
noise = [rng.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(8)]
def pictures(writer):
    for k in range(7500):
        writer.write(noise[k % 8])
def sound(writer):
    for _ in range(300):
        writer.write_sound(rng.normal(0, 0.1, (48000, 2)).astype(np.float32))
with VideoWriter(sys.argv[1], 320, 240, Fraction(25), 48000, crf=30, preset="ultrafast") as writer:
    for step in (pictures, sound) if sys.argv[2] == "pictures" else (sound, pictures):
        step(writer)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "out.mp4"), first]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    size_kb = (tmp_path / "out.mp4").stat().st_size / 1024
    assert size_kb > 60_000
    assert int(done.stdout) < 300_000
