"""The tables of face detectors and landmark models, S3FD, and the shot finder.

Another detector or landmark model is a class of base.py's contracts and a line in DETECTORS or LANDMARKS.
"""

from __future__ import annotations

import math
from fractions import Fraction
from importlib.metadata import version

import numpy as np

from ..media.reader import Frame
from .base import Detection, FaceDetector, LandmarkModel, shrink
from .mediapipe import MediapipeDetector, MediapipeMesh

SHOT_PX = 192  # longest side of the picture that the shot finder sees


class S3FDDetector(FaceDetector):
    """The detector of the published scoring; runs where `python -m lipsync fetch s3fd` has put its file."""

    name = "s3fd"
    longest_px = math.inf  # it makes the picture four times smaller by itself, as published

    def __init__(self) -> None:
        from ..checkpoints import registry

        self._net = registry.load("s3fd")

    @classmethod
    def version(cls) -> str:
        from ..checkpoints import registry

        return f"{registry.cards()[cls.name].sha256[:16]} torch {version('torch')}"

    def detect(self, frame: Frame) -> list[Detection]:
        """Faces of one picture, (H, W, 3) uint8 RGB, best first: the published tracks depend on that order."""
        boxes, scores = self._net.detect(frame)
        return [Detection(np.asarray(b, np.float32), float(s)) for b, s in zip(boxes, scores, strict=True)]


DETECTORS: dict[str, type[FaceDetector]] = {"mediapipe": MediapipeDetector, "s3fd": S3FDDetector}
LANDMARKS: dict[str, type[LandmarkModel]] = {"mediapipe": MediapipeMesh}


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
