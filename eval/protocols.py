"""The three ways to score sync, each with its name and a hash of its settings; they are never put into one column.

Source: protocol.md section 5. `real-video` is the published pipeline for videos as they are, `lrs` the published one
for videos that are face crops already, `short` is ours, for clips too short for the others.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from fractions import Fraction

from . import crops, sync, tracks
from .catalogue import MeasureError

FPS = Fraction(25)
SAMPLES = 640  # of 16 kHz sound that belong to one frame
FRAMES = 5  # of a window
VERSION = 1  # of the arithmetic; it goes into every hash


@dataclass(frozen=True)
class Protocol:
    """How a clip becomes windows, and windows become scores."""

    name: str
    faces: str  # "published": tracks of eval.tracks; "steady": the engine's own; "whole": the frame is the face
    shifts: int  # frames tried to each side
    padded: bool  # zeros beyond the ends of the sound, as published
    min_frames: int  # of a track, or of the clip where there are none

    @property
    def windows_lost(self) -> int:
        """Windows are fewer than frames by this: the published count leaves the last one out."""
        return FRAMES

    def with_shifts(self, shifts: int | None) -> Protocol:
        """The same protocol at another number of shifts; its hash says so. Raises MeasureError below 1 or above 100."""
        if shifts is None:
            return self
        if not 1 <= shifts <= 100:
            raise MeasureError(f"Shifts to each side must lie between 1 and 100, not {shifts}.")
        return Protocol(self.name, self.faces, shifts, self.padded, self.min_frames)

    def sha(self, detector: str, fast: bool) -> str:
        """Twelve digits that change with any setting which could change a number."""
        settings = asdict(self) | {
            "version": VERSION, "detector": detector, "fast": fast, "fps": str(FPS),
            "tracks": [tracks.MIN_OVERLAP, tracks.MAX_GAP, tracks.MIN_DETECTIONS, tracks.MIN_SIDE_PX, tracks.MEDIAN,
                       tracks.MIN_SHOT],
            "crop": [crops.SCALE, crops.PADDING], "pairs": sync.FEWEST_PAIRS,
        }  # fmt: skip
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


PROTOCOLS = {
    "real-video": Protocol("real-video", "published", shifts=15, padded=True, min_frames=tracks.MIN_DETECTIONS),
    "lrs": Protocol("lrs", "whole", shifts=15, padded=True, min_frames=FRAMES + 1),
    # 20 frames give 15 windows; 7 shifts leave eight pairs at the furthest.
    "short": Protocol("short", "steady", shifts=7, padded=False, min_frames=20),
}


def protocol(name: str) -> Protocol:
    """A protocol by its name. Raises MeasureError."""
    if name not in PROTOCOLS:
        raise MeasureError(f"There is no protocol {name!r}: choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
