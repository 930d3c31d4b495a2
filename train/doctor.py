"""Is this data fit to train on? `python -m train doctor DATA`: plain facts, then a short trial.

The trial trains an expert for some minutes on nine speakers in ten and asks it about the others. If it cannot tell true
sounds from false ones better than chance there, no generator will learn sync from this data; the usual reasons are an
offset between sound and picture, too few speakers, or sound that does not belong to the faces.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from .config import TrainingError
from .data.arrays import Arrays
from .data.shards import FPS
from .loop import Loop
from .metrics import CHANCE, interval
from .run import corrected
from .tasks.sync_expert import ExpertConfig, ExpertTask

FEWEST_SPEAKERS, FEWEST_MINUTES, SHORTEST_S = 10, 20, 1.0


def doctor(data: Path, splits: list[str], minutes: float = 10) -> dict:
    """Facts, warnings (sentences) and the trial's figures; minutes 0 leaves the trial out."""
    arrays = corrected(data, splits)
    facts = look(arrays)
    if minutes:
        facts["trial"] = trial(arrays, minutes)
        n, found = facts["trial"]["clips"], facts["trial"]["within_1"]
        low, high = interval(round(found * n), n)
        facts["trial"] |= {"interval": [round(low, 3), round(high, 3)], "chance": round(CHANCE, 3)}
        if low > CHANCE:
            facts["verdict"] = (
                "Sync can be learned from this data: speakers not trained on are told apart above chance."
            )
        else:
            facts["verdict"] = (
                "In this time no sync was learned that carries over to others: check the offsets, "
                "add speakers, or try for longer before training a generator."
            )
    return facts


def look(arrays: Arrays) -> dict:
    """Counts, and a sentence for each thing that will hurt."""
    seconds = np.array([c.frames for c in arrays.clips]) / FPS
    spoken = float(np.mean(np.concatenate([arrays.speech(i) for i in range(len(arrays.clips))])))
    loud = np.array([np.percentile(arrays.mel(i).mean(1), 90) for i in range(len(arrays.clips))])
    offsets = np.array([c.offset for c in arrays.clips])
    still = sum(
        float(np.abs(np.diff(arrays.landmarks(i)[:, 23:25, 1], axis=0)).mean()) < 0.02 for i in range(len(arrays.clips))
    )
    biggest = max(sum(seconds[i] for i in ids) for ids in arrays.speakers.values()) / seconds.sum()
    warnings = []
    if len(arrays.speakers) < FEWEST_SPEAKERS:
        warnings.append(
            f"{len(arrays.speakers)} speakers: an expert learns faces before lips; have at least {FEWEST_SPEAKERS}."
        )
    if seconds.sum() / 60 < FEWEST_MINUTES:
        warnings.append(f"{seconds.sum() / 60:.1f} minutes in all: have at least {FEWEST_MINUTES}.")
    if (seconds < SHORTEST_S).mean() > 0.2:
        warnings.append(f"{(seconds < SHORTEST_S).mean():.0%} of the clips are under {SHORTEST_S:g} s: too short.")
    if biggest > 0.5:
        warnings.append(f"One speaker has {biggest:.0%} of the time.")
    if (loud < -3).mean() > 0.1:
        warnings.append(f"{(loud < -3).mean():.0%} of the clips are nearly silent.")
    if still:
        warnings.append(f"In {still} clips the mouth hardly moves: pictures, or faces whose voice is another's.")
    return {
        "clips": len(arrays.clips),
        "speakers": len(arrays.speakers),
        "minutes": round(float(seconds.sum() / 60), 1),
        "seconds_a_clip": [round(float(v), 2) for v in np.percentile(seconds, (5, 50, 95))],
        "share_spoken": round(spoken, 3),
        "largest_speaker": round(float(biggest), 3),
        "shifted_clips": int((offsets != 0).sum()),
        "warnings": warnings,
    }


def trial(arrays: Arrays, minutes: float) -> dict:
    """Train a small expert on nine speakers in ten (clips, where there is one speaker), validate on the others."""
    names = sorted(arrays.speakers)
    if len(names) >= 4:
        aside = set(names[:: max(2, min(10, len(names) // 2))])
        learn, choose = arrays.only(lambda c: c.speaker not in aside), arrays.only(lambda c: c.speaker in aside)
    else:
        aside = {c.key for c in arrays.clips[::5]}
        learn, choose = arrays.only(lambda c: c.key not in aside), arrays.only(lambda c: c.key in aside)
    if not learn.clips or not choose.clips:
        raise TrainingError("The trial needs two clips at least: one to learn from, one to be asked about.")
    config = ExpertConfig(steps=100000, validate_every=100000, save_every=100000, warmup=50, aug_strength=0.5)
    with tempfile.TemporaryDirectory() as folder:
        return Loop(ExpertTask(config, learn, choose), config, Path(folder)).go(minutes)
