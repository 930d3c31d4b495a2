"""Alignments: boxes and landmarks to crops, and back."""

import cv2
import numpy as np
import pytest

from lipsync.blending import crop_mask, paste, paste_poisson
from lipsync.faces.landmarks import CORNERS, EYE_CORNERS, LANDMARK_IDS, STEADY
from lipsync.geometry import (
    CropRule,
    LandmarkRule,
    alignment_of,
    box_alignment,
    crop_face,
    crop_turned,
    depths,
    same_face,
    sampling,
    to_crop,
)
from lipsync.models.speech2vid import MEAN_SHAPE

RULE = LandmarkRule(MEAN_SHAPE)


def landmarks(angle: float, scale: float, x: float, y: float) -> np.ndarray:
    """Landmarks whose steady ones are the mean shape, turned, scaled and moved."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.zeros((len(LANDMARK_IDS), 2))
    points[STEADY] = np.array(MEAN_SHAPE) * scale @ turn.T + [x, y]
    return points


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.2])
def test_landmarks_come_to_their_places(angle):
    points = landmarks(angle, 140, 60, 40)
    place = RULE.alignment(None, points)
    np.testing.assert_allclose(to_crop(points[STEADY], place), MEAN_SHAPE, atol=1e-6)
    wider = RULE.alignment(None, points, pad=0.1)
    np.testing.assert_allclose(wider[:, :2], place[:, :2] * 1.2)
    np.testing.assert_allclose(wider @ [0.5, 0.5, 1], place @ [0.5, 0.5, 1])


def test_landmarks_in_one_place_give_a_crop_all_the_same():
    assert np.isfinite(RULE.alignment(None, np.full((len(LANDMARK_IDS), 2), 50.0))).all()


def test_a_turned_crop_stands_upright():
    """A white bar along the turned face's eyes lies level in its crop."""
    import cv2

    picture = np.zeros((300, 300, 3), np.uint8)
    points = landmarks(0.4, 120, 90, 80)
    a, b = (tuple(int(v) for v in points[STEADY[k]]) for k in (0, 2))
    cv2.line(picture, a, b, (255, 255, 255), 3)
    crop = crop_face(picture, RULE.alignment(None, points), 112)
    rows = np.nonzero(crop[..., 0] > 128)[0]
    assert rows.max() - rows.min() <= 6


@pytest.mark.parametrize("place", [box_alignment(40, 30, 160, 150), RULE.alignment(None, landmarks(0.25, 110, 80, 60))])
def test_what_was_cut_can_be_put_back(place):
    rng = np.random.default_rng(0)
    import cv2

    picture = cv2.GaussianBlur(rng.integers(0, 256, (240, 240, 3)).astype(np.uint8), (0, 0), 4)
    crop, frame = crop_face(picture, place, 112), picture.copy()
    paste(frame, place, crop, crop_mask(112))
    assert np.abs(frame.astype(int) - picture).max() <= 4
    poisson = picture.copy()
    paste_poisson(poisson, place, crop, crop_mask(112))
    assert np.abs(poisson.astype(int) - picture).mean() < 1.5


def test_poisson_takes_the_frames_colours_and_the_crops_lines():
    frame = np.full((200, 200, 3), 100, np.uint8)
    crop = np.full((112, 112, 3), 180, np.uint8)
    crop[50:60, 40:70] = 140
    paste_poisson(frame, box_alignment(50, 50, 150, 150), crop, crop_mask(112))
    assert abs(int(frame[100, 70, 0]) - 100) < 6 and frame[98, 100, 0] < 80


def test_a_pixel_of_the_crop_is_a_pixel_of_the_frame_where_sizes_agree():
    np.testing.assert_allclose(sampling(box_alignment(10, 20, 106, 116), 96), [[1, 0, 10], [0, 1, 20]])


def test_a_rule_is_what_its_card_says():
    for rule in (CropRule(), CropRule(-0.42, -0.49, 0.42, 0.55), CropRule(-0.7, -0.5, 0.7, 0.9)):
        assert CropRule.from_card(rule.card()) == rule
    assert LandmarkRule.from_card({"landmarks": [list(p) for p in MEAN_SHAPE]}) == RULE
    with pytest.raises(ValueError, match="6 places, not 1"):
        LandmarkRule.from_card({"landmarks": [[0.1, 0.2]]})


def tilted(degrees: float) -> np.ndarray:
    """Landmarks of which only the eye corners count, turned from right to down."""
    landmarks = np.zeros((29, 2), np.float32)
    right, down = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    landmarks[EYE_CORNERS] = np.outer([-30, -12, 12, 30], [right, down])[[0, 1, 3, 2]] + 200
    return landmarks


