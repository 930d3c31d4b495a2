"""Shots, tracks, boxes: on the astronaut moved about, and on real clips where they are there."""

import json
from fractions import Fraction

import cv2
import numpy as np
import pytest

from lipsync.errors import InputError
from lipsync.faces import tracking as faces
from lipsync.faces.detectors import DETECTORS
from lipsync.faces.selection import choose, speakers
from lipsync.faces.tracking import BRIDGE, FORGET, FaceMap, Track, box_from_points, find_faces, smooth_published
from lipsync.media.reader import FrameReader, probe
from tests.conftest import portrait_frame
from tests.helpers.faces import FixedDetector

FPS = Fraction(25)


@pytest.fixture(scope="module")
def walking():
    """30 frames of the face moving right, by 3 px a frame."""
    return find_faces([portrait_frame(3 * i, 10, (420, 320)) for i in range(30)], FPS)


def test_the_box_follows_the_face(walking):
    assert walking.frames == 30 and walking.shots == ((0, 30),)
    (track,) = walking.tracks
    assert (track.start, track.stop) == (0, 30) and track.seen.all() and not track.bridged.any()
    centres = (track.boxes[:, 0] + track.boxes[:, 2]) / 2
    np.testing.assert_allclose(np.diff(centres)[4:-4], 3, atol=0.6)
    sides = track.boxes[:, 2] - track.boxes[:, 0]
    assert sides.std() / sides.mean() < 0.02


def test_reference_frames_hold_the_face(walking):
    (track,) = walking.tracks
    assert track.reference_frames
    for kept in track.reference_frames:
        assert kept.patch.shape == (192, 192, 3)
        assert kept.box[2] - kept.box[0] == pytest.approx(192 / 1.7, abs=1)


def test_the_box_ignores_the_jaw():
    points = np.random.default_rng(0).uniform(0, 100, (468, 2)).astype(np.float32)
    jaw = points.copy()
    jaw[[152, 148, 377, 14, 13, 61, 291]] += 30
    np.testing.assert_array_equal(box_from_points(points), box_from_points(jaw))


