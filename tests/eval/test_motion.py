"""Jitter, lip movement and landmark distance on mouths made by hand; the loader on the astronaut moved about."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.landmarks import CORNERS, INNER_LOWER, INNER_UPPER, LIPS, LipTrack, lips_of
from eval.metrics import motion
from eval.metrics.base import MeasureError
from eval.metrics.motion import MEASURES, MotionSums, evaluate
from lipsync.faces.landmarks import INNER_CONTOUR, OUTER_LIPS
from lipsync.faces.tracking import FaceMap, Track, find_faces
from lipsync.media.reader import FrameReader, probe
from tests.conftest import portrait_frame

NAMES = [m.name for m in MEASURES]
SIDE = 100.0


def mouths(gaps: np.ndarray, x: np.ndarray | float = 0.0, y: np.ndarray | float = 0.0) -> LipTrack:
    """Elliptic mouths of these inner gaps (pixels) in a box of 100 px that is moved by x and y with them."""
    frames = len(gaps)
    move = np.stack(np.broadcast_arrays(x, y, np.zeros(frames))[:2], 1)
    angle = np.pi - 2 * np.pi * np.arange(20) / 20  # from the left corner along the lower lip; y is downwards
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    lips = np.empty((frames, 40, 2))
    lips[:, :20] = ring * [20, 10]
    lips[:, 20:] = ring[None] * np.stack([np.full(frames, 15), gaps / 2], 1)[:, None]
    box = np.array([-50, -80, 50, 20.0]) + np.concatenate([move, move], 1)
    return LipTrack(0, lips + move[:, None] + 0.0, box, np.ones(frames, bool))


def test_the_points_are_the_contours():
    assert len(set(LIPS)) == 40 and len(OUTER_LIPS) == len(INNER_CONTOUR) == 20
    assert [LIPS[i] for i in CORNERS] == [61, 291, 78, 308]
    assert (LIPS[INNER_UPPER], LIPS[INNER_LOWER]) == (13, 14)
    lips = mouths(np.array([8.0])).lips[0]
    assert lips[INNER_LOWER, 1] == pytest.approx(4) and lips[INNER_UPPER, 1] == pytest.approx(-4)
    np.testing.assert_allclose(lips[CORNERS], [[-20, 0], [20, 0], [-15, 0], [15, 0]], atol=1e-9)


def test_the_same_lips_are_perfect():
    made = mouths(np.random.default_rng(0).uniform(0, 10, 30))
    found = evaluate(made.lips, made.boxes, np.arange(30) < 15, 25, made.lips)
    assert list(found) == NAMES
    assert found["lmd"] == found["lmd_velocity"] == found["box_jitter"] == 0 and found["lips_seen"] == 1
    assert found["mouth_jitter"] == pytest.approx(0, abs=1e-9)


def test_jitter_of_a_hop():
    hop = np.array([0, 0, 3.0, 0, 0])  # second differences 3, -6, 3
    made = mouths(np.zeros(5), x=hop)
    found = evaluate(made.lips, made.boxes, None, 25)
    assert found["box_jitter"] == pytest.approx(4) and found["mouth_jitter"] == pytest.approx(0, abs=1e-9)
    still = mouths(np.zeros(5))
    found = evaluate(made.lips, still.boxes, None, 25)  # the same in the mouth alone
    assert found["box_jitter"] == 0 and found["mouth_jitter"] == pytest.approx(4)


def test_opening_is_no_jitter():
    made = mouths(10 * (np.arange(20) % 2))
    assert evaluate(made.lips, made.boxes, None, 25)["mouth_jitter"] == pytest.approx(0, abs=1e-9)


def test_movement_in_speech_and_in_silence():
    speech = np.array([True] * 5 + [False] * 5)
    gaps = np.array([0, 4, 0, 4, 0, 8, 7, 8, 7, 8.0])  # the change of 8 between speech and silence belongs to neither
    made = mouths(gaps)
    found = evaluate(made.lips, made.boxes, speech, Fraction(25))
    assert found["mouth_movement_speech"] == pytest.approx(4 * 25)  # per cent of 100 px a second
    assert found["mouth_movement_silence"] == pytest.approx(1 * 25)
    assert found["rest_ratio"] == pytest.approx(0.25)


def test_without_silence_or_speech_there_is_no_ratio():
    made, speaks = mouths(np.arange(6.0)), np.ones(6, bool)
    found = evaluate(made.lips, made.boxes, speaks, 25)
    assert found["mouth_movement_silence"] is None and found["rest_ratio"] is None
    found = evaluate(made.lips, made.boxes, ~speaks, 25)
    assert found["mouth_movement_speech"] is None and found["rest_ratio"] is None
    still = mouths(np.zeros(6))
    assert evaluate(still.lips, still.boxes, np.arange(6) < 3, 25)["rest_ratio"] is None  # 0 / 0
    assert evaluate(made.lips, made.boxes, None, 25)["mouth_movement_speech"] is None


def test_landmark_distance_by_hand():
    generated = mouths(np.full(4, 6.0))
    reference = mouths(np.full(4, 2.0))
    expected = np.linalg.norm(generated.lips[0] - reference.lips[0], axis=1).mean()  # both have their mean at 0
    found = evaluate(generated.lips, generated.boxes, None, 25, reference.lips)
    assert found["lmd"] == pytest.approx(expected) and found["lmd_velocity"] == pytest.approx(0, abs=1e-9)
    opens = mouths(np.array([2.0, 6.0, 2.0, 6.0]))
    found = evaluate(opens.lips, opens.boxes, None, 25, reference.lips)
    assert found["lmd"] == pytest.approx(expected / 2) and found["lmd_velocity"] == pytest.approx(expected * 25)


def test_lips_that_were_not_found_are_left_out():
    made = mouths(np.array([0, 4, 0, 4, 0, 4.0]))
    other = mouths(np.zeros(6))
    holes = made.lips.copy()
    holes[2] = np.nan
    speech = np.ones(6, bool)
    found, whole = (evaluate(x, made.boxes, speech, 25, other.lips) for x in (holes, made.lips))
    assert found["lips_seen"] == pytest.approx(5 / 6) and whole["lips_seen"] == 1
    assert found["mouth_movement_speech"] == pytest.approx(whole["mouth_movement_speech"])
    told = np.array([0, 1, 3, 4, 5])
    assert found["lmd"] == pytest.approx(evaluate(made.lips[told], made.boxes[told], None, 25, other.lips[told])["lmd"])
    nothing = evaluate(np.full_like(holes, np.nan), np.full_like(made.boxes, np.nan), speech, 25, other.lips)
    assert nothing == {name: None for name in NAMES} | {"lips_seen": 0}


def test_one_frame_has_no_motion():
    made = mouths(np.array([3.0]))
    found = evaluate(made.lips, made.boxes, np.array([True]), 25, made.lips)
    assert found == {name: None for name in NAMES} | {"lips_seen": 1, "lmd": 0}


def test_tracks_are_pooled_by_their_frames():
    rng, sums, values = np.random.default_rng(1), MotionSums(), []
    for frames in (4, 30, 9):
        made = mouths(rng.uniform(0, 9, frames), x=rng.normal(0, 1, frames))
        other = mouths(rng.uniform(0, 9, frames))
        sums.add(made.lips, made.boxes, None, 25, other.lips, other.boxes)
        shapes = motion.mouth_shape(other.lips, other.boxes), motion.mouth_shape(made.lips, made.boxes)
        values.append((motion.box_jitter(made.boxes), motion.lmd(*shapes)))
    jitter, distance = (np.concatenate(v) for v in zip(*values, strict=True))
    assert sums.result()["box_jitter"] == pytest.approx(jitter.mean()) and len(jitter) == 2 + 28 + 7
    assert sums.result()["lmd"] == pytest.approx(distance.mean())


def test_nothing_taken_nothing_told():
    assert MotionSums().result() == {name: None for name in NAMES}


@settings(max_examples=30, deadline=None)
@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 2**31))
def test_steady_motion_is_no_jitter(vx, vy, seed):
    t = np.arange(12)
    made = mouths(np.random.default_rng(seed).uniform(0, 9, 12), x=vx * t, y=vy * t)
    found = evaluate(made.lips, made.boxes, None, 25)
    assert found["box_jitter"] == pytest.approx(0, abs=1e-9) and found["mouth_jitter"] == pytest.approx(0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 8), st.floats(-500, 500), st.floats(-500, 500), st.integers(0, 2**31))
def test_size_and_place_do_not_matter(scale, x, y, seed):
    rng = np.random.default_rng(seed)
    made = mouths(rng.uniform(0, 9, 12), x=rng.normal(0, 2, 12), y=rng.normal(0, 2, 12))
    made.lips[:] += rng.normal(0, 1, made.lips.shape)
    other, speech = mouths(rng.uniform(0, 9, 12)), np.arange(12) < 6
    move = np.array([x, y])
    lips, boxes = made.lips * scale + move, made.boxes * scale + np.tile(move, 2)
    found = evaluate(lips, boxes, speech, 25, other.lips, other.boxes)
    expected = evaluate(made.lips, made.boxes, speech, 25, other.lips, other.boxes)
    for m in MEASURES:
        assert found[m.name] == pytest.approx(expected[m.name], rel=1e-6) and m.low <= found[m.name] <= m.high


MADE = mouths(np.zeros(3))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lips": MADE.lips[:, :25]}, "not the 40 points"),
        ({"lips": MADE.lips[:0]}, "no frame"),
        ({"boxes": MADE.boxes[:2]}, "boxes have the shape"),
        ({"boxes": MADE.boxes[:, [2, 3, 0, 1]]}, "has no area"),
        ({"speech": np.ones(3)}, "speech flags are float64"),
        ({"speech": np.ones(2, bool)}, "speech flags are bool of shape"),
        ({"fps": 0}, "frame rate of 0"),
        ({"fps": float("nan")}, "frame rate of nan"),
        ({"reference_lips": MADE.lips[:2]}, "reference's lips"),
        ({"reference_boxes": MADE.boxes[:2]}, "reference's boxes"),
        ({"lips": MADE.lips + np.inf}, "infinity"),
    ],
)
def test_what_cannot_be_measured_is_said(changes, said):
    good = {"lips": MADE.lips, "boxes": MADE.boxes, "speech": None, "fps": 25}
    with pytest.raises(MeasureError, match=said) as caught:
        evaluate(**(good | changes))
    assert str(caught.value).endswith(".")


def test_a_face_that_is_not_there_is_said():
    box = np.tile(np.array([10, 10, 60, 60], np.float32), (4, 1))
    track = Track(0, 0, 5, box, np.zeros((4, 25, 2), np.float32), np.ones(4, bool))
    faces = FaceMap(9, Fraction(25), ((0, 9),), (track,))
    with pytest.raises(MeasureError, match="number 3: the video has 0"):
        lips_of([], faces, 3)


@pytest.mark.slow
def test_lips_follow_the_face(clip):
    """The made clip drifts by 8 sin(i / 9), 4 sin(i / 5) pixels, and its mouth does not move."""
    info = probe(clip)
    with FrameReader(info) as reader:
        faces = find_faces(reader, info.fps)
    with FrameReader(info) as reader:
        found = lips_of(reader, faces)
    assert found.start == 0 and found.lips.shape == (50, 40, 2) and found.seen.all() and found.lips.dtype == np.float32
    i = np.arange(50)
    drift = np.stack([8 * np.sin(i / 9), 4 * np.sin(i / 5)], 1)
    about = found.lips.mean(1) - drift
    assert about.std(0).max() < 0.6  # pixels
    inside = (found.lips >= found.boxes[:, None, :2]) & (found.lips <= found.boxes[:, None, 2:])
    assert inside.all()
    upper, lower = found.lips[:, INNER_UPPER, 1], found.lips[:, INNER_LOWER, 1]
    assert (lower > upper).all()
    told = evaluate(found.lips, found.boxes, i < 25, info.fps, found.lips)
    assert told["lmd"] == 0 and told["lips_seen"] == 1 and told["box_jitter"] < 1 and told["mouth_jitter"] < 2


@pytest.mark.slow
def test_a_trembling_head_is_seen_to_tremble():
    """3 px to and fro with each frame: the box jitters by 12 px at each, and the mouth does not move within it."""
    frames = [portrait_frame(20 + (3 if i % 2 else -3), 10) for i in range(20)]
    found = lips_of(frames, find_faces(frames, Fraction(25)))
    told = evaluate(found.lips, found.boxes, None, 25)
    true = 100 * 12 / np.nanmean(found.boxes[:, 2] - found.boxes[:, 0])
    assert told["box_jitter"] == pytest.approx(true, rel=0.1)
    assert told["mouth_jitter"] < 0.15 * true


@pytest.mark.slow
def test_hidden_and_missing_frames_are_not_seen():
    frames = [portrait_frame(20 + i, 10) for i in range(20)]
    faces = find_faces(frames, Fraction(25))
    frames[8] = np.full_like(frames[8], 90)
    found = lips_of(iter(frames[:15]), faces)
    assert not found.seen[8] and not found.seen[15:].any() and np.isnan(found.lips[~found.seen]).all()
    assert found.seen[:8].all() and found.seen[10:15].all()
    np.testing.assert_array_equal(np.isfinite(found.boxes).all(1), found.seen)
    with pytest.raises(MeasureError, match="has only 0 frames"):
        lips_of([], faces)