@pytest.mark.parametrize(("degrees", "turned"), [(0, 0), (5, 0), (-5, 0), (20, 14), (-26, -20), (80, 40)])
def test_a_box_turns_with_a_tilted_head_beyond_what_networks_know(degrees, turned):
    box, rule = np.float32([100, 120, 300, 320]), CropRule()
    place, upright = rule.alignment(box, tilted(degrees)), rule.alignment(box)
    c, s = np.cos(np.radians(turned)), np.sin(np.radians(turned))
    np.testing.assert_allclose(place[:, :2], np.array([[c, -s], [s, c]]) @ upright[:, :2], atol=1e-3)
    middle = np.append(to_crop(np.array([200.0, 220.0]), upright), 1)
    np.testing.assert_allclose(place @ middle, [200, 220], atol=1e-3)  # about the middle of the box


def test_a_turned_crop_shows_the_head_upright():
    frame = np.zeros((400, 400, 3), np.uint8)
    turn = cv2.getRotationMatrix2D((200, 220), -30, 1)  # 30 degrees from right to down
    frame[160:170, 150:250] = 255  # a bar across the eyes
    leaning = cv2.warpAffine(frame, turn, (400, 400))
    box = np.float32([100, 120, 300, 320])
    seen = crop_face(leaning, CropRule().alignment(box, tilted(30)), 96)[..., 0]
    rows, columns = np.nonzero(seen > 128)
    slope = np.degrees(np.arctan(np.polyfit(columns, rows, 1)[0]))
    assert abs(slope - 6) < 1  # UPRIGHT is left


# --- heads that turn ----------------------------------------------------------------------------------------

# Of a face: distances of the eyes right, down and away from the point between them.
STEADY_3D = [(-0.72, 0, 0.04), (-0.28, 0, -0.04), (0.72, 0, 0.04), (0.28, 0, -0.04), (0, 0.79, -0.36), (0, 0.57, -0.65)]
JAW_3D = [(-1.05, 0.7, 0.6), (1.05, 0.7, 0.6)]
HEAD = {**dict(zip(STEADY, STEADY_3D, strict=True)), **dict(zip((0, 18), JAW_3D, strict=True))}


def head(yaw: float, pitch: float) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks (29, 2) of a head turned by degrees, and the alignment of its box."""
    a, b = np.radians([yaw, pitch])
    about = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]) @ about
    points = np.zeros((len(LANDMARK_IDS), 2))
    points[list(HEAD)] = (np.array(list(HEAD.values())) @ about.T)[:, :2] * 60 + [200, 150]
    middle = points[STEADY].mean(0) + [0, 20]
    return points, CropRule().alignment(np.array([*(middle - 75), *(middle + 75)], np.float32))


@pytest.mark.parametrize(("yaw", "pitch"), [(20, 0), (-12, 0), (12, 12), (-8, -15), (0, 15)])
def test_the_jaw_of_a_turned_head_comes_near_that_of_the_crop(yaw, pitch):
    """Nearer than its box brings them, and than a turn and a shift of the picture would."""
    (seen, alignment), (others, other) = head(0, 0), head(yaw, pitch)
    there, slide = same_face(alignment, seen, other, others)
    depth, far = depths(alignment, seen, 96), [0, 18]
    places = to_crop(seen[far], alignment)
    row, column = (places[:, ::-1] * 96).astype(int).T
    plain = places @ there[:, :2].T + there[:, 2]
    turned = plain + depth[row, column, None] * slide
    box = places @ other[:, :2].T + other[:, 2]
    away = [np.linalg.norm(p - others[far], axis=1).mean() for p in (turned, plain, box)]
    assert away[0] < 0.75 * away[1] and away[0] < 0.75 * away[2], away


def test_a_head_that_did_not_move_keeps_its_crop_whatever_its_mouth_does():
    (seen, alignment), (others, _) = head(10, 5), head(10, 5)
    others[CORNERS] += 30
    there, slide = same_face(alignment, seen, alignment, others)
    np.testing.assert_allclose(there, alignment, atol=1e-6)
    np.testing.assert_allclose(slide, 0, atol=1e-6)
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    crop = crop_turned(picture, there, slide, depths(there, seen, 112))
    assert np.abs(crop.astype(int) - crop_face(picture, alignment, 112)).max() <= 8  # another rounding


def test_a_landmark_lost_in_one_place_gives_a_crop_all_the_same():
    seen, alignment = head(0, 0)
    there, slide = same_face(alignment, seen, alignment, np.full_like(seen, 50.0))
    assert np.isfinite(there).all() and np.isfinite(slide).all()
    assert np.isfinite(depths(alignment, np.full_like(seen, 50.0), 96)).all()


def test_a_sampling_has_its_alignment():
    place = RULE.alignment(None, landmarks(0.25, 110, 80, 60))
    np.testing.assert_allclose(alignment_of(sampling(place, 96), 96), place, atol=1e-9)
