"""The evaluator's crops: the golden region, edges, and tracks that begin and end while frames pass."""

import cv2
import numpy as np
import pytest

from eval.crops import PADDING, SCALE, crop_face, track_crops, whole
from eval.metrics.base import MeasureError
from eval.tracks import FaceTrack


def test_golden_crop(golden):
    stored = np.load(golden / "crop.npz")
    half, x, y = (float(stored[name]) for name in "sxy")
    np.testing.assert_array_equal(crop_face(stored["frame"], half, x, y), stored["out"])


@pytest.mark.parametrize(
    ("half", "x", "y"),
    [(70, 150, 40), (30.7, 100.3, 90.9), (60, 5, 5), (60, 315, 235), (300, 160, 120), (10, -20, 100), (2, 0, 0)],
)
def test_a_crop_is_a_slice_of_the_padded_frame(half, x, y):
    frame = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    pad = int(half * (1 + 2 * SCALE))
    padded = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), constant_values=PADDING)
    middle_y, middle_x = y + pad, x + pad
    rows = slice(int(middle_y - half), int(middle_y + half * (1 + 2 * SCALE)))
    columns = slice(max(int(middle_x - half * (1 + SCALE)), 0), int(middle_x + half * (1 + SCALE)))
    wanted = cv2.resize(padded[rows, columns], (224, 224))
    np.testing.assert_array_equal(crop_face(frame, half, x, y), wanted)


def test_beyond_the_frame_it_is_grey():
    made = crop_face(np.zeros((100, 100, 3), np.uint8), 40, 0, 50)
    assert (made[:, :90] == PADDING).all() and (made[20:100, -90:] == 0).all()


@pytest.mark.parametrize(("half", "x", "y"), [(0, 50, 50), (20, 900, 50), (20, 50, -900)])
def test_a_face_without_picture_is_an_error(half, x, y):
    with pytest.raises(MeasureError, match="leaves no picture"):
        crop_face(np.zeros((100, 100, 3), np.uint8), half, x, y)


def test_small_crops_average_where_the_picture_shrinks():
    checks = (np.indices((224, 224)).sum(0) % 2 * 200).astype(np.uint8)[..., None].repeat(3, 2)
    assert np.ptp(whole(checks, 112)) == 0  # every pixel is the mean of four
    np.testing.assert_array_equal(whole(checks), checks)
    assert whole(checks[:50, :60], 112).shape == (112, 112, 3)


def test_tracks_are_cut_while_frames_pass():
    frames = [np.full((200, 200, 3), k, np.uint8) for k in range(8)]
    box = np.tile([60.0, 60, 120, 120], (8, 1))
    crops = np.tile([[30.0], [90], [90]], 8)
    tracks = [FaceTrack(0, box[:5], crops[:, :5]), FaceTrack(3, box[:5], crops[:, :5])]
    passing = iter(frames)
    seen = [(k, int(crop[0, 0, 0])) for k, crop in track_crops(passing, tracks, 112)]
    assert seen == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 3), (0, 4), (1, 4), (1, 5), (1, 6), (1, 7)]
