"""Face tracks as the published scoring makes them: greedy by overlap, gaps filled, crops steadied by a median.

Source: protocol.md section 5, items 2 to 4; tests/data/golden/tracks.json proves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import medfilt

MIN_OVERLAP = 0.5  # intersection over union of a box with its track's last one
MAX_GAP = 25  # frames
MIN_DETECTIONS = 100  # a track has more
MIN_SIDE_PX = 100  # mean side of its boxes is above
MEDIAN = 13  # frames of the median filter, zeros beyond the ends
MIN_SHOT = 100  # frames; shorter shots are skipped
MIN_SCENE = 15  # frames from one cut to the next, of PySceneDetect 0.5.1


@dataclass(frozen=True)
class FaceTrack:
    """One face through one shot: frames first .. first + T - 1.

    boxes  (T, 4) float, x0 y0 x1 y1 in pixels, gaps filled linearly
    crops  (3, T) float64: half side s, centre x and y of the evaluator's crop, pixels
    """

    first: int
    boxes: np.ndarray
    crops: np.ndarray

    @property
    def stop(self) -> int:
        """One past the last frame."""
        return self.first + len(self.boxes)


def published_tracks(detections: Sequence[Sequence[np.ndarray]], first: int = 0) -> list[FaceTrack]:
    """The tracks of one shot.

    detections  for each frame of the shot the boxes found in it, each (4,) x0 y0 x1 y1 in pixels
    first       frame number of the shot's first frame
    returns     tracks in the order in which the published code finds them

    Each pass walks over all frames and takes into one track every box that overlaps the track's last one; a box that
    comes too late ends the pass over its frame. Boxes are taken out of a frame's list while it is walked over, so the
    one after a box that joined waits for the next pass.
    """
    left = [[np.asarray(box, np.float64) for box in boxes] for boxes in detections]
    found = []
    while True:
        taken: list[tuple[int, np.ndarray]] = []
        for index, boxes in enumerate(left):
            place = 0
            while place < len(boxes):
                if taken and index - taken[-1][0] > MAX_GAP:
                    break
                if not taken or overlap(boxes[place], taken[-1][1]) > MIN_OVERLAP:
                    taken.append((index, boxes.pop(place)))  # the next box slides into this place and is skipped
                place += 1
        if not taken:
            return found
        if len(taken) > MIN_DETECTIONS:
            at = np.array([index for index, _ in taken])
            known = np.stack([box for _, box in taken])
            every = np.arange(at[0], at[-1] + 1)
            boxes = np.stack([np.interp(every, at, known[:, c]) for c in range(4)], 1)
            if max((boxes[:, 2:] - boxes[:, :2]).mean(0)) > MIN_SIDE_PX:
                found.append(FaceTrack(first + int(at[0]), boxes, steadied(boxes)))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1, 0..1."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    shared = float(sides.prod())
    return shared / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - shared)


def steadied(boxes: np.ndarray) -> np.ndarray:
    """Boxes (T, 4) -> half side, centre x, centre y of the crops, each median-filtered: (3, T) float64."""
    half = np.max(boxes[:, 2:] - boxes[:, :2], axis=1) / 2
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    return np.stack([medfilt(values.astype(np.float64), MEDIAN) for values in (half, x, y)])


def shot_tracks(detections: Sequence[Sequence[np.ndarray]], cuts: Iterable[int]) -> list[FaceTrack]:
    """The tracks of a whole video: `detections` of all frames, `cuts` the first frame of each shot but the first."""
    bounds = [0, *cuts, len(detections)]
    out = []
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        if stop - start >= MIN_SHOT:
            out += published_tracks(detections[start:stop], start)
    return out
