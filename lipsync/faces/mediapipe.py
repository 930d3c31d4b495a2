"""MediaPipe's face detectors and 468-point face mesh: its published networks (models/, Apache-2.0), run in OpenVINO.

Their arithmetic follows the graphs that come with them (face_detection_full_range, face_detection_short_range,
face_landmark_front); docs/log.md says how near the numbers are. One thread and float32 everywhere, so that they
neither change with the processor's kind of bfloat16 nor take the cores from other stages.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..compiled import compiled
from ..media.reader import Frame
from .base import Detection, FaceDetector, LandmarkModel, cut_square, height
from .landmarks import COUNT, LEFT_EYE, RIGHT_EYE

MODELS = Path(__file__).parent / "models"  # package data
DETECTOR, NEAR_DETECTOR = "face_detection_full_range_sparse", "face_detection_short_range"
MESH, MESH_PX = "face_landmark", 192
MIN_OVERLAP = 0.3  # intersection over union from which two detections are one face
MIN_SCORE, NEAR_MIN_SCORE = 0.5, 0.3  # of the two detectors
WINDOW = 0.8  # box heights from the middle of the window in which a face is looked for to its edge
REGION = 1.5  # of what the mesh sees, over the larger side of the face

_COMPILED: dict = {}
_COMPILING = threading.Lock()


def _request(name: str):
    """An OpenVINO request of one network, for one user; the compiled network is shared by all."""
    with _COMPILING:
        if name not in _COMPILED:
            _COMPILED[name] = compiled(
                MODELS / f"{name}.tflite",
                INFERENCE_PRECISION_HINT="f32",
                INFERENCE_NUM_THREADS=1,
                ENABLE_CPU_PINNING=False,  # two processes would be pinned to the same core
            )
        return _COMPILED[name].create_infer_request()


@functools.cache
def _version(*names: str) -> str:
    sums = [hashlib.sha256((MODELS / f"{name}.tflite").read_bytes()).hexdigest()[:16] for name in names]
    settings = f"{MIN_SCORE} {NEAR_MIN_SCORE} {MIN_OVERLAP} {WINDOW} {REGION}"
    return " ".join([*sums, settings, f"openvino {version('openvino')}"])


class _Anchored:
    """One of the two detectors: pictures (S, S, 3) to faces, each as centre, size and six points."""

    def __init__(self, name: str, size_px: int, grids: tuple[tuple[int, int], ...], min_score: float) -> None:
        """grids: stride in pixels and anchors a cell, in the network's order."""
        self.size_px, self._min_score, self._request = size_px, min_score, _request(name)
        anchors = []
        for stride, count in grids:
            middles = (np.arange(size_px // stride) + 0.5) * stride / size_px
            cells = np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)
            anchors.append(np.repeat(cells, count, axis=0))
        self._anchors = np.concatenate(anchors).astype(np.float32)

    def __call__(self, picture: Frame) -> list[tuple[np.ndarray, float]]:
        """Best first: ((8, 2) float32 centre, size, right eye, left eye, ... in parts of the side, score)."""
        boxes, logits = self._request.infer([picture[None].astype(np.float32) / 127.5 - 1]).values()
        scores = 1 / (1 + np.exp(-np.clip(logits.ravel(), -80, 80)))
        hits = np.flatnonzero(scores >= self._min_score)
        hits = hits[np.argsort(-scores[hits], kind="stable")]
        faces, scores = boxes[0, hits].reshape(-1, 8, 2) / self.size_px, scores[hits]
        faces[:, 0] += self._anchors[hits]
        faces[:, 2:] += self._anchors[hits][:, None]
        found = []
        while len(faces):  # what overlaps with the best is one face with it: the mean, weighted by scores
            same = _overlaps(faces[0], faces) > MIN_OVERLAP
            same[0] = True
            found.append((np.average(faces[same], axis=0, weights=scores[same]), float(scores[0])))
            faces, scores = faces[~same], scores[~same]
        return found


def _overlaps(face: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Intersection over union of one face's box with each of (N, 8, 2)."""
    low = np.maximum(face[0] - face[1] / 2, faces[:, 0] - faces[:, 1] / 2)
    high = np.minimum(face[0] + face[1] / 2, faces[:, 0] + faces[:, 1] / 2)
    shared = np.clip(high - low, 0, None).prod(1)
    return shared / np.maximum(face[1].prod() + faces[:, 1].prod(1) - shared, 1e-9)


class MediapipeDetector(FaceDetector):
    """MediaPipe's full-range detector; a second look with a wide border finds faces that fill the picture."""

    name = "mediapipe"
    longest_px = 512

    def __init__(self, min_score: float = MIN_SCORE) -> None:
        self._net = _Anchored(DETECTOR, 192, ((4, 1),), min_score)

    @classmethod
    def version(cls) -> str:
        return _version(DETECTOR)

    def detect(self, frame: Frame) -> list[Detection]:
        """Faces of one picture, (H, W, 3) uint8 RGB, largest first."""
        found = self._look(frame)
        if not found:
            pad = max(frame.shape[:2]) // 4
            bordered = cv2.copyMakeBorder(frame, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
            found = [Detection(d.box - pad, d.score) for d in self._look(bordered)]
        return sorted(found, key=lambda d: -height(d.box))

    def _look(self, frame: Frame) -> list[Detection]:
        tall, wide = frame.shape[:2]
        side, size = max(tall, wide), self._net.size_px
        left, top = (side - wide) / 2, (side - tall) / 2  # black bars make it square
        scale = size / side
        move = np.array([[scale, 0, left * scale], [0, scale, top * scale]], np.float32)
        square = cv2.warpAffine(frame, move, (size, size), flags=cv2.INTER_LINEAR)
        out = []
        for face, score in self._net(square):
            centre, half = face[0] * side - (left, top), face[1] * side / 2
            out.append(Detection(np.concatenate([centre - half, centre + half]).astype(np.float32), score))
        return out


class _Region(NamedTuple):
    """A square of the frame that the mesh sees: centre and half side in pixels, angle in radians, right to down."""

    x: float
    y: float
    half: float
    angle: float

    def strays(self, x: float, y: float, half: float) -> bool:
        """Is it about another place than the window of this centre and half side?"""
        return max(abs(x - self.x), abs(y - self.y)) > 0.4 * half or not 0.5 < self.half / half < 2

    def points(self, parts: np.ndarray) -> np.ndarray:
        """Points (N, 2) in parts of the square's side, in pixels of the frame."""
        out, (c, s) = (2 * parts - 1) * self.half, (np.cos(self.angle), np.sin(self.angle))
        return (out @ np.array([[c, s], [-s, c]]) + (self.x, self.y)).astype(np.float32)


class MediapipeMesh(LandmarkModel):
    """MediaPipe's face mesh on one face: sees a region that follows it, found by the short-range detector at first."""

    name = "mediapipe"

    def __init__(self) -> None:
        self._near = _Anchored(NEAR_DETECTOR, 128, ((8, 2), (16, 6)), NEAR_MIN_SCORE)
        self._mesh = _request(MESH)
        self._region: _Region | None = None

    @classmethod
    def version(cls) -> str:
        return _version(NEAR_DETECTOR, MESH)

    def find(self, frame: Frame, box: np.ndarray) -> np.ndarray | None:
        x, y, half = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2, WINDOW * height(box)
        points = None
        if self._region is not None and not self._region.strays(x, y, half):
            points = self._fitted(frame, self._region)
        if points is None and (seen := self._seen(frame, _Region(x, y, half, 0.0))) is not None:
            points = self._fitted(frame, seen)
        self._region = None if points is None else _around(points)
        return points

    def forget(self) -> None:
        self._region = None

    def _seen(self, frame: Frame, window: _Region) -> _Region | None:
        """Where the short-range detector sees the face in a window."""
        found = self._near(cut_square(frame, *window[:3], self._near.size_px))
        if not found:
            return None
        centre, size, right_eye, left_eye = found[0][0][:4]
        (x, y), across = window.points(centre[None])[0], left_eye - right_eye
        return _Region(float(x), float(y), REGION * float(size.max()) * window.half, float(np.arctan2(*across[::-1])))

    def _fitted(self, frame: Frame, region: _Region) -> np.ndarray | None:
        """The mesh on a region of the frame, None where no face is in it."""
        picture = cut_square(frame, *region[:3], MESH_PX, region.angle)
        mesh, presence = self._mesh.infer([picture[None].astype(np.float32) / 255]).values()
        if presence.item() <= 0:  # a logit: as published, a score of a half
            return None
        return region.points(mesh.reshape(COUNT, 3)[:, :2] / MESH_PX)


def _around(points: np.ndarray) -> _Region:
    """The region of the next look."""
    low, high = points.min(0), points.max(0)
    x, y = (low + high) / 2
    across = points[LEFT_EYE[0]] - points[RIGHT_EYE[0]]
    half = max(REGION * float((high - low).max()) / 2, 1.0)
    return _Region(float(x), float(y), half, float(np.arctan2(across[1], across[0])))
