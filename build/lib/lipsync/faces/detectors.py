"""The eyes of tracking.py: face detectors behind one small interface, the face mesh, the shot finder.

A detector has a `name`, `detect(frame) -> list[Detection]`, `close()`, and `longest_px`: callers give it pictures whose
longest side is no longer (`shrink`). Put another one into DETECTORS.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from ..media.reader import Frame

SHOT_PX = 192  # longest side of the picture that the shot finder sees


def height(box: np.ndarray) -> float:
    """Height of a box x0 y0 x1 y1, at least one pixel."""
    return float(max(box[3] - box[1], 1.0))


@dataclass(frozen=True)
class Detection:
    """One face of one picture: box (4,) float32 x0 y0 x1 y1 in pixels, score 0..1."""

    box: np.ndarray
    score: float


_HUSHED = threading.Lock()  # two at once would keep each other's nowhere as the standard error


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep mediapipe's start-up chatter, which it writes past Python, off the standard error."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    with _HUSHED:
        sys.stderr.flush()
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


class MediapipeDetector:
    """mediapipe's full-range face detector; a second look with a wide border finds faces that fill the picture."""

    name = "mediapipe"
    longest_px = 512

    def __init__(self, min_score: float = 0.5) -> None:
        with _hushed():
            from mediapipe.python.solutions.face_detection import FaceDetection

            self._net = FaceDetection(model_selection=1, min_detection_confidence=min_score)
            self._net.process(np.zeros((64, 64, 3), np.uint8))

    def detect(self, frame: Frame) -> list[Detection]:
        """Faces of one picture, (H, W, 3) uint8 RGB, largest first."""
        found = self._look(frame)
        if not found:
            pad = max(frame.shape[:2]) // 4
            bordered = cv2.copyMakeBorder(frame, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
            found = [Detection(d.box - pad, d.score) for d in self._look(bordered)]
        return sorted(found, key=lambda d: -height(d.box))

    def _look(self, frame: Frame) -> list[Detection]:
        height, width = frame.shape[:2]
        out = []
        for hit in self._net.process(frame).detections or []:
            rel = hit.location_data.relative_bounding_box
            x, y, w, h = rel.xmin * width, rel.ymin * height, rel.width * width, rel.height * height
            out.append(Detection(np.array([x, y, x + w, y + h], np.float32), float(hit.score[0])))
        return out

    def close(self) -> None:
        self._net.close()


class S3FDDetector:
    """The detector of the published scoring; runs where `python -m lipsync fetch s3fd` has put its file."""

    name = "s3fd"
    longest_px = math.inf  # it makes the picture four times smaller by itself, as published

    def __init__(self) -> None:
        from ..checkpoints import registry

        self._net = registry.load("s3fd")

    def detect(self, frame: Frame) -> list[Detection]:
        """Faces of one picture, (H, W, 3) uint8 RGB, best first: the published tracks depend on that order."""
        boxes, scores = self._net.detect(frame)
        return [Detection(np.asarray(b, np.float32), float(s)) for b, s in zip(boxes, scores, strict=True)]

    def close(self) -> None:
        pass


DETECTORS = {"mediapipe": MediapipeDetector, "s3fd": S3FDDetector}


class Mesh:
    """mediapipe's face mesh on one face: looks into a window that follows the face, returns (468, 2) points or None."""

    def __init__(self) -> None:
        with _hushed():
            from mediapipe.python.solutions.face_mesh import FaceMesh

            self._net = FaceMesh(static_image_mode=False, max_num_faces=1, min_detection_confidence=0.3)
            self._net.process(np.zeros((64, 64, 3), np.uint8))
        self._window: np.ndarray | None = None  # centre x, centre y, half side

    def __call__(self, frame: Frame, box: np.ndarray) -> np.ndarray | None:
        x, y, half = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 0.8 * height(box)
        old = self._window
        if old is None or max(abs(x - old[0]), abs(y - old[1])) > 0.2 * old[2] or not 0.8 < half / old[2] < 1.25:
            if old is not None:
                self._net.reset()
            self._window = old = np.array([x, y, half])
        chip = cut_square(frame, old[0], old[1], old[2], 256)
        hit = self._net.process(chip).multi_face_landmarks
        if not hit:
            return None
        points = np.array([(p.x, p.y) for p in hit[0].landmark], np.float32)
        return (points * 2 - 1) * old[2] + old[:2].astype(np.float32)

    def forget(self) -> Mesh:
        """Make it ready for another face."""
        self._net.reset()
        self._window = None
        return self

    def close(self) -> None:
        self._net.close()


def cut_square(frame: Frame, x: float, y: float, half: float, size_px: int) -> Frame:
    """Resize the square of centre (x, y) and half side `half` (pixels) to (size_px, size_px, 3); edges replicated."""
    scale = size_px / (2 * half)
    move = np.array([[scale, 0, (half - x) * scale], [0, scale, (half - y) * scale]], np.float32)
    # Where the picture shrinks, pixels are averaged, not skipped: INTER_AREA is not to be had in a warp.
    if scale < 0.5:
        k = int(1 / scale)
        x0, y0 = max(int(x - half) - k, 0), max(int(y - half) - k, 0)
        part = frame[y0 : max(int(y + half) + k, y0 + 1), x0 : max(int(x + half) + k, x0 + 1)]
        if part.size:
            frame = cv2.blur(part, (k, k))
            move[:, 2] += scale * np.array([x0, y0], np.float32)
    return cv2.warpAffine(frame, move, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def shrink(frame: Frame, longest_px: float) -> Frame:
    """The picture with its longest side at most `longest_px`."""
    scale = longest_px / max(frame.shape[:2])
    if scale >= 1:
        return frame
    size = (max(round(frame.shape[1] * scale), 1), max(round(frame.shape[0] * scale), 1))
    return cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)


class ShotFinder:
    """PySceneDetect's content detector on small pictures, one frame at a time."""

    def __init__(self, fps: Fraction, min_frames: int = 5) -> None:
        from scenedetect import ContentDetector, FrameTimecode
        from scenedetect.detectors.content_detector import FlashFilter

        self._timecode, self._fps = FrameTimecode, float(fps)
        self._detector = ContentDetector(threshold=30, min_scene_len=min_frames, filter_mode=FlashFilter.Mode.SUPPRESS)

    def is_cut(self, index: int, frame: Frame) -> bool:
        """Does a new shot begin with this frame? Frames must come in order."""
        # The detector wants BGR, but all it uses is differences of hue, saturation and value, which do not care.
        return (
            bool(self._detector.process_frame(self._timecode(index, self._fps), shrink(frame, SHOT_PX))) and index > 0
        )
