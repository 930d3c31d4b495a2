"""The three ways to score sync, each with its name and a hash of its settings; they are never put into one column.

Source: protocol.md section 5. `real-video` is the published pipeline for videos as they are, `lrs` the published one
for videos that are face crops already, `short` is ours, for clips too short for the others.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from fractions import Fraction

from lipsync.faces import detectors, tracking

from . import crops, tracks
from .metrics import sync
from .metrics.base import MeasureError

FPS = Fraction(25)
SAMPLES = 640  # of 16 kHz sound that belong to one frame
FRAMES = 5  # of a window
SILENT = 1e-3  # peak below which there is no sound to compare with, full scale 1
VERSION = 2  # of the arithmetic; it goes into every hash


@dataclass(frozen=True)
class Protocol:
    """How a clip becomes windows, and windows become scores."""

    name: str
    faces: str  # "published": tracks of eval.tracks; "steady": the engine's own; "whole": the frame is the face
    shifts: int  # frames tried to each side
    padded: bool  # zeros beyond the ends of the sound, as published
    min_frames: int  # of a track, or of the clip where there are none

    def with_shifts(self, shifts: int | None) -> Protocol:
        """The same protocol at another number of shifts; its hash says so. Raises MeasureError below 1 or above 100."""
        if shifts is None:
            return self
        if not 1 <= shifts <= 100:
            raise MeasureError("Shifts to each side must lie between 1 and 100, not {shifts}.", shifts=shifts)
        return replace(self, shifts=shifts)

    def detector(self, name: str) -> str:
        """What a row calls the detector: "none" where the frame is the face."""
        return "none" if self.faces == "whole" else name

    def sha(self, detector: str, evaluator) -> str:
        """Twelve digits that change with any setting which could change a number (the weights have their sha256).

        evaluator  an eval.syncnet.Evaluator
        """
        settings = asdict(self) | {
            "version": VERSION,
            "detector": self.detector(detector),
            "fps": str(FPS),
            "silent": SILENT,
            "judge": [evaluator.fast, evaluator.size_px, evaluator.unit],  # hashed: its name of before stays
            "sync": [sync.FEWEST_PAIRS, sync.SURE, sync.RESAMPLES, sync.BLOCK, sync.CONFIDENCE_MEDIAN],
            "crop": [crops.SCALE, crops.PADDING],
        }
        if self.faces != "whole":
            known = detectors.DETECTORS.get(detector)  # where there is none, the row says so
            settings["versions"] = [known.version() if known else ""]
        if self.faces == "published":
            settings["tracks"] = [
                tracks.MIN_OVERLAP,
                tracks.MAX_GAP,
                tracks.MIN_DETECTIONS,
                tracks.MIN_SIDE_PX,
                tracks.MEDIAN,
                tracks.MIN_SHOT,
                tracks.MIN_SCENE,
                detectors.SHOT_PX,
                tracking.SMALL_PX,
            ]
        if self.faces == "steady":
            steps = tracking.DETECT_EVERY, tracking.FOLLOW_EVERY, tracking.BRIDGE, tracking.FORGET
            settings["tracks"] = [tracking.SMALL_PX, *steps, tracking.MIN_FRAMES, detectors.SHOT_PX, *tracking.BOX]
            settings["versions"] += [detectors.LANDMARKS["mediapipe"].version()]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def windows(frames: int, frames_heard: int) -> int:
    """How many windows so many frames of a face give, so many of them with sound; as published, one is left out."""
    return max(min(frames, frames_heard) - FRAMES, 0)


PROTOCOLS = {
    "real-video": Protocol("real-video", "published", shifts=15, padded=True, min_frames=tracks.MIN_DETECTIONS),
    "lrs": Protocol("lrs", "whole", shifts=15, padded=True, min_frames=FRAMES + 1),
    # 20 frames give 15 windows; 7 shifts leave eight pairs at the furthest.
    "short": Protocol("short", "steady", shifts=7, padded=False, min_frames=20),
}


def protocol(name: str) -> Protocol:
    """A protocol by its name. Raises MeasureError."""
    if name not in PROTOCOLS:
        raise MeasureError(
            "There is no protocol {name!r}: choose one of {choices}.", name=name, choices=", ".join(PROTOCOLS)
        )
    return PROTOCOLS[name]
