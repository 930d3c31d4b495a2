"""How far made mouths open: brought to the speaker's own range.

Small networks answer doubt with a mouth half open. What a network makes of a sound differs from what it makes of
silence in the shape of the mouth alone, so that difference times a gain is the same movement, wider. The gain of a
speaker is the least of GAINS that brings the lip gap's range, measured by landmarks on a few made pictures, to the
speaker's own.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np

from .audio import FEATURES
from .blending import widened
from .faces.base import LandmarkModel, height
from .faces.detectors import LANDMARKS
from .faces.landmarks import LANDMARK_IDS, lip_gap
from .faces.tracking import Track
from .progress import Monitor
from .render import Speaker, blend_one, network_inputs

GAINS = (1.0, 1.15, 1.3)  # beyond, shadows and the red under the lip burn out
ENOUGH = 0.9  # of the speaker's own range
SAMPLES = 16  # moments of the voice that are looked at
MOVES = 0.02  # range of a lip gap, in box heights, from which on somebody speaks: people in speech have 0.02 to 0.05
LEAST_FRAMES = 12  # of a track: shorter ones are left alone


def gap_range(landmarks: np.ndarray, sides: np.ndarray) -> float:
    """Range (10th to 90th percentile) of the lip gap of landmarks (T, K, 2), in face box heights (T,)."""
    return float(np.subtract(*np.percentile(lip_gap(landmarks) / sides, (90, 10))))


def aim(track: Track) -> float:
    """The range to be reached, that of the track's own lips; 0 where they do not show their owner speaking."""
    seen = track.seen
    own = gap_range(track.landmarks[seen], np.array([height(b) for b in track.boxes[seen]])) if seen.any() else 0.0
    return own if own >= MOVES else 0.0


def fit(speakers: list[Speaker], monitor: Monitor) -> None:
    """Set the opening of each speaker. Raises Cancelled."""
    with closing(LANDMARKS["mediapipe"]()) as mesh:
        for speaker in speakers:
            monitor.check()
            speaker.opening = fitting_gain(speaker, mesh)


def fitting_gain(speaker: Speaker, mesh: LandmarkModel) -> float:
    """The gain of one speaker, one of GAINS."""
    track, model = speaker.track, speaker.model
    wanted, pictures = ENOUGH * aim(track), track.reference_frames
    if not wanted or len(track.boxes) < LEAST_FRAMES or not pictures:
        return 1.0
    # One of its own: the choice of references has a memory.
    trial = Speaker(
        track, model, speaker.features, speaker.fps, replace(speaker.options, detail=False, occlusion=False)
    )
    frames = int(speaker.features.shape[1] / FEATURES[model.audio.feature].rate * speaker.fps)  # of the voice
    moments = np.unique(np.linspace(0, max(frames - 1, 0), SAMPLES).astype(int)).tolist()
    # Picture by picture: the mesh follows what hardly moves without finding it anew.
    turns = sorted((k % len(pictures), moment) for k, moment in enumerate(moments))
    shown = [pictures[k] for k, _ in turns]
    mouths = [
        trial.cut(r.patch, r.box, r.landmarks, 0, r.frame, moment) for r, (_, moment) in zip(shown, turns, strict=True)
    ]
    crops, references, windows = network_inputs(mouths)
    made = model.generate(crops, references, windows)
    rest = model.generate(crops, references, model.silent_windows(len(mouths)))
    for gain in GAINS:
        found, before = [], None
        for r, mouth, mouth.made in zip(shown, mouths, widened(made, rest, np.full(len(made), gain)), strict=True):
            patch = r.patch.copy()
            blend_one(patch, mouth, model.blend, Monitor())
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
