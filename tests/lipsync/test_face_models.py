"""What must stay true of every face detector and every landmark model, and of MediaPipe's in particular."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from safetensors.torch import save_file

from lipsync.checkpoints.registry import write_card
from lipsync.faces.base import Detection, FaceDetector, LandmarkModel, cut_square, height
from lipsync.faces.detectors import DETECTORS, LANDMARKS
from lipsync.faces.landmarks import COUNT, EYES, LEFT_EYE, RIGHT_EYE
from lipsync.faces.mediapipe import MODELS
from lipsync.faces.tracking import box_from_points
from lipsync.networks.s3fd import S3FD
from tests.conftest import portrait_frame
from tests.helpers.faces import ASTRONAUT, FixedDetector, FixedLandmarks

ODD = {"a pixel": (1, 1, 3), "a row": (1, 300, 3), "a column": (200, 1, 3), "grey": (90, 120, 3)}


@pytest.fixture(params=[*(pytest.param(n, marks=pytest.mark.slow) if n == "s3fd" else n for n in DETECTORS), "fixed"])
def detector(request, tmp_path, monkeypatch) -> type[FaceDetector]:
    """Each class; S3FD with weights of zero, to which every score is a half, which is no face."""
    if request.param == "s3fd":
        path = tmp_path / "s3fd.safetensors"
        save_file({k: v * 0 for k, v in S3FD().state_dict().items()}, path)
        write_card(path, {"architecture": "sfd"})
        monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    return (DETECTORS | {"fixed": FixedDetector})[request.param]


@pytest.fixture(params=[*LANDMARKS, "fixed"])
def landmarks(request) -> type[LandmarkModel]:
    return (LANDMARKS | {"fixed": FixedLandmarks})[request.param]


def plain(found: list[Detection]) -> list:
    return [(*d.box.tolist(), d.score) for d in found]


@pytest.mark.slow
def test_a_detector_keeps_its_contract(detector):
    known = DETECTORS | {"fixed": FixedDetector}
    assert issubclass(detector, FaceDetector) and known[detector.name] is detector
    assert detector.longest_px > 0 and detector.version() == detector.version() != ""
    look, frame = detector(), portrait_frame(0, 10)
    before = frame.copy()
    found = look.detect(frame)
    np.testing.assert_array_equal(frame, before)
    for hit in found:
        assert hit.box.shape == (4,) and hit.box.dtype == np.float32 and 0 <= hit.score <= 1
        assert hit.box[0] < hit.box[2] and hit.box[1] < hit.box[3]
    for shape in ODD.values():
        assert isinstance(look.detect(np.full(shape, 90, np.uint8)), list)
    assert plain(look.detect(frame)) == plain(found), "what was seen before plays no part"
    assert plain(look.detect(frame[:, ::-1][:, ::-1])) == plain(found), "a view is a picture"
    look.close()
    look.close()


def test_detectors_in_two_threads_do_not_meet(detector):
    frames = [portrait_frame(6 * i, 10) for i in range(6)]

    def all_of(_):
        look = detector()
        return [plain(look.detect(frame)) for frame in frames]

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(all_of, range(2))
    assert one == other == all_of(0)


@pytest.mark.slow
def test_a_landmark_model_keeps_its_contract(landmarks):
    known = LANDMARKS | {"fixed": FixedLandmarks}
    assert issubclass(landmarks, LandmarkModel) and known[landmarks.name] is landmarks
    assert landmarks.version() == landmarks.version() != ""
    model, frame = landmarks(), portrait_frame(0, 10)
    before, box = frame.copy(), ASTRONAUT.copy()
    points = model.find(frame, box)
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(box, ASTRONAUT)
    assert points.shape == (COUNT, 2) and points.dtype == np.float32
    assert np.abs(box_from_points(points) - ASTRONAUT).max() < 0.2 * height(ASTRONAUT)
    assert points[RIGHT_EYE[0], 0] < points[LEFT_EYE[0], 0], "the person's right eye is on the left"
    for shape in ODD.values():
        picture = np.full(shape, 90, np.uint8)
        model.find(picture, np.array([0, 0, shape[1], shape[0]], np.float32))
        model.find(picture, np.array([-500, -500, -400, -400], np.float32))
    model.forget()
    np.testing.assert_array_equal(model.find(frame, box), points, "after `forget` it is as new")
    model.close()
    model.close()


def test_landmark_models_in_two_threads_do_not_meet(landmarks):
    frames = [portrait_frame(3 * i, 10) for i in range(8)]

    def all_of(_):
        model = landmarks()
        return np.stack([model.find(frame, ASTRONAUT + [3 * i, 0, 3 * i, 0]) for i, frame in enumerate(frames)])

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(all_of, range(2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, all_of(0))


def test_both_models_must_be_whole():
    with pytest.raises(TypeError, match="detect"):
        type("Half", (FaceDetector,), {"version": FixedDetector.version})()
    with pytest.raises(TypeError, match="version"):
        type("Nameless", (LandmarkModel,), {"find": FixedLandmarks.find, "forget": FixedLandmarks.forget})()


def test_a_face_is_found_whatever_its_size():
    look = DETECTORS["mediapipe"]()
    for scale in (0.4, 0.6, 1.0):
        frame = portrait_frame(0, 10, (480, 480), scale)
        (hit,) = look.detect(frame)
        wanted = (ASTRONAUT - [0, 10, 0, 10]) * scale / 0.6 + [0, 10, 0, 10]
        assert np.abs(hit.box - wanted).max() < 0.2 * height(wanted), scale
    assert look.detect(np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)) == []


def test_a_face_that_fills_the_picture_is_found():
    x0, y0, x1, y1 = ASTRONAUT.astype(int)
    frame = portrait_frame(0, 10)[y0 - 12 : y1 + 8, x0 - 10 : x1 + 10]
    (hit,) = DETECTORS["mediapipe"]().detect(frame)
    assert np.abs(hit.box - [10, 12, 76, 78]).max() < 20


def test_two_faces_are_two():
    frame = np.hstack([portrait_frame(0, 10), portrait_frame(60, 60, scale=0.4)])
    large, small = DETECTORS["mediapipe"]().detect(frame)
    assert height(large.box) > height(small.box) and large.box[0] < 200 < 380 < small.box[0]


def test_the_mesh_follows_the_face():
    mesh = LANDMARKS["mediapipe"]()
    found = np.stack([mesh.find(portrait_frame(3 * i, 10), ASTRONAUT + [3 * i, 0, 3 * i, 0]) for i in range(12)])
    steps = np.diff(found.mean(1), axis=0)
    np.testing.assert_allclose(steps[:, 0], 3, atol=0.5)
    np.testing.assert_allclose(steps[:, 1], 0, atol=0.5)


@pytest.mark.parametrize("degrees", [-50, -25, 25, 50])
def test_the_mesh_turns_with_the_head(degrees):
    """Turned about the middle of the face, the points are the upright ones, turned."""
    upright = portrait_frame(0, 10)
    x, y = (ASTRONAUT[:2] + ASTRONAUT[2:]) / 2
    angle = np.radians(degrees)
    turned = cut_square(upright, x, y, 128, 256, angle)
    points = LANDMARKS["mediapipe"]().find(turned, np.array([95, 95, 161, 161], np.float32))
    wanted = LANDMARKS["mediapipe"]().find(upright, ASTRONAUT) - np.float32([x, y])
    back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wanted = wanted @ back + 128
    assert np.linalg.norm(points[EYES] - wanted[EYES], axis=1).max() < 4


def test_the_mesh_finds_no_face_where_none_is():
    mesh = LANDMARKS["mediapipe"]()
    assert mesh.find(portrait_frame(0, 10), ASTRONAUT) is not None
    assert mesh.find(np.full((320, 320, 3), 90, np.uint8), ASTRONAUT) is None
    assert mesh.find(portrait_frame(0, 10), ASTRONAUT) is not None, "and finds it when it is back"
    assert mesh.find(portrait_frame(120, 150), ASTRONAUT + [120, 140, 120, 140]) is not None, "or somewhere else"


def test_a_turned_square_is_the_turned_picture():
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    quarter = cut_square(picture, 32, 32, 32, 64, np.pi / 2)  # its right side is the picture's lower one
    np.testing.assert_array_equal(quarter[1:, :], np.rot90(picture)[:-1])


def test_the_networks_are_here_with_their_terms():
    notice = (MODELS.parents[2] / "NOTICE.md").read_text(encoding="utf-8")
    files = sorted(MODELS.glob("*.tflite"))
    assert len(files) == 3 and sum(f.stat().st_size for f in files) < 3e6
    assert all(file.name in notice for file in files)


@pytest.mark.parametrize("angle", [0.0, 0.3, -2.0])
@pytest.mark.parametrize("half", [20.0, 63.7, 200.0])
def test_a_window_is_a_plain_warp_bit_by_bit(angle, half):
    """Cut by the one cropper, a window is what the mesh's networks were always shown: their points depend on it."""
    picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    x, y, scale = 150.3, 110.8, 64 / half
    k = max(int(1 / scale), 1)  # pixels are averaged before the picture shrinks
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    move = np.array([[c, s, 64 - c * x - s * y], [-s, c, 64 + s * x - c * y]], np.float32)
    wanted = cv2.warpAffine(cv2.blur(picture, (k, k)), move, (128, 128), borderMode=cv2.BORDER_REPLICATE)
    np.testing.assert_array_equal(cut_square(picture, x, y, half, 128, angle), wanted)