@pytest.mark.slow
def test_a_short_gap_is_bridged_and_a_long_one_is_not():
    frame = portrait_frame(30, 10)
    short, long = BRIDGE - 2, BRIDGE + 6

    def occluded() -> np.ndarray:
        out = frame.copy()
        cv2.rectangle(out, (110, 30), (210, 160), (120, 110, 100), -1)
        return out

    found = find_faces([frame] * 16 + [occluded()] * short + [frame] * 16, FPS)
    assert len(found.shots) == 1 and len(found.tracks) == 1 and found.tracks[0].seen.all()
    assert set(range(16, 16 + short)) <= set(np.flatnonzero(found.tracks[0].bridged)) <= set(range(13, 24 + short))
    found = find_faces([frame] * 16 + [occluded()] * long + [frame] * 16, FPS)
    seen = sum(track.seen.sum() for track in found.tracks)
    assert seen < 32 + long
    assert not any(track.has(16 + long // 2) for track in found.tracks)
    assert long < FORGET


def test_a_cut_ends_the_track():
    frames = [portrait_frame(30, 10)] * 12 + [255 - portrait_frame(30, 10)[::-1]] * 10 + [portrait_frame(60, 20)] * 12
    found = find_faces(frames, FPS)
    assert found.shots == ((0, 12), (12, 22), (22, 34))
    assert [(t.start, t.stop, t.shot) for t in found.tracks] == [(0, 12, 0), (22, 34, 2)]


def test_no_face_no_track():
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    found = find_faces([noise] * 9, FPS)
    assert found.frames == 9 and not found.tracks
    assert find_faces([], FPS).frames == 0


def test_the_published_smoothing_is_exact(golden):
    for case in json.loads((golden / "boxes.json").read_text()):
        assert case["T"] == 5
        np.testing.assert_array_equal(smooth_published(np.array(case["in"])), case["out"])


def test_the_published_smoothing_of_few_boxes():
    np.testing.assert_array_equal(smooth_published(np.array([[0] * 4, [3] * 4, [6] * 4]))[0], [3] * 4)
    assert smooth_published(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.slow
def test_both_smoothings_track(walking):
    published = find_faces([portrait_frame(3 * i, 10, (420, 320)) for i in range(30)], FPS, smoothing="published")
    ahead = (published.tracks[0].boxes - walking.tracks[0].boxes)[5:-6, 0]
    assert 4 < ahead.mean() < 7  # two frames ahead, at 3 px a frame, less the truncation


def test_an_unknown_detector():
    with pytest.raises(InputError, match="mediapipe, s3fd"):
        find_faces([], FPS, detector="dlib")


def test_a_detector_sees_pictures_as_large_as_it_asks_for(monkeypatch):
    seen = []

    class Whole(FixedDetector):
        longest_px = DETECTORS["s3fd"].longest_px

        def detect(self, frame):
            seen.append(frame.shape)
            return []

    monkeypatch.setitem(DETECTORS, "fixed", Whole)
    find_faces([np.zeros((720, 1280, 3), np.uint8)], FPS, detector="fixed")
    assert seen == [(720, 1280, 3)]


def two_faces() -> list[np.ndarray]:
    return [np.hstack([portrait_frame(0, 10), portrait_frame(60, 60, scale=0.4)])] * 10


@pytest.fixture(scope="module")
def pair():
    return find_faces(two_faces(), FPS)


@pytest.mark.slow
def test_one_of_two_leaves():
    """Both seen from the same frame on; the smaller one, second in the list, is gone for longer than is waited."""
    alone = np.hstack([portrait_frame(0, 10), np.full((320, 320, 3), 90, np.uint8)])
    found = find_faces(two_faces() + [alone] * (FORGET + 6), FPS)
    assert [t.start for t in found.tracks] == [0, 0]
    stays, left = sorted((t.stop for t in found.tracks), reverse=True)
    assert stays == 10 + FORGET + 6 and left <= 10


@pytest.mark.slow
def test_numbers_do_not_depend_on_how_far_was_read():
    """Both seen from the first frame on; the one that is larger at first is the smaller one in the end."""
    sizes = np.linspace(0.4, 0.6, 12)
    frames = [np.hstack([portrait_frame(60, 60, scale=s), portrait_frame(60, 60, scale=1 - s)]) for s in sizes]

    def sides(frames):
        return [t.boxes[0, 0] > 320 for t in find_faces(frames, FPS).tracks]

    assert sides(frames[:5]) == sides(frames) == [True, False]


def test_a_face_in_very_few_frames_is_found():
    for count in (1, 2, 3, 4):
        found = find_faces([portrait_frame(30, 10)] * count, FPS)
        assert [(t.start, t.stop) for t in found.tracks] == [(0, count)]


@pytest.mark.slow
def test_portraits_of_many_tracks_are_bounded(monkeypatch):
    """Four shots in which the face turns bright and dark: each keeps its share, with the mouth as closed as before."""
    shot = [np.clip(portrait_frame(30, 10).astype(int) + d, 0, 255).astype(np.uint8) for d in range(-60, 60, 12)]
    dark = [np.zeros((320, 320, 3), np.uint8)] * 6
    whole = find_faces((shot + dark) * 4, FPS).tracks
    monkeypatch.setattr(faces, "PATCHES", 8)
    bounded = find_faces((shot + dark) * 4, FPS).tracks
    assert len(whole) == len(bounded) == 4 and sum(len(t.reference_frames) for t in whole) > 8
    assert sum(len(t.reference_frames) for t in bounded) <= 8
    for a, b in zip(whole, bounded, strict=True):
        assert min(p.mouth_opening for p in a.reference_frames) == min(p.mouth_opening for p in b.reference_frames)


def test_two_faces_and_how_to_choose(pair):
    assert len(pair.tracks) == 2
    large, small = sorted(pair.tracks, key=lambda t: -t.size_px)
    assert choose(pair, "largest", None, FPS) == [large]
    assert choose(pair, "all", None, FPS) == list(pair.tracks)
    assert choose(pair, f"{small.number}", None, FPS) == [small]
    assert choose(pair, "largest", [1, 0], FPS) == [pair.tracks[1], pair.tracks[0]]
    x, y = (small.boxes[0][:2] + small.boxes[0][2:]) / 2
    assert choose(pair, f"{x:.0f},{y:.0f}@0.1", None, FPS) == [small]


@pytest.mark.parametrize(
    ("face", "voiced", "sentence"),
    [
        ("7", None, "no face number 7"),
        ("largest", [3], "no face number 3"),
        ("5,5@0", None, "no face at 5,5"),
        ("nose", None, "chosen by largest"),
    ],
)
def test_a_face_that_is_not_there(pair, face, voiced, sentence):
    with pytest.raises(InputError, match=sentence):
        choose(pair, face, voiced, FPS)


def track(number, start, stop, x, shot=0):
    """A face of 40 px that stands at x."""
    count = stop - start
    box = np.tile(np.float32([x, 20, x + 40, 60]), (count, 1))
    return Track(number, shot, start, box, np.zeros((count, 25, 2), np.float32), np.ones(count, bool))


def test_a_face_that_was_lost_speaks_on_when_it_is_found():
    """Two people, both lost twice, then a cut: a number or a click stands for all of a person's tracks in the shot."""
    tracks = [track(0, 0, 20, 10), track(1, 0, 20, 90), track(2, 60, 80, 88), track(3, 62, 80, 12)]
    tracks += [track(4, 120, 140, 15), track(5, 150, 170, 10, shot=1)]
    found = FaceMap(170, FPS, ((0, 150), (150, 170)), tuple(tracks))
    assert speakers(found, [0, 1]) == {0: 0, 1: 1, 2: 1, 3: 0, 4: 0}
    for asked in ("0", "3", "4", "30,40@0.4", "30,40@5"):
        assert sorted(t.number for t in choose(found, asked, None, FPS)) == [0, 3, 4], asked
    assert [t.number for t in choose(found, "5,5", None, FPS)] == [5]


@pytest.mark.slow
def test_real_clips_are_tracked_to_the_last_frame(shared_data):
    """Faces of every size, closeness and rate; `stage_cuts` has shots without a face."""
    for name, share in [
        ("upright_tiny_face.mp4", 1),
        ("voxceleb1.mp4", 1),
        ("very_close.mp4", 1),
        ("stage_cuts.mp4", 0.6),
    ]:
        info = probe(shared_data / "wild" / name)
        with FrameReader(info) as reader:
            found = find_faces(reader, info.fps)
        seen = np.zeros(found.frames, bool)
        for track in found.tracks:
            seen[track.start : track.stop] |= track.seen
        assert found.frames == info.frames and seen.mean() >= share, name
