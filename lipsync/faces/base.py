"""Contracts of face detectors and landmark models, and the square windows of a picture that they look into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import cv2
import numpy as np

from ..geometry import alignment_of, crop_face
from ..media.reader import Frame


@dataclass(frozen=True)
class Detection:
    """One face of one picture: box (4,) float32 x0 y0 x1 y1 in pixels, score 0..1."""

    box: np.ndarray
    score: float


class FaceModel(ABC):
    """What both contracts share: it is asked picture by picture, and closed in the end."""

    name: str  # its key in the dict

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """What its numbers depend on, files by their sha256 and libraries by their versions: it goes into hashes."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what it holds; a second call does nothing."""


class FaceDetector(FaceModel):
    """Finds the faces of single pictures. Another one joins DETECTORS (detectors.py).

    True of every detector: the same picture gives the same faces, whatever was seen before; the picture is not written
    to; two detectors may be asked from two threads at once, each by its own.
    """

    longest_px: float  # callers give it pictures whose longest side is no longer (`shrink`)

    @abstractmethod
    def detect(self, frame: Frame) -> list[Detection]:
        """Faces of one picture, (H, W, 3) uint8 RGB; boxes in its pixels, and they may reach beyond it."""


class LandmarkModel(FaceModel):
    """Follows the points of one face from picture to picture. Another one joins LANDMARKS (detectors.py).

    True of every model: points are 468 in the numbering of MediaPipe's mesh (landmarks.py), whatever the network gives;
    the first look depends on the picture and the box alone; the picture is not written to; two models may be asked
    from two threads at once, each by its own.
    """

    @abstractmethod
    def find(self, frame: Frame, box: np.ndarray) -> np.ndarray | None:
        """The points of the face near `box` (4,): (468, 2) float32 pixels of the frame, None where no face is found.

        frame  (H, W, 3) uint8 RGB, of any size; the next one of the same face, or after `forget` of another
        """

    @abstractmethod
    def forget(self) -> None:
        """Make it ready for another face."""


def height(box: np.ndarray) -> float:
    """Height of a box x0 y0 x1 y1, at least one pixel."""
    return float(max(box[3] - box[1], 1.0))


def cut_square(frame: Frame, x: float, y: float, half: float, size_px: int, angle: float = 0.0) -> Frame:
    """Resize the square of centre (x, y) and half side `half` (pixels) to (size_px, size_px, 3); edges replicated.

    Cut by `crop_face`, as all crops; its pixel size_px / 2 shows pixel (x, y), where an alignment counts from corners.

    angle  radians by which the square is turned, from right to down
    """
    scale, middle = size_px / (2 * half), size_px / 2
    across, down = scale * np.cos(angle), scale * np.sin(angle)
    # In float32: in float64 other pixels are rounded up, and points move by up to 0.4 % of the distance of the eyes.
    move = np.array(
        [[across, down, middle - across * x - down * y], [-down, across, middle + down * x - across * y]], np.float32
    )
    back = cv2.invertAffineTransform(move.astype(np.float64))  # index of a pixel of the window -> of the frame
    return crop_face(frame, alignment_of(back, size_px), size_px)


def shrink(frame: Frame, longest_px: float) -> Frame:
    """The picture with its longest side at most `longest_px`."""
    scale = longest_px / max(frame.shape[:2])
    if scale >= 1:
        return frame
    size = (max(round(frame.shape[1] * scale), 1), max(round(frame.shape[0] * scale), 1))
    return cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
