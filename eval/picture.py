"""Picture verdict: is a made mouth as sharp and as steady as the clip that it was made from?

No frame of the result has to belong to a frame of the source, so that any length rule may have been used: of each video
the mouth is compared with the same face between eyes and nose, and the two comparisons with one another. Everything is
looked at in the pasted frame at its native size.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import cv2
import numpy as np

from lipsync.blending import mouth_mask
from lipsync.faces.selection import main_track
from lipsync.faces.tracking import Track
from lipsync.geometry import CropRule, crop_face
from lipsync.media.reader import FrameReader, VideoInfo
from lipsync.progress import Monitor

from .clips import face_map
from .metrics.base import MeasureError

MOST = 120  # pairs of neighbouring frames that are looked at, spread over the video
LARGEST_PX = 512
SHARP, SOFT = 0.5, 0.2  # sharpness at which a mouth is called sharp, and soft; below it is poor
RESTLESS = 2.5  # flicker at which a mouth is called restless
UPPER = (slice(0.16, 0.42), slice(0.2, 0.8))  # rows and columns of the crop between brow and nose


@dataclass(frozen=True)
class Picture:
    """How the mouth of a result looks beside its source's.

    sharpness  of the mouth against the rest of the face (variances of the Laplacian), result over source: 1 as there
    flicker    change of fine lines from frame to frame, the same way; None where the source is a still picture
    grade      sharp, soft or poor; restless where it flickers
    """

    sharpness: float
    flicker: float | None
    grade: str

    def record(self) -> dict:
        """As JSON takes it."""
        return asdict(self)


def compare(source: VideoInfo, result: VideoInfo, monitor: Monitor | None = None) -> Picture:
    """The verdict on the main face of a result. Raises InputError, MeasureError (no face), Cancelled."""
    monitor = monitor or Monitor()
    before, after = (_profile(info, monitor) for info in (source, result))
    sharpness = after[0] / max(before[0], 1e-6)
    flicker = None if before[1] is None or after[1] is None else after[1] / max(before[1], 1e-6)
    grade = "sharp" if sharpness >= SHARP else "soft" if sharpness >= SOFT else "poor"
    if grade == "sharp" and flicker is not None and flicker > RESTLESS:
        grade = "restless"
    return Picture(round(sharpness, 3), None if flicker is None else round(flicker, 3), grade)


def _profile(info: VideoInfo, monitor: Monitor) -> tuple[float, float | None]:
    """Sharpness and flicker of the mouth against the face above it, medians over frames."""
    faces = face_map(info, "mediapipe", monitor)
    if not faces.tracks:
        raise MeasureError("{file} shows no face whose picture could be judged.", file=info.path.name)
    track = main_track(faces.tracks)
    at = [i for i in range(track.start, track.stop) if track.has(i)]
    firsts = at[:: max(len(at) // MOST, 1)]
    size = int(np.clip(track.size_px, 96, LARGEST_PX))
    sharp, restless, before = [], [], None
    with FrameReader(info, [(i, min(i + 2, faces.frames)) for i in _apart(firsts)]) as reader:
        wanted = [k for i in _apart(firsts) for k in range(i, min(i + 2, faces.frames))]
        for index, frame in zip(wanted, reader, strict=False):
            monitor.step(f"picture of {info.path.name}", index, faces.frames)
            if not track.has(index):
                continue
            lines, mouth = _lines(frame, track, index, size)
            above = lines[_places(UPPER[0], size), _places(UPPER[1], size)]
            sharp.append(float(lines[mouth].var()) / max(float(above.var()), 1e-3))
            if before is not None and before[0] == index - 1:
                change = np.abs(lines - before[1])
                upper = change[_places(UPPER[0], size), _places(UPPER[1], size)]
                restless.append(float(change[mouth].mean()) / max(float(upper.mean()), 1e-3))
            before = index, lines
    if not sharp:
        raise MeasureError("No frame of {file} with the face could be read.", file=info.path.name)
    return float(np.median(sharp)), float(np.median(restless)) if restless else None


def _apart(firsts: list[int]) -> list[int]:
    """Those that are two frames or more from the one before."""
    out: list[int] = []
    for i in firsts:
        if not out or i >= out[-1] + 2:
            out.append(i)
    return out


def _places(share: slice, size: int) -> slice:
    return slice(int(share.start * size), int(share.stop * size))


def _lines(frame: np.ndarray, track: Track, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The Laplacian of the face's luma at its native size, and where the mouth lies in it."""
    i = index - track.start
    place = CropRule().alignment(track.boxes[i])
    grey = cv2.cvtColor(crop_face(frame, place, size), cv2.COLOR_RGB2GRAY)
    return cv2.Laplacian(grey, cv2.CV_32F), mouth_mask(track.landmarks[i], place, 0.04, size) > 0.6
