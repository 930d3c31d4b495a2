"""Face tracks of the published scoring: the golden vector, and every rule that makes or drops a track."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from eval.tracks import MAX_GAP, MEDIAN, MIN_DETECTIONS, overlap, published_tracks, shot_tracks, steadied
from lipsync.checkpoints import registry as checkpoints
from lipsync.faces.detectors import S3FDDetector

BOX = np.array([100.0, 80, 260, 240])


def shown(count: int, *boxes: np.ndarray) -> list[list[np.ndarray]]:
    """`count` frames that all show the same boxes."""
    return [list(boxes) for _ in range(count)]


def test_golden_tracks(golden):
    for case in json.loads((golden / "tracks.json").read_text()):
        found = published_tracks([[np.array(box) for box in boxes] for boxes in case["detections"]])
        assert len(found) == len(case["tracks"]), case["name"]
        for track, wanted in zip(found, case["tracks"], strict=True):
            assert (track.first, track.stop - 1) == (wanted["first"], wanted["last"]), case["name"]
            np.testing.assert_allclose(track.boxes[0], wanted["bbox_first"], atol=1e-3)
            np.testing.assert_allclose(track.boxes[-1], wanted["bbox_last"], atol=1e-3)
            for values, name in zip(track.crops, ("crop_s", "crop_x", "crop_y"), strict=True):
                np.testing.assert_allclose(values[::10], wanted[name], atol=1e-3)


def test_s3fd_gives_its_faces_in_the_published_order(monkeypatch):
    """Best first, however small: the greedy pass takes them as they come."""
    found = np.array([[0, 0, 20, 20], [50, 50, 150, 150]], np.float32), np.array([0.99, 0.95], np.float32)
    monkeypatch.setattr(checkpoints, "load", lambda _: SimpleNamespace(detect=lambda _: found))
    hits = S3FDDetector().detect(np.zeros((200, 200, 3), np.uint8))
    assert [round(hit.score, 2) for hit in hits] == [0.99, 0.95]


@pytest.mark.parametrize(("count", "tracks"), [(MIN_DETECTIONS, 0), (MIN_DETECTIONS + 1, 1)])
def test_exactly_100_detections_are_too_few(count, tracks):
    assert len(published_tracks(shown(count, BOX))) == tracks


@pytest.mark.parametrize(("side", "tracks"), [(100, 0), (100.5, 1)])
def test_exactly_100_pixels_are_too_small(side, tracks):
    assert len(published_tracks(shown(120, np.array([10, 10, 10 + side, 50.0])))) == tracks


def test_a_gap_is_filled_linearly():
    frames = shown(60, BOX) + shown(10) + shown(60, BOX + 22)
    (track,) = published_tracks(frames)
    assert len(track.boxes) == 130
    np.testing.assert_allclose(track.boxes[59:71, 0], 100 + np.arange(12) * 2)


@pytest.mark.parametrize(("gap", "tracks"), [(MAX_GAP - 1, [(0, 240)]), (MAX_GAP, [(0, 110), (135, 245)])])
def test_a_long_gap_ends_a_track(gap, tracks):
    found = published_tracks(shown(110, BOX) + shown(gap) + shown(110, BOX))
    wanted = [(0, 220 + gap)] if len(tracks) == 1 else [(0, 110), (110 + gap, 220 + gap)]
    assert [(t.first, t.stop) for t in found] == wanted


def test_a_jump_begins_another_track():
    found = published_tracks(shown(110, BOX) + shown(110, BOX + 160))
    assert [(t.first, t.stop) for t in found] == [(0, 110), (110, 220)]
    assert overlap(BOX, BOX + [0, 0, 160, 0]) == 0.5  # must be above a half to join
    assert len(published_tracks(shown(110, BOX) + shown(110, BOX + [0, 0, 160, 0]))) == 2


def test_two_people_are_two_tracks():
    found = published_tracks(shown(120, BOX, BOX + [300, 0, 300, 0]))
    assert [t.boxes[0, 0] for t in found] == [100, 400]


def test_the_detections_given_stay_as_they_are():
    frames = shown(120, BOX)
    published_tracks(frames)
    assert all(len(boxes) == 1 for boxes in frames)


def test_the_median_sees_zeros_beyond_the_ends():
    boxes = np.tile(BOX, (40, 1)) + np.linspace(0, 39, 40)[:, None]
    half, x, y = steadied(boxes)
    np.testing.assert_array_equal(half, 80)
    assert x[20] == 200 and y[20] == 180  # a straight line keeps its middle
    assert x[0] == 180 and x[-1] == 180 + 39 - MEDIAN // 2  # of 7 values and 6 zeros, the smallest of the 7


def test_shots_are_scored_one_by_one_and_short_ones_skipped():
    frames = shown(150, BOX) + shown(99, BOX) + shown(150, BOX)
    assert [(t.first, t.stop) for t in shot_tracks(frames, [150, 249])] == [(0, 150), (249, 399)]
    assert [(t.first, t.stop) for t in shot_tracks(frames, [])] == [(0, 399)]
    assert shot_tracks([], []) == []
