"""Face crops: where a model's crop lies in a frame, and the one cutter that training, inference and scoring share.

An alignment is a (2, 3) float64 matrix that takes a place in the crop, u right and v down in 0..1, to a place in the
frame in pixels, where pixel j covers j .. j + 1. It holds for every size of the crop.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .faces.landmarks import EYE_CORNERS, STEADY

if TYPE_CHECKING:  # trainers use this module where PyAV is not
    from .media.reader import Frame


UPRIGHT, MOST_TURN = np.radians(6), np.radians(40)


@dataclass(frozen=True)
class CropRule:
    """Where a model's crop lies, in box heights from the centre of the face box: left, top, right, bottom."""

    left: float = -0.5
    top: float = -0.575
    right: float = 0.5
    bottom: float = 0.545

    @classmethod
    def from_card(cls, crop: dict) -> CropRule:
        """Read the rule of a card: `"x": ["cx - 0.5 s", "cx + 0.5 s"], "y": [...]` (ValueError where it is none)."""

        def number(text: str) -> float:
            match = re.fullmatch(r"c[xy] ([+-]) ([\d.]+) s", text)
            if match is None:
                raise ValueError(f"a crop bound reads like 'cx - 0.5 s', not {text!r}")
            return float(match[1] + match[2])

        (left, right), (top, bottom) = map(number, crop["x"]), map(number, crop["y"])
        return cls(left, top, right, bottom)

    def card(self) -> dict[str, list[str]]:
        """The rule as a card states it; `from_card` reads it again."""
        x, y = ((self.left, self.right), (self.top, self.bottom))
        return {
            "x": [f"cx {v:+g} s".replace("+", "+ ").replace("-", "- ") for v in x],
            "y": [f"cy {v:+g} s".replace("+", "+ ").replace("-", "- ") for v in y],
        }

    @property
    def offsets(self) -> np.ndarray:
        """(4,) float32: left, top, right, bottom."""
        return np.array([self.left, self.top, self.right, self.bottom], np.float32)

    def region(self, box: np.ndarray, pad: float = 0.0) -> np.ndarray:
        """Face box (4,) -> region (4,) float32 x0 y0 x1 y1, pixels; `pad` enlarges the box by that share a side."""
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * pad)
        return (np.array([x, y, x, y], np.float32) + self.offsets * np.float32(side)).astype(np.float32)

    def alignment(self, box: np.ndarray, landmarks: np.ndarray | None = None, pad: float = 0.0) -> np.ndarray:
        """The alignment (2, 3) of a face box (4,); where landmarks (29, 2) say that the head is tilted, turned with it.

        Networks that were trained on upright boxes know heads tilted by a few degrees: what is beyond UPRIGHT is turned
        back, about the middle of the box. Only the landmarks' angle matters, so that their scale and place may be
        another picture's.
        """
        upright = box_alignment(*self.region(box, pad))
        turn = 0.0 if landmarks is None else tilt(landmarks)
        if not turn:
            return upright
        c, s, middle = np.cos(turn), np.sin(turn), np.array([box[0] + box[2], box[1] + box[3]], np.float64) / 2
        rotation = np.array([[c, -s], [s, c]])
        return np.concatenate([rotation @ upright[:, :2], (middle + rotation @ (upright[:, 2] - middle))[:, None]], 1)


@dataclass(frozen=True)
class LandmarkRule:
    """A crop that turns with the head: landmarks that do not move with speech are brought onto a mean shape.

    shape  places of the landmarks faces.landmarks.STEADY in the crop, (u, v) in 0..1 each
    """

    shape: tuple[tuple[float, float], ...]

    @classmethod
    def from_card(cls, crop: dict) -> LandmarkRule:
        """Read the rule of a card: `"landmarks": [[u, v], ...]` (KeyError, ValueError where it is none)."""
        shape = tuple((float(u), float(v)) for u, v in crop["landmarks"])
        if len(shape) != len(STEADY):
            raise ValueError(f"a crop by landmarks has {len(STEADY)} places, not {len(shape)}")
        return cls(shape)

    def alignment(self, box: np.ndarray, landmarks: np.ndarray, pad: float = 0.0) -> np.ndarray:
        """The alignment (2, 3) of landmarks (29, 2), pixels: the similarity that takes the shape onto them.

        `pad` widens the crop by that share a side; the box does not matter.
        """
        shape, seen = np.array(self.shape), np.asarray(landmarks, np.float64)[STEADY]
        placed = similarity(shape, seen)
        linear, origin = placed[:, :2], placed[:, 2]
        widened = linear * (1 + 2 * pad)
        return np.concatenate([widened, (origin + linear @ [0.5, 0.5] - widened @ [0.5, 0.5])[:, None]], axis=1)


