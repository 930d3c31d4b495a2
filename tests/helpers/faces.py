"""Face models that look at nothing: a detector of one box, and points laid out in the box they are given."""

import numpy as np

from lipsync.faces.base import Detection, FaceDetector, LandmarkModel
from lipsync.faces.landmarks import COUNT, LEFT_EYE, NOSE, RIGHT_EYE

ASTRONAUT = np.array([102, 51, 168, 117], np.float32)  # the face of portrait_frame(0, 10)


class FixedDetector(FaceDetector):
    """Finds the same face in every picture."""

    name = "fixed"
    longest_px = 512

    @classmethod
    def version(cls) -> str:
        return "fixed"

    def detect(self, frame: np.ndarray) -> list[Detection]:
        return [Detection(ASTRONAUT.copy(), 1.0)]


class FixedLandmarks(LandmarkModel):
    """A face whose steady box (tracking.box_from_points) is the box it is given."""

    name = "fixed"

    @classmethod
    def version(cls) -> str:
        return "fixed"

    def find(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        side, middle = box[2] - box[0], (box[:2] + box[2:]) / 2
        points = np.tile(middle, (COUNT, 1)).astype(np.float32)
        points[NOSE] += [0, 0.095 * side]
        points[RIGHT_EYE] += [[-0.25 * side, -0.2 * side], [-0.1 * side, -0.2 * side]]
        points[LEFT_EYE] += [[0.25 * side, -0.2 * side], [0.1 * side, -0.2 * side]]
        return points

    def forget(self) -> None:
        pass
