"""What lies before a face stays: drawn over real people that the network has not seen."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

import lipsync
from lipsync.faces.tracking import Track
from lipsync.geometry import box_alignment
from lipsync.media.reader import FrameReader, VideoWriter, probe
from lipsync.occlusion import MOST, Covers, OcclusionFinder, Place, cut, hides
from lipsync.report import Report

ASSETS = Path(__file__).parents[2] / "demo" / "assets"
TALKING, VOICE = ASSETS / "talking.mp4", ASSETS / "talking.mp3"
FRAMES = 30


def frames_of(path: Path, count: int = FRAMES) -> list[np.ndarray]:
    with FrameReader(probe(path), [(0, count)]) as reader:
        return list(reader)


@pytest.fixture(scope="module")
def face() -> tuple[int, int, float]:
    """Middle of the speaker's mouth and the side of the face box, pixels, in the first frame."""
    track: Track = lipsync.find(TALKING).faces.tracks[0]
    x0, y0, x1, _ = track.boxes[0]
    return round((x0 + x1) / 2), round(y0 + 0.78 * (x1 - x0)), float(x1 - x0)


def written(path: Path, draw: Callable[[np.ndarray, int], None]) -> Path:
    """The talking clip's first frames with something drawn over each."""
    frames = frames_of(TALKING)
    height, width = frames[0].shape[:2]
    with VideoWriter(path, width, height, Fraction(25), crf=12) as writer:
        for i, frame in enumerate(frames):
            draw(frame := frame.copy(), i)
            writer.write(frame)
    return path


def changed_inside(source: Path, out: Path, where: np.ndarray) -> float:
    """Share of the pixels of a mask (H, W) bool that differ by more than a codec does, in the worst frame."""
    pairs = zip(frames_of(source), frames_of(out), strict=True)
    return max(float((np.abs(a.astype(int) - b).max(2)[where] > 24).mean()) for a, b in pairs)


OPTIONS = lipsync.Options(visible_label=False, watermark=False, if_audio_longer="cut", crf=12)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["bar", "caption", "microphone"])
def test_a_thing_before_the_mouth_stays_and_the_mouth_moves_behind_it(face, tmp_path, what):
    x, y, side = face

    def draw(frame: np.ndarray, _: int) -> None:
        if what == "bar":
            corner = int(x + 0.24 * side), int(y + 0.9 * side)
            cv2.rectangle(frame, (int(x - 0.02 * side), int(y - 0.1 * side)), corner, (0, 0, 0), -1)
        elif what == "caption":
            at, scale = (int(x - 0.7 * side), int(y + 0.24 * side)), side / 110
            cv2.putText(frame, "LATE NEWS", at, cv2.FONT_HERSHEY_DUPLEX, scale, (255, 255, 255), 3, cv2.LINE_AA)
        else:
            cv2.line(frame, (x, int(y + 0.2 * side)), (int(x + 0.3 * side), int(y + side)), (30, 30, 30), 12)
            cv2.circle(frame, (x, int(y + 0.17 * side)), int(0.16 * side), (45, 45, 50), -1, cv2.LINE_AA)

    source, out = written(tmp_path / "in.mp4", draw), tmp_path / "out.mp4"
    drawn = np.zeros_like(frames_of(TALKING, 1)[0])
    draw(drawn, 0)
    where = cv2.erode((drawn.max(2) > 20).astype(np.uint8), np.ones((3, 3))) > 0
    if what == "bar":
        where = np.zeros(where.shape, bool)
        where[int(y - 0.1 * side) + 1 : int(y + 0.9 * side), int(x - 0.02 * side) + 1 : int(x + 0.24 * side)] = True
    report = lipsync.sync(source, VOICE, out, OPTIONS)
    assert changed_inside(source, out, where) < 0.02
    assert sum(b - a for a, b in report.covered_ranges) > 0.8 * FRAMES and report.frames_synced > 0.8 * FRAMES
    assert "lies before the face" in report.words()
    if what == "bar":  # without the look it is painted over
        report = lipsync.sync(source, VOICE, out, replace(OPTIONS, occlusion=False))
        assert changed_inside(source, out, where) > 0.1 and not report.covered_ranges


@pytest.mark.slow
def test_each_part_says_whether_it_is_looked_for(face, tmp_path):
    x, y, side = face

    def draw(frame: np.ndarray, _: int) -> None:
        cv2.rectangle(frame, (x, int(y - 0.1 * side)), (int(x + 0.24 * side), int(y + 0.9 * side)), (0, 0, 0), -1)

    source, out = written(tmp_path / "in.mp4", draw), tmp_path / "out.mp4"
    parts = [
        lipsync.segment(VOICE, OPTIONS, start=0.0, end=0.6),
        lipsync.segment(VOICE, OPTIONS, start=0.6, end=1.2, occlusion=False),
    ]
    report = lipsync.sync(source, parts, out, OPTIONS)
    assert report.frames_synced == FRAMES and report.covered_ranges == [(0, 15)]


