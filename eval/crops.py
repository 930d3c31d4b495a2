"""What networks of the evaluation see of a face: SyncNet's wide square, cut while the video streams by, and the aligned
face that an identity network wants.

Source of the square: protocol.md section 5, items 4 and 7; tests/data/golden/crop.npz proves the region.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from lipsync.faces.base import cut_square
from lipsync.faces.landmarks import LEFT_EYE, NOSE, RIGHT_EYE

from .metrics.base import MeasureError
from .tracks import FaceTrack

SIZE_PX = 224
SCALE = 0.4  # c: the crop reaches this share of the face further left, right and, doubled, below
PADDING = 110  # grey beyond the frame's edge
ALIGNED_PX = 150
# dlib's mean face: corners of the left and of the right eye, outer before inner, and the base of the nose, x + i y; the
# aligned face has a border of a quarter of it.
_ALIGNED = LEFT_EYE + RIGHT_EYE + NOSE[:1]
_MEAN_FACE = np.array([0.8596 + 0.2135j, 0.6461 + 0.2290j, 0.1206 + 0.2137j, 0.3341 + 0.2291j, 0.4901 + 0.6278j])
_MEAN_FACE = (_MEAN_FACE + 0.25 * (1 + 1j)) / 1.5


def crop_face(frame: np.ndarray, half: float, x: float, y: float, size_px: int = SIZE_PX) -> np.ndarray:
    """One crop of the published scoring.

    frame    (H, W, 3) uint8
    half     half side of the face, pixels; x, y: its centre
    size_px  224 as published; smaller ones average pixels where the picture shrinks
    returns  (size_px, size_px, 3) uint8, bilinear
    raises   MeasureError where the face has no size or lies wholly outside the padded frame
    """
    height, width = frame.shape[:2]
    pad = int(half * (1 + 2 * SCALE))
    middle_y, middle_x = y + pad, x + pad
    rows = int(middle_y - half), int(middle_y + half * (1 + 2 * SCALE))
    columns = int(middle_x - half * (1 + SCALE)), int(middle_x + half * (1 + SCALE))
    # As a slice of the padded frame, but the frame is never padded whole.
    rows = max(rows[0], 0), min(rows[1], height + 2 * pad)
    columns = max(columns[0], 0), min(columns[1], width + 2 * pad)
    if rows[1] <= rows[0] or columns[1] <= columns[0]:
        raise MeasureError(
            "The face at ({x:.0f}, {y:.0f}) with half side {half:.1f} px leaves no picture to judge.",
            x=x,
            y=y,
            half=half,
        )
    out = np.full((rows[1] - rows[0], columns[1] - columns[0], 3), PADDING, np.uint8)
    top, left = rows[0] - pad, columns[0] - pad
    y0, y1 = max(top, 0), min(rows[1] - pad, height)
    x0, x1 = max(left, 0), min(columns[1] - pad, width)
    if y1 > y0 and x1 > x0:
        out[y0 - top : y1 - top, x0 - left : x1 - left] = frame[y0:y1, x0:x1]
    return _resized(out, size_px)


def whole(frame: np.ndarray, size_px: int = SIZE_PX) -> np.ndarray:
    """The whole frame as the crop (protocol `lrs`): (size_px, size_px, 3) uint8."""
    return _resized(frame, size_px)


def _resized(picture: np.ndarray, size_px: int) -> np.ndarray:
    shrinks = min(picture.shape[:2]) > size_px and size_px < SIZE_PX
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, (size_px, size_px), interpolation=how)


def track_crops(
    frames: Iterable[np.ndarray], tracks: Sequence[FaceTrack], size_px: int
) -> Iterator[tuple[int, np.ndarray | MeasureError]]:
    """Cut every track's crop from frames that come once, in order: yields (index of the track, crop).

    Where a track's face leaves no picture, its error comes in the crop's place: other tracks go on.
    """
    for index, frame in enumerate(frames):
        for k, track in enumerate(tracks):
            if track.first <= index < track.stop:
                try:
                    half, x, y = track.crops[:, index - track.first]
                    crop: np.ndarray | MeasureError = crop_face(frame, half, x, y, size_px)
                except MeasureError as error:
                    crop = error
                yield k, crop


def aligned_face(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """One upright face with eyes and nose at their places, as dlib's face network saw it in training.

    frame    (H, W, 3) uint8 RGB
    points   (468, 2) pixels, a landmark model's
    returns  (150, 150, 3) uint8 RGB; edges replicated
    """
    found = points[_ALIGNED] @ [1, 1j]
    offsets = _MEAN_FACE - _MEAN_FACE.mean()
    turn = (offsets.conj() * (found - found.mean())).sum() / (np.abs(offsets) ** 2).sum()  # least squares
    middle = found.mean() + turn * (0.5 + 0.5j - _MEAN_FACE.mean())
    half = max(float(np.abs(turn)) / 2, 1.0)
    return cut_square(frame, float(middle.real), float(middle.imag), half, ALIGNED_PX, float(np.angle(turn)))
