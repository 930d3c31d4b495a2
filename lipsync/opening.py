"""How far made mouths open: brought to the speaker's own range.

Small networks answer doubt with a mouth half open. What a network makes of a sound differs from what it makes of
silence in the shape of the mouth alone, so that difference times a gain is the same movement, wider. The gain of a
speaker is the least of GAINS that brings the lip gap's range, measured by landmarks on a few made pictures, to the
speaker's own.
"""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from .blending import match_colour, mouth_mask, paste
from .faces.base import LandmarkModel, height
from .faces.detectors import LANDMARKS
from .faces.landmarks import INNER_LIPS, LANDMARK_IDS
from .geometry import crop_face

if TYPE_CHECKING:
    from .faces.tracking import Track
    from .render import Speaker

GAINS = (1.0, 1.15, 1.3)  # beyond, shadows and the red under the lip burn out
ENOUGH = 0.9  # of the speaker's own range
SAMPLES = 16  # moments of the voice that are looked at
MOVES = 0.02  # range of a lip gap, in box heights, from which on somebody speaks: people in speech have 0.02 to 0.05
LEAST_FRAMES = 12  # of a track: shorter ones are left alone


def widened(made: np.ndarray, rest: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Pictures (B, S, S, 3) uint8 moved away from those made under silence: rest + gain (made - rest); gain (B,)."""
    rest = rest.astype(np.float32)
    moved = rest + np.asarray(gain, np.float32)[:, None, None, None] * (made - rest)
    return np.clip(moved + 0.5, 0, 255).astype(np.uint8)


def gap_range(landmarks: np.ndarray, sides: np.ndarray) -> float:
    """Range (10th to 90th percentile) of the lip gap of landmarks (T, K, 2), in face box heights (T,)."""
    gaps = np.linalg.norm(np.diff(landmarks[:, INNER_LIPS], axis=1)[:, 0], axis=1) / sides
    return float(np.subtract(*np.percentile(gaps, (90, 10))))


def aim(track: Track) -> float:
    """The range to be reached, that of the track's own lips; 0 where they do not show their owner speaking."""
    seen = track.seen
    own = gap_range(track.landmarks[seen], np.array([height(b) for b in track.boxes[seen]])) if seen.any() else 0.0
    return own if own >= MOVES else 0.0


def fit(speakers: list[Speaker], seconds: float, fps: Fraction) -> None:
    """Set the opening of each speaker of a voice of some seconds."""
    mesh = LANDMARKS["mediapipe"]()
    with closing(mesh):
        for speaker in speakers:
            speaker.opening = fitting_gain(speaker, int(seconds * fps), fps, mesh)


def fitting_gain(speaker: Speaker, frames: int, fps: Fraction, mesh: LandmarkModel) -> float:
    """The gain of one speaker, one of GAINS.

    frames  of the voice
    """
    track, model = speaker.track, speaker.model
    wanted = ENOUGH * aim(track)
    if not wanted or len(track.boxes) < LEAST_FRAMES or not track.reference_frames:
        return 1.0
    moments = np.unique(np.linspace(0, max(frames - 1, 0), SAMPLES).astype(int))
    # Pictures in turn, all moments of one together: the mesh follows what hardly moves without finding it anew.
    turns = np.sort(np.arange(len(moments)) % len(track.reference_frames))
    moments = moments[np.argsort(np.arange(len(moments)) % len(track.reference_frames), kind="stable")]
    shown = [track.reference_frames[k] for k in turns]
    places = [model.rule.alignment(r.box, r.landmarks, 0.0) for r in shown]
    crops = np.stack([crop_face(r.patch, p, model.size_px) for r, p in zip(shown, places, strict=True)])
    references = np.stack([speaker.reference(c, r.frame) for c, r in zip(crops, shown, strict=True)])
    windows = np.concatenate([model.windows(speaker.features, int(m), 1, fps) for m in moments])
    made = model.generate(crops, references, windows)
    rest = model.generate(crops, references, model.silent_windows(len(moments)))
    for gain in GAINS:
        found, before = [], None
        for r, place, crop, picture in zip(
            shown, places, crops, widened(made, rest, np.full(len(made), gain)), strict=True
        ):
            patch, mask = r.patch.copy(), mouth_mask(r.landmarks, place, 0.04, model.size_px)
            paste(patch, place, match_colour(picture, crop, mask), mask)
            if before is not r:
                mesh.forget()
                before = r
            if (points := mesh.find(patch, r.box)) is not None:
                found.append((points[LANDMARK_IDS], height(r.box)))
        if len(found) < LEAST_FRAMES:
            return 1.0
        if gap_range(np.stack([p for p, _ in found]), np.array([h for _, h in found])) >= wanted:
            break
    return gain
