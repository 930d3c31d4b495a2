"""Does the face tremble, does the mouth move with speech and rest without, and are the lips where they should be?

Works on the lips of landmarks.py: (T, 40, 2) float32 pixels in the order of LIPS, NaN in frames without them, and each
frame's own face box (T, 4). All lengths are per cent of the face box's side, and speeds per second, so that neither
the size of the face nor the frame rate counts. A value that needs a frame without lips is left out, and `lips_seen`
says how many frames had them; a track lies within one shot, so no cut is taken for motion.
Landmarks tremble by themselves: compare with the same figures of the reference video, not with zero.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ..landmarks import CORNERS, INNER_LOWER, INNER_UPPER, LIPS
from .base import Measure, MeasureError

_PERCENT, _SPEED = "% of box", "% of box/s"
_OWN = "second difference; ours"
_LMD, _LVD = "Chen et al. 2018, arXiv 1803.10404", "Zhou et al. 2020, arXiv 2004.12992"
MEASURES = (
    Measure("box_jitter", "box jitter", _PERCENT, 0, np.inf, "lower", _OWN),
    Measure("mouth_jitter", "mouth jitter", _PERCENT, 0, np.inf, "lower", _OWN),
    Measure("mouth_movement_speech", "lip movement in speech", _SPEED, 0, np.inf, "", "ours"),
    Measure("mouth_movement_silence", "lip movement in silence", _SPEED, 0, np.inf, "lower", "ours"),
    Measure("rest_ratio", "lip movement, silence / speech", "", 0, np.inf, "lower", "ours"),
    Measure("lmd", "LMD", _PERCENT, 0, np.inf, "lower", _LMD),
    Measure("lmd_velocity", "LVD", _SPEED, 0, np.inf, "lower", _LVD),
    Measure("lips_seen", "frames with lips", "", 0, 1, "higher", "coverage; ours"),
)


def validate(
    lips: np.ndarray,
    boxes: np.ndarray,
    speech: np.ndarray | None,
    fps: float | Fraction,
    reference_lips: np.ndarray | None = None,
    reference_boxes: np.ndarray | None = None,
) -> None:
    """Raise MeasureError where these are not the lips, boxes and speech flags of the same frames."""
    if lips.ndim != 3 or lips.shape[1:] != (len(LIPS), 2):
        raise MeasureError(f"Lips of shape {lips.shape} are not the {len(LIPS)} points of each frame, (T, 40, 2).")
    if not len(lips):
        raise MeasureError("There is no frame to measure: give at least one.")
    for whose, some in (("", boxes), ("reference's ", reference_boxes)):
        if some is None:
            continue
        if some.shape != (len(lips), 4):
            raise MeasureError(
                f"The {whose}boxes have the shape {some.shape}: {len(lips)} frames need as many, (T, 4)."
            )
        if ((some[:, 2:] - some[:, :2]) <= 0).any():
            raise MeasureError(f"One of the {whose}boxes has no area: give x0 y0 x1 y1 with x0 < x1 and y0 < y1.")
    if speech is not None and (speech.shape != (len(lips),) or speech.dtype != bool):
        raise MeasureError(
            f"The speech flags are {speech.dtype} of shape {speech.shape}: {len(lips)} frames need as many bools."
        )
    if reference_lips is not None and reference_lips.shape != lips.shape:
        raise MeasureError(
            f"The reference's lips have the shape {reference_lips.shape}, the generated ones {lips.shape}: cut both to "
            f"the same frames."
        )
    for some in (lips, boxes, reference_lips, reference_boxes):
        if some is not None and np.isinf(some).any():
            raise MeasureError("A point lies at infinity: where lips were not found, give NaN.")
    if not (np.isfinite(float(fps)) and fps > 0):
        raise MeasureError(f"A frame rate of {fps} is not one: give frames a second, more than 0.")


def _centre_side(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (T, 2) and mean sides (T, 1) of boxes (T, 4), pixels, float64."""
    boxes = boxes.astype(np.float64)
    return (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).mean(1, keepdims=True)


def box_jitter(boxes: np.ndarray) -> np.ndarray:
    """Length of the second difference of the box's centre: (T, 4) -> (T - 2,) per cent of its side, lower is better."""
    centre, side = _centre_side(boxes)
    return 100 * np.linalg.norm(np.diff(centre, n=2, axis=0) / side[1:-1], axis=1)


