"""The watermark: what it outlives, what it must never claim, what it changes, and its keys."""

import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

import lipsync
from lipsync import pipeline
from lipsync.__main__ import main
from lipsync.errors import LabelError
from lipsync.label import manifest as label
from lipsync.label import watermark
from lipsync.label.keys import keys_dir
from lipsync.label.manifest import Status, describe, verify
from lipsync.label.stamp import Stamp
from lipsync.label.watermark import CHANCE, Found, Pattern, Watermark, find, known_keys, match, own_key, shots, spots
from lipsync.media.reader import FrameReader, VideoWriter, probe
from tests.conftest import make_clip, make_voice, portrait_frame

KEY, OTHER, DAY = b"k" * 32, b"o" * 32, date(2026, 11, 29)
SIZE = (768, 768)


@pytest.fixture(autouse=True)
def keys(tmp_path, monkeypatch):
    """A home of keys for each test."""
    monkeypatch.setenv("LIPSYNC_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


def scene(frames: int = 16, size: tuple[int, int] = SIZE, start: float = 0) -> list[np.ndarray]:
    """A portrait that drifts and nods before a wall with a little noise, as a camera has it."""
    rng = np.random.default_rng(1)
    at = np.arange(frames) + start
    pictures = [portrait_frame(10 + 8 * np.sin(n / 9), 10 + 4 * np.sin(n / 5), size, min(size) / 530) for n in at]
    return [cv2.add(p, rng.normal(0, 2, p.shape), dtype=cv2.CV_8U) for p in pictures]


def marked(frames: list[np.ndarray], key: bytes | None = KEY, shot: int = 0) -> list[np.ndarray]:
    mark = Watermark(*frames[0].shape[1::-1], key, DAY)
    made = [f.copy() for f in frames]
    for frame in made:
        mark.apply(frame, shot)
    return made


def coded(path: Path, frames: list[np.ndarray], crf: int = 18) -> Path:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, width, height, Fraction(25), crf=crf) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def decoded(path: Path) -> list[np.ndarray]:
    with FrameReader(probe(path)) as reader:
        return list(reader)


def seen(path: Path, key: bytes = KEY) -> Found:
    return match(shots(probe(path)), [key])


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """A marked film as the engine writes it."""
    return coded(tmp_path_factory.mktemp("film") / "film.mp4", marked(scene()))


# What it outlives ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "crf"),
    [
        (lambda f: f, 23),
        (lambda f: cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), 23),
        (lambda f: np.ascontiguousarray(f[47:721, 11:737]), 23),
        (lambda f: cv2.convertScaleAbs(f, alpha=0.9, beta=20), 23),
        (lambda f: cv2.warpAffine(f, cv2.getRotationMatrix2D((384, 384), 2, 1), SIZE), 23),
    ],
    ids=["coded again", "half size", "cropped", "brightness", "turned"],
)
def test_it_is_found_and_read_after(film, tmp_path, change, crf):
    found = seen(coded(tmp_path / "copy.mp4", [change(f) for f in decoded(film)], crf))
    assert found.chance < CHANCE and found.day == DAY
    assert found.payload == Pattern(KEY).payload(DAY)


@pytest.mark.slow
def test_it_is_found_in_a_single_picture(film, tmp_path):
    path = tmp_path / "still.png"
    cv2.imwrite(str(path), decoded(film)[7][..., ::-1])
    assert seen(path).payload == Pattern(KEY).payload(DAY)


@pytest.mark.slow
def test_each_shot_of_a_film_holds_it_elsewhere(tmp_path):
    frames, mark = [], Watermark(*SIZE, KEY, DAY)
    for number in range(4):
        for frame in scene(6, start=40 * number):
            frame = np.roll(frame, 90 * number, 0) if number % 2 else 255 - frame
            mark.apply(frame, number)
            frames.append(frame)
    means = shots(probe(coded(tmp_path / "cuts.mp4", frames)))
    assert len(means) == 4
    assert all(match([mean], [KEY]).payload == Pattern(KEY).payload(DAY) for mean in means)


