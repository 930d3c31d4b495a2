"""From a face box to a network's input and back."""

import json
from fractions import Fraction

import numpy as np
import pytest
from skimage.data import astronaut

from lipsync.blending import match_colour, mouth_mask, paste
from lipsync.faces.tracking import find_faces
from lipsync.geometry import CropRule, box_alignment, crop_face, to_crop
from lipsync.models.wav2lip import from_network, to_network
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def portrait():
    """The astronaut and her one track."""
    faces = find_faces([astronaut()], Fraction(25))
    assert len(faces.tracks) == 1
    return astronaut(), faces.tracks[0]


def test_the_rule_of_a_card():
    card = json.loads((ROOT / "lipsync" / "weights" / "wav2lip-lab.json").read_text())
    rule = CropRule.from_card(card["crop"])
    assert rule == CropRule(-0.5, -0.575, 0.5, 0.545)
    region = rule.region(np.array([100, 200, 200, 300], np.float32))
    np.testing.assert_allclose(region, [100, 192.5, 200, 304.5])
    np.testing.assert_allclose(rule.region(np.array([100, 200, 200, 300], np.float32), pad=0.1), [90, 181, 210, 315.4])


def test_a_rule_that_is_none():
    with pytest.raises(ValueError, match="cx - 0.5 s"):
        CropRule.from_card({"x": ["left", "right"], "y": ["cy - 0.5 s", "cy + 0.5 s"]})


def test_cut_keeps_positions():
    """A ramp stays a ramp: pixel centres are respected, so that nothing moves by half a pixel."""
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 200, 0).repeat(3, 2)
    np.testing.assert_allclose(
        crop_face(ramp, box_alignment(20.0, 20, 116, 116), 96)[48, :, 0], np.arange(20, 116), atol=1
    )
    half = crop_face(ramp, box_alignment(4.0, 4, 196, 196), 96)[48, 5:-5, 0].astype(float)
    np.testing.assert_allclose(half, (4 + 2 * np.arange(96) + 0.5)[5:-5], atol=1.1)


def test_cut_beyond_the_edge_repeats_it():
    picture = np.full((50, 50, 3), 9, np.uint8)
    assert (crop_face(picture, box_alignment(-30.0, -30, 30, 30), 96) == 9).all()
    assert (crop_face(picture, box_alignment(-90.0, -90, -40, -40), 96) == 9).all()


def test_only_the_network_sees_bgr_and_no_mouth():
    crop = np.zeros((1, 96, 96, 3), np.uint8)
    crop[..., 0] = 255  # red
    face = to_network(crop, crop)
    assert face.shape == (1, 6, 96, 96) and face.dtype == np.float32
    assert (face[0, 2, :48] == 1).all() and (face[0, :3, 48:] == 0).all() and (face[0, 5] == 1).all()
    assert (face[0, [0, 1, 3, 4]] == 0).all()
    np.testing.assert_array_equal(from_network(face[:, 3:]), crop)


def test_the_mask_lies_within_the_crop_below_the_nose(portrait):
    _, track = portrait
    place = CropRule().alignment(track.boxes[0])
    mask = mouth_mask(track.landmarks[0], place)
    assert mask.shape == (96, 96) and mask.max() == pytest.approx(1, abs=0.01)
    assert not mask[:48].any() and not mask[-1].any() and not mask[:, [0, -1]].any()
    lips = to_crop(track.landmarks[0][23:25].mean(0), place, 96).astype(int)
    assert mask[lips[1], lips[0]] > 0.95
    assert 0.1 < mask.mean() < 0.35


def test_paste_touches_nothing_outside_the_mask(portrait):
    picture, track = portrait
    place = CropRule().alignment(track.boxes[0])
    mask = mouth_mask(track.landmarks[0], place)
    frame = picture.copy()
    paste(frame, place, np.zeros((96, 96, 3), np.uint8), mask)
    changed = (frame != picture).any(2)
    rows, columns = np.nonzero(changed)
    assert changed.any()
    region = CropRule().region(track.boxes[0])
    assert rows.min() >= region[1] + 0.5 * (region[3] - region[1]) - 1
    assert rows.max() < region[3] and columns.min() >= region[0] and columns.max() < region[2]
    untouched = picture.copy()
    paste(untouched, place, np.zeros((96, 96, 3), np.uint8), np.zeros((96, 96), np.float32))
    np.testing.assert_array_equal(untouched, picture)


def test_paste_of_the_same_picture_is_nearly_the_same(portrait):
    picture, track = portrait
    place = CropRule().alignment(track.boxes[0])
    frame = picture.copy()
    paste(frame, place, crop_face(picture, place, 96), np.ones((96, 96), np.float32))
    assert np.abs(frame.astype(int) - picture).mean() < 1.5


def test_paste_outside_the_frame_does_nothing():
    frame = np.zeros((20, 20, 3), np.uint8)
    paste(frame, box_alignment(30, 30, 60, 60), np.full((96, 96, 3), 200, np.uint8), np.ones((96, 96), np.float32))
    assert not frame.any()


def test_colours_meet_at_the_mask():
    """A face generated 20 too dark comes back to the brightness of the picture around it."""
    rng = np.random.default_rng(0)
    original = rng.integers(100, 110, (96, 96, 3)).astype(np.uint8)
    mask = np.zeros((96, 96), np.float32)
    mask[60:84, 30:66] = 1
    matched = match_colour(original - 20, original, mask)
    assert abs(matched[60:84, 30:66].mean() - original[60:84, 30:66].mean()) < 2


def test_a_background_guessed_wrong_does_not_light_the_face():
    """Bright hair where the network drew dark: it lies beside the mask, and must not glow on the cheek."""
    generated = np.full((96, 96, 3), 120, np.uint8)
    original = generated + 6
    original[:, 76:] = 230
    mask = np.zeros((96, 96), np.float32)
    mask[54:90, 20:74] = 1
    matched = match_colour(generated, original, mask)[54:90, 20:74].astype(int)
    assert abs(matched - 126).max() <= 10  # 36 where all that differs counts alike
