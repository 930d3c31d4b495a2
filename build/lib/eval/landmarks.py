"""The lip contours of a tracked face, frame by frame: the loader of motion.py.

mediapipe's face mesh looks at every frame of the track (the pipeline itself looks at every second one and smooths),
so that a trembling mouth is seen to tremble. Frames stream; nothing but the points is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lipsync.faces.detectors import Mesh
from lipsync.faces.tracking import FaceMap, Track, box_from_points
from lipsync.media.reader import Frame

from .metrics.base import MeasureError

# Points of mediapipe's 468-point mesh, both contours from the right corner (left in the picture) along the lower lip.
OUTER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
INNER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191]
LIPS = OUTER + INNER
CORNERS = [LIPS.index(61), LIPS.index(291), LIPS.index(78), LIPS.index(308)]  # places in LIPS
INNER_UPPER, INNER_LOWER = LIPS.index(13), LIPS.index(14)


@dataclass(frozen=True)
class LipTrack:
    """The lips of one track.

    start  first frame
    lips   (T, 40, 2) float32, pixels, in the order of LIPS; NaN where the mesh did not find the face
    boxes  (T, 4) float32, x0 y0 x1 y1, pixels, each from the mesh of its own frame: the track's are interpolated and
           smoothed, so a head that trembles is not seen to tremble in them; NaN where lips are
    seen   (T,) bool, lips are there
    """

    start: int
    lips: np.ndarray
    boxes: np.ndarray
    seen: np.ndarray


def lips_of(frames: Iterable[Frame], faces: FaceMap, number: int = 0) -> LipTrack:
    """Look at the lips of one face.

    frames  (H, W, 3) uint8 RGB from the video's first frame on; read up to the track's last one. Frames that are
            missing at the end count as not seen
    faces   the FaceMap of this video, or of the one it was made from: the head is in the same place
    number  of the track in it
    Raises MeasureError where there is no such track, or no frame of it.
    """
    track = next((t for t in faces.tracks if t.number == number), None)
    if track is None:
        known = ", ".join(str(t.number) for t in faces.tracks) or "none"
        raise MeasureError(f"There is no face with the number {number}: the video has {known}.")
    length = track.stop - track.start
    lips = np.full((length, len(LIPS), 2), np.nan, np.float32)
    boxes = np.full((length, 4), np.nan, np.float32)
    count, mesh = 0, Mesh()
    try:
        for index, frame in enumerate(frames):
            count = index + 1
            if track.has(index):
                points = _look(mesh, frame, track, index)
                if points is not None:
                    lips[index - track.start] = points[LIPS]
                    boxes[index - track.start] = box_from_points(points)
            if count == track.stop:
                break
    finally:
        mesh.close()
    if count <= track.start:
        raise MeasureError(f"The face {number} appears in frame {track.start}, but the video has only {count} frames.")
    return LipTrack(track.start, lips, boxes, ~np.isnan(lips[:, 0, 0]))


def _look(mesh: Mesh, frame: Frame, track: Track, index: int) -> np.ndarray | None:
    """The mesh's points of one frame, None where it finds no face or another one."""
    box = track.boxes[index - track.start]
    points = mesh(frame, box)
    if points is None:
        return None
    astray = np.abs(box_from_points(points) - box).max() > 0.5 * (box[3] - box[1])
    return None if astray else points
