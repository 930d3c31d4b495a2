"""The lip contours of a tracked face, frame by frame: the loader of motion.py.

The landmark model looks at every frame of the track (the pipeline itself looks at every second one and smooths),
so that a trembling mouth is seen to tremble. Frames stream; nothing but the points is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lipsync.faces.base import LandmarkModel
from lipsync.faces.detectors import LANDMARKS
from lipsync.faces.landmarks import (
    INNER_CONTOUR,
    INNER_CORNERS,
    LOWER_LIP,
    MOUTH_CORNERS,
    OUTER_LIPS,
    UPPER_LIP,
)
from lipsync.faces.tracking import FaceMap, Track, box_from_points
from lipsync.media.reader import Frame

from .metrics.base import MeasureError

LIPS = OUTER_LIPS + INNER_CONTOUR
CORNERS = [LIPS.index(point) for point in MOUTH_CORNERS + INNER_CORNERS]  # places in LIPS
INNER_UPPER, INNER_LOWER = LIPS.index(UPPER_LIP), LIPS.index(LOWER_LIP)


@dataclass(frozen=True)
class LipTrack:
    """The lips of one track.

    start  first frame
    lips   (T, 40, 2) float32, pixels, in the order of LIPS; NaN where the face was not found
    boxes  (T, 4) float32, x0 y0 x1 y1, pixels, each from the points of its own frame: the track's are interpolated and
           smoothed, so a head that trembles is not seen to tremble in them; NaN where lips are
    seen   (T,) bool, lips are there
    """

    start: int
    lips: np.ndarray
    boxes: np.ndarray
    seen: np.ndarray


class LipWatcher:
    """Looks at the lips of one track while its video passes, frame by frame.

    Call `look` for every frame of the video in order, then `result`; `close` in the end.
    """

    def __init__(self, track: Track, landmarks: str = "mediapipe") -> None:
        self.track = track
        length = track.stop - track.start
        self._lips = np.full((length, len(LIPS), 2), np.nan, np.float32)
        self._boxes = np.full((length, 4), np.nan, np.float32)
        self._model = LANDMARKS[landmarks]()
        self._count = 0

    def look(self, index: int, frame: Frame) -> np.ndarray | None:
        """The points (468, 2) of the track's face in frame `index`, None where it is not found."""
        self._count = index + 1
        if not self.track.has(index):
            return None
        points = _look(self._model, frame, self.track, index)
        if points is not None:
            at = index - self.track.start
            self._lips[at], self._boxes[at] = points[LIPS], box_from_points(points)
        return points

    def result(self) -> LipTrack:
        """What was seen. Raises MeasureError where no frame of the track passed."""
        if self._count <= self.track.start:
            raise MeasureError(
                f"The face {self.track.number} appears in frame {self.track.start}, but the video has "
                f"only {self._count} frames."
            )
        return LipTrack(self.track.start, self._lips, self._boxes, ~np.isnan(self._lips[:, 0, 0]))

    def close(self) -> None:
        """Let go of the landmark model."""
        self._model.close()


def lips_of(frames: Iterable[Frame], faces: FaceMap, number: int = 0, landmarks: str = "mediapipe") -> LipTrack:
    """Look at the lips of one face.

    frames  (H, W, 3) uint8 RGB from the video's first frame on; read up to the track's last one. Frames that are
            missing at the end count as not seen
    faces   the FaceMap of this video, or of the one it was made from: the head is in the same place
    number  of the track in it
    landmarks  a name in LANDMARKS
    Raises MeasureError where there is no such track, or no frame of it.
    """
    track = next((t for t in faces.tracks if t.number == number), None)
    if track is None:
        known = ", ".join(str(t.number) for t in faces.tracks) or "none"
        raise MeasureError(f"There is no face with the number {number}: the video has {known}.")
    watcher = LipWatcher(track, landmarks)
    try:
        for index, frame in enumerate(frames):
            watcher.look(index, frame)
            if index + 1 == track.stop:
                break
    finally:
        watcher.close()
    return watcher.result()


def _look(model: LandmarkModel, frame: Frame, track: Track, index: int) -> np.ndarray | None:
    """The points of one frame, None where it finds no face or another one."""
    box = track.boxes[index - track.start]
    points = model.find(frame, box)
    if points is None:
        return None
    astray = np.abs(box_from_points(points) - box).max() > 0.5 * (box[3] - box[1])
    return None if astray else points