def mouth_jitter(lips: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The same of the mouth's centre within the box: -> (T - 2,) per cent of the side, lower is better.

    The centre is that of the corners: a mean over the lips would go down with every opening.
    """
    centre, side = _centre_side(boxes)
    mouth = (lips[:, CORNERS].mean(1, dtype=np.float64) - centre) / side
    return 100 * np.linalg.norm(np.diff(mouth, n=2, axis=0), axis=1)


def opening(lips: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Gap between the inner lips: (T, 40, 2), (T, 4) -> (T,) per cent of the side, 0 where closed."""
    gap = np.linalg.norm(lips[:, INNER_LOWER].astype(np.float64) - lips[:, INNER_UPPER], axis=1)
    return 100 * gap / _centre_side(boxes)[1][:, 0]


def movement(lips: np.ndarray, boxes: np.ndarray, fps: float | Fraction) -> np.ndarray:
    """How fast the lips open or close from each frame to the next: -> (T - 1,) per cent of the side per second."""
    return np.abs(np.diff(opening(lips, boxes))) * float(fps)


def mouth_shape(lips: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Lips about the mean of their points: (T, 40, 2), (T, 4) -> (T, 40, 2) float64, per cent of the side."""
    lips = lips.astype(np.float64)
    return 100 * (lips - lips.mean(1, keepdims=True)) / _centre_side(boxes)[1][:, None]


def lmd(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Landmark distance: mean over points of how far they lie apart, lower is better.

    reference, generated  (T, 40, 2) from `mouth_shape`
    returns               (T,) per cent of the side
    Chen et al. align the means of both contours, as here, but leave the size in pixels. A turned head still counts.
    """
    return np.linalg.norm(generated - reference, axis=2).mean(1)


def lmd_velocity(reference: np.ndarray, generated: np.ndarray, fps: float | Fraction) -> np.ndarray:
    """Landmark velocity difference: `lmd` of the changes from frame to frame: -> (T - 1,) per cent of the side/s."""
    return lmd(np.diff(reference, axis=0), np.diff(generated, axis=0)) * float(fps)


class MotionSums:
    """Sums and counts over any number of tracks; `result` divides them."""

    def __init__(self) -> None:
        self._sums = {m.name: [0.0, 0] for m in MEASURES if m.name != "rest_ratio"}

    def add(
        self,
        lips: np.ndarray,
        boxes: np.ndarray,
        speech: np.ndarray | None,
        fps: float | Fraction,
        reference_lips: np.ndarray | None = None,
        reference_boxes: np.ndarray | None = None,
    ) -> MotionSums:
        """Take one track, whole: jitter and movement need neighbours.

        lips, boxes      (T, 40, 2) and (T, 4) pixels, from LipTrack
        speech           (T,) bool, there is speech at this frame; None: not known. A change between a frame with
                         speech and one without belongs to neither: a mouth may close when the voice has ended
        reference_lips   the same frames of the reference video; None: no LMD
        reference_boxes  None: the same boxes
        Raises MeasureError; then nothing was taken.
        """
        validate(lips, boxes, speech, fps, reference_lips, reference_boxes)
        self._add("box_jitter", box_jitter(boxes))
        self._add("mouth_jitter", mouth_jitter(lips, boxes))
        self._add("lips_seen", np.isfinite(lips).all((1, 2)).astype(float))
        if speech is not None:
            moved = movement(lips, boxes, fps)
            self._add("mouth_movement_speech", moved[speech[1:] & speech[:-1]])
            self._add("mouth_movement_silence", moved[~speech[1:] & ~speech[:-1]])
        if reference_lips is not None:
            reference = mouth_shape(reference_lips, boxes if reference_boxes is None else reference_boxes)
            generated = mouth_shape(lips, boxes)
            self._add("lmd", lmd(reference, generated))
            self._add("lmd_velocity", lmd_velocity(reference, generated, fps))
        return self

    def _add(self, name: str, values: np.ndarray) -> None:
        told = values[~np.isnan(values)]
        self._sums[name][0] += float(told.sum())
        self._sums[name][1] += len(told)

    def result(self) -> dict[str, float | None]:
        """Every name of MEASURES; None where no frame could tell, or nothing moved in speech to be compared with."""
        found = {name: total / count if count else None for name, (total, count) in self._sums.items()}
        speech, silence = found["mouth_movement_speech"], found["mouth_movement_silence"]
        found["rest_ratio"] = silence / speech if speech and silence is not None else None
        return {m.name: found[m.name] for m in MEASURES}


def evaluate(
    lips: np.ndarray,
    boxes: np.ndarray,
    speech: np.ndarray | None,
    fps: float | Fraction,
    reference_lips: np.ndarray | None = None,
    reference_boxes: np.ndarray | None = None,
) -> dict[str, float | None]:
    """All measures of one track; arguments as `MotionSums.add`. Raises MeasureError."""
    return MotionSums().add(lips, boxes, speech, fps, reference_lips, reference_boxes).result()
