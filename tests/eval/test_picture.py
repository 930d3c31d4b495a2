"""The picture verdict: a mouth that was blurred, or trembles, is told from the clip's own."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from eval.metrics.base import MeasureError
from eval.picture import compare
from lipsync.media.reader import VideoWriter, probe
from tests.conftest import portrait_frame


def write(path, change, frames: int = 12):
    with VideoWriter(path, 320, 320, Fraction(25), crf=6) as writer:
        for i in range(frames):
            writer.write(change(portrait_frame(10 + 8 * np.sin(i / 9), 10 + 4 * np.sin(i / 5), scale=0.9), i))
    return probe(path)


def mouth(frame: np.ndarray) -> np.ndarray:
    """The lower face of the portrait at this scale."""
    return frame[130:185, 165:255]


def blurred(sigma: float):
    def change(frame, _):
        mouth(frame)[:] = cv2.GaussianBlur(mouth(frame), (0, 0), sigma)
        return frame

    return change


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("picture") / "source.mp4", lambda f, _: f)


@pytest.mark.slow
def test_the_clip_itself_is_sharp(source, tmp_path):
    found = compare(source, write(tmp_path / "same.mp4", lambda f, _: f))
    assert found.grade == "sharp" and found.sharpness == pytest.approx(1, abs=0.1)
    assert found.flicker == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_blur_is_told_in_its_order(source, tmp_path):
    soft, poor = (compare(source, write(tmp_path / f"{s}.mp4", blurred(s))) for s in (0.9, 3.0))
    assert soft.sharpness > 2 * poor.sharpness and poor.grade == "poor" and soft.grade != "poor"


@pytest.mark.slow
def test_another_length_makes_no_difference(source, tmp_path):
    short = compare(source, write(tmp_path / "short.mp4", lambda f, _: f, frames=6))
    assert short.sharpness == pytest.approx(1, abs=0.15)


@pytest.mark.slow
def test_a_trembling_mouth_is_restless(source, tmp_path):
    rng = np.random.default_rng(0)

    def trembling(frame, _):
        grain = rng.normal(0, 14, (*mouth(frame).shape[:2], 1))
        mouth(frame)[:] = np.clip(mouth(frame) + grain, 0, 255)
        return frame

    assert compare(source, write(tmp_path / "grain.mp4", trembling)).grade == "restless"


@pytest.mark.slow
def test_no_face_is_a_sentence(source, tmp_path):
    with pytest.raises(MeasureError, match="blank.mp4 shows no face"):
        compare(source, write(tmp_path / "blank.mp4", lambda f, _: f * 0))