@pytest.mark.slow
def test_an_average_over_shots_holds_nothing():
    flat = scene(40)
    changes = []
    for number, frame in enumerate(flat):
        new = frame.copy()
        Watermark(*SIZE, KEY, DAY).apply(new, number)
        changes.append(new[..., 1].astype(np.float32) - frame[..., 1])
    still = [one[..., 1].astype(np.float32) - frame[..., 1] for one, frame in zip(marked(flat), flat, strict=True)]
    assert np.mean(changes, 0).std() < 0.3 * np.mean(still, 0).std()  # one over the root of 40 is 0.16


def test_the_day_begins_again_after_eleven_years_and_is_never_to_come():
    def told(day: date) -> date:
        return Found(0, 0, 0, Pattern(KEY).payload(day), 1, 0).day

    today = datetime.now(UTC).date()
    assert told(today) == today and told(watermark.EPOCH) == watermark.EPOCH
    assert told(today + timedelta(days=watermark.DAYS)) == today
    assert Pattern(KEY).payload(today) >> 12 == Pattern(KEY).installation


# What it must not claim ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_is_not_found_where_it_is_not(film, tmp_path):
    plain = coded(tmp_path / "plain.mp4", scene())
    for path, key in ((plain, KEY), (film, OTHER)):
        assert seen(path, key).chance > 1e-2


@pytest.mark.slow
def test_the_chance_is_a_bound_in_noise():
    """Of films without a mark at most a share p may say a chance below p; it is far less."""
    rng = np.random.default_rng(3)
    found = [match([rng.normal(128, 9, (128, 160)).astype(np.float32)], [rng.bytes(32)]) for _ in range(6)]
    assert min(f.chance for f in found) > 0.01
    assert max(f.score for f in found) < 8


@pytest.mark.slow
def test_flat_blank_and_tiny_pictures_give_nothing():
    for shape in ((128, 128), (33, 500), (40, 40)):
        assert match([np.full(shape, 90, np.float32)], [KEY]).chance == 1
    assert match([np.zeros((20, 20), np.float32)], [KEY]) is None and match([], [KEY]) is None


