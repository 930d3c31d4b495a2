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

# A mean face, of the mesh on 315 frames of 17 people who look ahead: distances of the eyes from the point between them,
# right, down, and away from the camera. First the landmarks STEADY, then depth, by steps of 0.3 right and down.
_STEADY_SHAPE = np.array(
    [[-0.72, 0, 0.04], [-0.28, 0, -0.04], [0.72, 0, 0.04], [0.28, 0, -0.04], [0, 0.79, -0.36], [0, 0.57, -0.65]]
)
_HALF = np.array(
    [
        [-0.29, -0.26, -0.12, 0.08, 0.28],
        [-0.34, -0.32, -0.23, 0.15, 0.54],
        [-0.37, -0.32, -0.26, -0.02, 0.81],
        [-0.31, -0.02, -0.03, 0.11, 0.85],
        [-0.61, -0.16, -0.07, 0.12, 0.93],
        [-0.77, -0.34, -0.09, 0.12, 1.00],
        [-0.29, -0.22, -0.11, 0.28, 1.00],
        [-0.34, -0.12, 0.04, 0.52, 1.00],
        [-0.17, -0.12, 0.17, 0.79, 1.00],
        [-0.10, -0.02, 0.49, 1.00, 1.00],
        [0.23, 0.45, 0.80, 1.00, 1.00],
    ],
    np.float32,
)
_DEPTHS, _DEPTHS_AT, _DEPTHS_STEP = np.hstack([_HALF[:, :0:-1], _HALF]), np.array([-1.2, -0.9]), 0.3
HELD = (0.5, 0.5, 0.35)  # weights of no turn or scale, no shift, no depth, beside the six points (docs/log.md)


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


def same_face(
    alignment: np.ndarray, landmarks: np.ndarray, other: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the face of another picture lies so that eyes and nose come to lie as in the crop of this one.

    Its own crop, moved by a similarity, and by what a similarity lacks where a head turns: what lies behind the eyes,
    as cheeks and jaw do, moves against them by its depth (`depths`), what lies before them the other way. Weak
    perspective, by least squares; points tremble, so that each change is made as far as they ask for it (HELD).

    alignment, landmarks  of this picture, landmarks (29, 2) in pixels; other, others  of the other one, in its pixels
    returns               the alignment (2, 3) in the other picture, and (2,) how far a place moves on there, pixels of
                          depth 1
    """
    brought = to_crop(np.asarray(others)[STEADY], other) @ alignment[:, :2].T + alignment[:, 2]  # by the two crops
    seen, there = np.asarray(landmarks, np.float64)[STEADY] @ [1, 1j], brought @ [1, 1j]
    centre, unit = seen.mean(), max(abs(seen[2:4].mean() - seen[:2].mean()), 1e-6)
    columns = np.stack([seen - centre, np.ones(len(seen)), unit * _STEADY_SHAPE[:, 2]], axis=1)
    rows = np.vstack([columns, np.diag(HELD) * [unit, 1, unit]])
    kept = [unit * HELD[0], centre * HELD[1], 0]  # turn 1, no shift, no depth: as the crops bring it
    turn, shift, slide = np.linalg.solve(rows.conj().T @ rows, rows.conj().T @ np.append(there, kept))
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    origin = np.array([shift.real, shift.imag]) - linear @ [centre.real, centre.imag]
    moved = compose(np.column_stack([linear, origin]), alignment)
    over = other[:, :2] @ np.linalg.inv(alignment[:, :2])  # pixels of this picture to those of the other
    place = np.column_stack([over @ moved[:, :2], over @ (moved[:, 2] - alignment[:, 2]) + other[:, 2]])
    return place, unit * over @ [slide.real, slide.imag]


def depths(alignment: np.ndarray, landmarks: np.ndarray, size_px: int) -> np.ndarray:
    """How far each place of a crop lies behind the eyes on a mean face: (size_px, size_px) float32, eye distances.

    landmarks  (29, 2), pixels of the frame; of them only eyes and nose count, so that no mouth can be told from it
    """
    place = similarity(np.asarray(landmarks, np.float64)[STEADY], (_STEADY_SHAPE[:, :2] - _DEPTHS_AT) / _DEPTHS_STEP)
    return crop_face(_DEPTHS, compose(np.column_stack([place[:, :2], place[:, 2] + 0.5]), alignment), size_px)


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The affine map (2, 3) that does `inner`, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


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


def alignment_of(matrix: np.ndarray, size_px: int) -> np.ndarray:
    """The alignment (2, 3) whose `sampling` is a matrix (2, 3)."""
    linear = matrix[:, :2]
    return np.column_stack([linear * size_px, matrix[:, 2] + 0.5 - linear @ [0.5, 0.5]])


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


def crop_turned(frame: Frame, alignment: np.ndarray, slide: np.ndarray, depth: np.ndarray) -> Frame:
    """Cut the crop (S, S, C) of an alignment, each place moved on by its depth (S, S) times `slide` (2,), pixels of the
    frame, as `same_face` gives it; bilinear, beyond the edge the last pixels repeat."""
    size_px = len(depth)
    at = np.arange(size_px, dtype=np.float32)
    move = sampling(alignment, size_px).astype(np.float32)
    (xx, xy, x0), (yx, yy, y0), (sx, sy) = *move, np.float32(slide)
    across = xx * at + xy * at[:, None] + x0 + sx * depth
    down = yx * at + yy * at[:, None] + y0 + sy * depth
    return cv2.remap(frame, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def top_half(crop: Frame) -> np.ndarray:
    """The upper half of a crop, coarse: (12, 24, 3) float32."""
    return cv2.resize(crop[: len(crop) // 2], (24, 12), interpolation=cv2.INTER_AREA).astype(np.float32)