def similarity(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """The turn, scale and shift (2, 3) that take points (N, 2) onto others (N, 2) with the least squared error (Umeyama
    1991)."""
    centre, middle = points.mean(0), onto.mean(0)
    a, b = (points - centre) @ [1, 1j], (onto - middle) @ [1, 1j]  # as complex numbers a similarity is a product
    turn = (a.conj() @ b) / max(float((a.conj() @ a).real), 1e-12)
    turn = turn if abs(turn) > 1e-6 else 1e-6  # all points in one place
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.concatenate([linear, (middle - linear @ centre)[:, None]], axis=1)


def same_face(alignment: np.ndarray, landmarks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The alignment (2, 3) that cuts the face of another picture so that eyes and nose lie as in the crop of this one.

    alignment  of this picture, with landmarks (29, 2); others (29, 2), of the other picture, each in its own pixels
    """
    placed = similarity(np.asarray(landmarks, np.float64)[STEADY], np.asarray(others, np.float64)[STEADY])
    return np.concatenate([placed[:, :2] @ alignment[:, :2], placed[:, :2] @ alignment[:, 2:] + placed[:, 2:]], axis=1)


def tilt(landmarks: np.ndarray) -> float:
    """How far a head is tilted beyond UPRIGHT, radians from right to down, of landmarks (29, 2): by its eye corners."""
    corners = np.asarray(landmarks, np.float64)[EYE_CORNERS]
    across, down = corners[2:].mean(0) - corners[:2].mean(0)
    roll = float(np.arctan2(down, across))
    return float(np.sign(roll) * min(max(abs(roll) - UPRIGHT, 0.0), MOST_TURN))


def box_alignment(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """The alignment (2, 3) of an upright box, pixels."""
    return np.array([[float(x1) - float(x0), 0, x0], [0, float(y1) - float(y0), y0]], np.float64)


def sampling(alignment: np.ndarray, size_px: int) -> np.ndarray:
    """(2, 3) float64: index of a pixel of the crop (size_px, size_px) -> index of a pixel of the frame."""
    linear = alignment[:, :2] / size_px
    return np.concatenate([linear, (alignment[:, 2] + linear @ [0.5, 0.5] - 0.5)[:, None]], axis=1)


def to_crop(points: np.ndarray, alignment: np.ndarray, size_px: int = 1) -> np.ndarray:
    """Points (..., 2) of the frame, pixels -> places in the crop, in pixels of a crop of that size."""
    return (np.asarray(points, np.float64) - alignment[:, 2]) @ np.linalg.inv(alignment[:, :2]).T * size_px


def crop_face(frame: Frame, alignment: np.ndarray, size_px: int) -> Frame:
    """Cut the crop of an alignment, which may leave the frame: (size_px, size_px, C) uint8, as the frame's.

    Bilinear, after a box blur where the picture shrinks by 2 or more; beyond the edge the last pixels repeat.
    """
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ alignment[:, :2].T + alignment[:, 2]
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    kx, ky = (max(int(np.linalg.norm(alignment[:, axis]) / size_px), 1) for axis in (0, 1))
    left, top = max(int(x0) - kx - 1, 0), max(int(y0) - ky - 1, 0)
    part = frame[top : max(int(np.ceil(y1)) + ky + 1, 0), left : max(int(np.ceil(x1)) + kx + 1, 0)]
    if not part.size:  # wholly outside
        part, left, top = frame, 0, 0
    if kx > 1 or ky > 1:
        part = cv2.blur(part, (kx, ky))
    move = sampling(alignment, size_px) - np.array([[0, 0, left], [0, 0, top]])
    return cv2.warpAffine(
        part,
        move,
        (size_px, size_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def top_half(crop: Frame) -> np.ndarray:
    """The upper half of a crop, coarse: (12, 24, 3) float32."""
    return cv2.resize(crop[: len(crop) // 2], (24, 12), interpolation=cv2.INTER_AREA).astype(np.float32)