# What it changes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(512, 512), (640, 360), (255, 301), (1280, 720), (131, 1000)])
def test_it_is_small_in_luma_alone_and_everywhere(size):
    frame = scene(1, size)[0].clip(16, 239)
    change = marked([frame])[0].astype(int) - frame
    assert (change == change[..., :1]).all()  # the same in R, G and B
    assert 0.2 < np.abs(change).mean() < 3 and np.abs(change).max() <= 6
    blocks = np.abs(change[: size[1] // 32 * 32, : size[0] // 32 * 32, 0])
    assert (blocks.reshape(size[1] // 32, 32, -1, 32).max((1, 3)) > 0).all()  # to the last row and column


def test_flat_parts_get_less():
    frame = np.full((512, 512, 3), 128, np.uint8)
    frame[:, 256:] = np.random.default_rng(0).normal(128, 20, (512, 256, 1)).clip(0, 255)
    change = np.abs(marked([frame])[0].astype(int) - frame)
    assert change[:, :240].max() <= 1  # a single level
    assert change[:, 272:].mean() > 3 * change[:, :240].mean()


def test_a_lone_edge_hides_little_and_only_beside_it():
    frame = np.full((512, 512, 3), 60, np.uint8)
    frame[:, 256:] = 200
    change = np.abs(marked([frame])[0].astype(int) - frame)
    assert change.max() <= 3 and change[:, :240].max() <= 1 and change[:, 272:].max() <= 1


def test_black_and_white_do_not_wrap():
    for level in (0, 255):
        frame = np.full((256, 256, 3), level, np.uint8)
        assert np.abs(marked([frame])[0].astype(int) - level).max() <= 2


def test_a_tiny_picture_passes_unchanged():
    frame = scene(1, (126, 500))[0]
    assert (marked([frame])[0] == frame).all()


@pytest.mark.slow
def test_it_costs_little():
    """Beside a copy of the frame, in processor time; docs/labels.md has the milliseconds."""
    frame, mark = scene(1, (1920, 1080))[0], Watermark(1920, 1080, KEY, DAY)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        mark.apply(frame)
        spent = [[_spent(lambda: mark.apply(frame)), _spent(frame.copy)] for _ in range(25)]
    finally:
        cv2.setNumThreads(threads)
    apply, copy = np.min(spent, 0)
    assert apply < 25 * copy  # measured: 6 to 10


def _spent(work) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


# In the engine ------------------------------------------------------------------------------------------------------


class Recorder(VideoWriter):
    """Keeps what is written, before any codec."""

    kept: list[np.ndarray] = []

    def write(self, frame):
        self.kept.append(frame.copy())
        super().write(frame)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The made clip synced with and without the mark: {on: (report, file, frames before the codec)}, and the keys."""
    folder = tmp_path_factory.mktemp("runs")
    clip = make_clip(folder / "clip.mp4", frames=20, size=(384, 384))
    voice = make_voice(folder / "voice.wav", seconds=0.8)
    done = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIPSYNC_KEYS", str(folder / "keys"))
        pipeline._check_signing()  # it writes a film of one frame, once a process
        patch.setattr(pipeline, "VideoWriter", Recorder)
        for on in (True, False):
            Recorder.kept = []
            report = lipsync.sync(clip, voice, folder / f"{on}.mp4", lipsync.Options(watermark=on))
            done[on] = report, folder / f"{on}.mp4", Recorder.kept
        return done, folder / "keys", bytes.fromhex((folder / "keys/watermark/own.key").read_text())


@pytest.mark.slow
def test_off_leaves_every_frame_as_it_was_and_on_adds_the_mark_alone(runs):
    done, _, key = runs
    mark = Watermark(384, 384, key)
    assert len(done[True][2]) == len(done[False][2]) == 20
    for on, off in zip(done[True][2], done[False][2], strict=True):
        want = off.copy()
        mark.apply(want)
        assert (on == want).all() and (on != off).any()
    assert done[True][0].label == "visible stamp, watermark, signature"
    assert done[False][0].label == "visible stamp, signature"


@pytest.mark.slow
def test_stamp_and_mark_live_together(runs):
    on, off = (runs[0][which][2][3].astype(int) for which in (True, False))
    stamp = Stamp(384, 384)
    x0, y0, x1, y1 = stamp.place(np.array([[100, 60, 280, 300]]))
    part, before = on[y0:y1, x0:x1], off[y0:y1, x0:x1]
    assert np.abs(part - before).max() <= 6  # as readable as before
    assert part.max() - np.median(part) > 140


@pytest.mark.slow
def test_verify_says_that_the_mark_is_left_and_no_more(runs, tmp_path, monkeypatch):
    done, folder, _ = runs
    monkeypatch.setenv("LIPSYNC_KEYS", str(folder))
    bare = {on: coded(tmp_path / f"{on}.mp4", decoded(done[on][1]), 20) for on in (True, False)}
    verdict = verify(bare[True])
    assert verdict.status is Status.MARKED and verdict.exit_code == 1 and verdict.watermark.chance < CHANCE
    words = describe(verdict)
    assert "its signed metadata is gone, but the mark of this installation" in words
    assert f"{datetime.now(UTC):%Y-%m-%d}" in words and "unmarked videos" in words
    assert "intact" not in words and "signed by" not in words and verdict.signer is verdict.model is None
    assert verify(bare[False]).status is Status.NOT_LABELLED

    monkeypatch.setenv("LIPSYNC_KEYS", str(tmp_path / "elsewhere"))  # another installation
    assert verify(bare[True]).status is Status.NOT_LABELLED
    assert not (tmp_path / "elsewhere").exists()  # asking makes no key


@pytest.mark.slow
def test_a_label_is_read_without_looking_at_the_picture(runs, monkeypatch):
    done, folder, _ = runs
    monkeypatch.setenv("LIPSYNC_KEYS", str(folder))
    monkeypatch.setattr(label, "find", lambda path: pytest.fail("the picture was looked at"))
    assert verify(done[True][1]).status is Status.INTACT


@pytest.mark.slow
def test_the_operator_alone_decides(monkeypatch, tmp_path):
    from demo.api import checked
    from demo.settings import Settings
    from lipsync import pipeline

    monkeypatch.setenv("LIPSYNC_WATERMARK", "false")
    assert Settings().watermark is False and lipsync.Options().watermark is True
    with pytest.raises(Exception, match="no option 'watermark'"):
        checked({"watermark": False})

    def sync(*args, **_):
        assert args[3].watermark is False
        raise LabelError("so far")

    monkeypatch.setattr(pipeline, "sync", sync)
    assert main(["sync", "a.mp4", "b.wav", "--out", str(tmp_path / "c.mp4"), "--no-watermark"]) == 1


# Looking, within bounds ---------------------------------------------------------------------------------------------


def test_few_frames_of_a_long_film_are_looked_at(film):
    from dataclasses import replace

    info = probe(film)
    for frames, width in ((3, 512), (48, 512), (49, 512), (100_000, 512), (100_000, 7680)):
        wanted = spots(replace(info, frames=frames, width=width, height=width))
        numbers = [a for a, _ in wanted]
        assert numbers == sorted(set(numbers)) and numbers[0] >= 0 and numbers[-1] < frames
        assert min(frames, 8) - 1 <= len(numbers) <= 48 and len(numbers) * width * width * 3 <= 2 << 30
    assert numbers[-1] - numbers[0] > 80_000


def test_looking_ends_in_time(film, monkeypatch):
    monkeypatch.setattr(watermark, "READ_S", 0.0)
    assert len(shots(probe(film))) <= 1


@pytest.mark.slow
def test_files_without_a_picture_have_no_mark(tmp_path):
    own_key()
    voice = make_voice(tmp_path / "voice.wav", 0.5)
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "cut.mp4").write_bytes(coded(tmp_path / "whole.mp4", scene(3)).read_bytes()[:3000])
    assert [find(tmp_path / name) for name in ("text.mp4", "cut.mp4", voice)] == [None] * 3


def test_without_a_key_nothing_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(watermark, "probe", lambda path: pytest.fail("the file was opened"))
    assert find(tmp_path / "any.mp4") is None


# Keys ---------------------------------------------------------------------------------------------------------------


def test_the_key_is_private_and_stays(keys, monkeypatch):
    first = own_key()
    path = keys_dir() / "watermark" / "own.key"
    assert len(first) == 32 and own_key() == first and known_keys() == [first]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["own.key"]
    monkeypatch.setenv("LIPSYNC_KEYS", str(keys.parent / "others"))
    assert own_key() != first


@pytest.mark.slow
def test_processes_that_come_first_at_once_share_one_mark():
    command = [sys.executable, "-c", "from lipsync.label.watermark import own_key; print(own_key().hex())"]

    def run(_):
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])

    with ThreadPoolExecutor(4) as pool:
        assert len({done.stdout for done in pool.map(run, range(4))}) == 1


@pytest.mark.slow
def test_former_keys_still_find_their_films(tmp_path):
    old = own_key()
    path = coded(tmp_path / "old.mp4", marked(scene(), key=None))
    folder = keys_dir() / "watermark"
    (folder / "own.key").rename(folder / "2026-11.key")
    new = own_key()
    assert new != old and known_keys() == [new, old]
    found = find(path)
    assert found.key == 1 and found.day == DAY
    (folder / "2026-11.key").unlink()
    assert find(path) is None


def test_keys_that_cannot_be_used_are_sentences(monkeypatch, tmp_path):
    own_key()
    path = keys_dir() / "watermark" / "own.key"
    if os.name == "posix":
        path.chmod(0o604)
        with pytest.raises(LabelError, match="Everyone on this machine can read"):
            own_key()
        path.chmod(0o600)
    for text in ("", "zz", "ab" * 31):
        path.write_text(text)
        with pytest.raises(LabelError, match="is no watermark key"):
            known_keys()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIPSYNC_KEYS", str(tmp_path / "file" / "keys"))
    with pytest.raises(LabelError, match="set LIPSYNC_KEYS"):
        own_key()


def test_a_pattern_is_the_same_for_ever():
    """Films must be found by later versions: these signs follow from the key alone."""
    pattern = Pattern(bytes(range(32)))
    assert abs(pattern.signs.mean()) < 0.03 and np.bincount(pattern.part.ravel()).tolist() == [5462, 5461, 5461]
    weights = np.arange(pattern.signs.size).reshape(pattern.signs.shape) % 97
    assert int((pattern.chips(0x1234) * weights).sum()) == FINGERPRINT


FINGERPRINT = -7276