@pytest.mark.slow
def test_a_hidden_mouth_passes_and_is_counted(face, tmp_path):
    """A sheet before the lower face in ten frames: they come out as they went in, and the report says which."""
    x, y, side = face

    def draw(frame: np.ndarray, i: int) -> None:
        if 10 <= i < 20:
            low, high = (int(x - 0.7 * side), int(y - 0.22 * side)), (int(x + 0.7 * side), int(y + side))
            cv2.rectangle(frame, low, high, (150, 185, 205), -1)

    source, out = written(tmp_path / "in.mp4", draw), tmp_path / "out.mp4"
    report = lipsync.sync(source, VOICE, out, OPTIONS)
    passed = sum(b - a for a, b in [*report.hidden_ranges, *report.missed_ranges])
    assert 8 <= passed <= 13 and passed == report.frames_passed
    everything = np.ones(frames_of(source, 1)[0].shape[:2], bool)
    before, after = frames_of(source), frames_of(out)
    for i in range(12, 19):
        assert float((np.abs(before[i].astype(int) - after[i]).max(2)[everything] > 24).mean()) < 0.002, i


@pytest.mark.slow
def test_a_bare_face_is_left_alone():
    """Nothing is found before people with nothing before them: the clips of the page, teeth, beard and all."""
    finder = OcclusionFinder()
    for path in (TALKING, ASSETS / "closeup.mp4", ASSETS / "two.mp4"):
        clip, frames = lipsync.find(path), frames_of(path, 60)
        for track in clip.faces.tracks:
            at = range(track.start, min(track.stop, len(frames)), 3)
            where = ((i, track.boxes[i - track.start], track.landmarks[i - track.start]) for i in at)
            faces, places = zip(*(cut(frames[i], box, points, frame=i) for i, box, points in where), strict=True)
            found = Covers(finder)(np.stack(faces), places)
            assert all(f is None for f in found), (path.name, track.number, [f is None for f in found])


class Told:
    """A finder that finds what it is told."""

    def __init__(self, maps: list[np.ndarray]) -> None:
        self._maps = maps

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        return np.stack([self._maps.pop(0) for _ in faces])


SQUARE = box_alignment(0, 0, 96, 96)
LOWER = np.zeros((96, 96), np.float32)
LOWER[48:] = 1


def covers_of(maps: list[np.ndarray], places: list[Place] | None = None) -> list[np.ndarray | None]:
    places = places or [Place(0, i, SQUARE, LOWER, SQUARE) for i in range(len(maps))]
    return Covers(Told(list(maps)))(np.zeros((len(maps), 96, 96, 3), np.uint8), places)


def part(share: float) -> np.ndarray:
    """A map whose lower half is covered from the left by that share."""
    seen = np.zeros((48, 48), np.float32)
    seen[24:, : round(48 * share)] = 1
    return seen


def test_a_thing_is_there_from_its_first_frame_on_and_does_not_flicker():
    bare, thing = part(0), part(0.4)
    found = covers_of([bare, thing, bare, thing, bare, bare, bare, bare, bare])
    assert [f is not None for f in found] == [False] + [True] * 5 + [False] * 3


def test_a_mouth_is_hidden_from_a_share_on_and_seen_again_below_it():
    found = covers_of([part(MOST - 0.1)] * 2 + [part(1)] + [part(MOST - 0.1)] * 6 + [part(0.2)] * 6)
    hidden = [f is not None and hides(f) for f in found]
    assert hidden == [False] * 2 + [True] * 8 + [False] * 5
    assert all(f is not None for f in found)


def test_a_crumb_is_nothing():
    seen = part(0)
    seen[30:33, 10:13] = 1
    assert all(f is None for f in covers_of([seen] * 4))


def test_a_cover_lies_in_the_models_own_crop():
    """What the network sees in its crop is where it is in a crop that is larger, moved and of another size."""
    other = box_alignment(-96, -96, 192, 192)
    mask = np.ones((144, 144), np.float32)
    (found,) = covers_of([part(0.5)], [Place(0, 0, other, mask, SQUARE)])
    assert found.shape == (144, 144)
    inside = np.argwhere(found[48:96, 48:96] > 0.5)  # the network's crop lies there
    assert inside.min(0).tolist() == pytest.approx([24, 0], abs=2) and inside.max(0).tolist() == pytest.approx(
        [47, 24], abs=2
    )


def test_another_clip_or_a_gap_begins_anew():
    thing = part(0.4)
    places = [
        Place(0, 5, SQUARE, LOWER, SQUARE),
        Place(1, 6, SQUARE, LOWER, SQUARE),
        Place(0, 9, SQUARE, LOWER, SQUARE),
    ]
    assert all(f is not None for f in covers_of([thing] * 3, places))


def test_the_report_says_why_frames_passed():
    numbers = dict.fromkeys(Report.__dataclass_fields__, 0) | {
        "out": "",
        "model": "m",
        "engine": "e",
        "label": "",
        "checkpoint_sha256": "",
        "meeting": "",
        "seconds": {},
        "warnings": [],
        "passed_ranges": [],
        "fps": 25.0,
        "frames": 100,
        "frames_synced": 60,
        "frames_passed": 40,
        "missed_ranges": [(0, 10)],
        "hidden_ranges": [(20, 30), (40, 50)],
        "covered_ranges": [(60, 65)],
    }
    said = Report(**numbers).words()
    assert (
        "10 without the face (0.00 to 0.40 s), 20 whose mouth something hides (0.80 to 1.20 s, 1.60 to 2.00 s) and "
        in said
    )
    assert "10 outside the part that has the voice" in said and "In 5 frames something lies before the face" in said
