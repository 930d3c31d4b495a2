"""Do the lips shut where p, b and m are said? Closure: a measure without any evaluator, over a set of clips.

Whoever knows when these sounds are said (made voices tell, `lipsync.tts`) can look whether the lips meet. The gap
between them is compared with its own mean and spread within 0.24 s around: over a whole clip, rest would fill the low
ranks. On real speech the mean over all events dips 90 ms before the middle of the sound, between two openings
(docs/metrics.md); `shut` is its depth there. 0 says that the mouth does not know of these sounds. Of a single clip it
says nothing: 60 events or more do.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ..stats import bootstrap
from .base import Measure, MeasureError

BILABIALS = "pbm"
AROUND_S = 0.24  # to each side, that a gap is compared with
BEFORE_S = (0.12, 0.08, 0.04)  # before the middle of a sound, where lips are shut on real speech
APART_S = 0.12  # a sound that follows another closer is the same closure
FEWEST = 60  # events below which a figure is not one

MEASURES = (
    Measure(
        "closure",
        "closure at p b m",
        "spreads",
        -4,
        4,
        "higher",
        "own: docs/metrics.md",
    ),
)


def moments(phonemes: Sequence[tuple[str, float, float]]) -> np.ndarray:
    """The middles of p, b and m, seconds, of (symbol, start, end); of several in a row the first."""
    found: list[float] = []
    last = -np.inf
    for symbol, start, end in phonemes:
        if symbol[:1] and symbol[0] in BILABIALS:
            middle = (float(start) + float(end)) / 2
            if middle - last >= APART_S:
                found.append(middle)
            last = middle
    return np.array(found)


def validate(gap: np.ndarray, fps: float | Fraction) -> None:
    """Raise MeasureError where gaps are no (T,) or the rate is none."""
    if gap.ndim != 1:
        raise MeasureError("Gaps of shape {shape} are not one number for each frame.", shape=gap.shape)
    if not (np.isfinite(float(fps)) and fps > 0):
        raise MeasureError("A frame rate of {fps} is not one: give frames a second, more than 0.", fps=fps)


def against_neighbours(gap: np.ndarray, fps: float | Fraction) -> np.ndarray:
    """Each gap in spreads from the mean of those around: (T,) any unit, NaN where unseen -> (T,), NaN there."""
    validate(gap, fps)
    reach, out = max(round(AROUND_S * float(fps)), 1), np.full(len(gap), np.nan)
    for t in np.flatnonzero(~np.isnan(gap)):
        near = gap[max(t - reach, 0) : t + reach + 1]
        near = near[~np.isnan(near)]
        spread = near.std()
        out[t] = (gap[t] - near.mean()) / spread if spread > 1e-6 else 0.0
    return out


def shut(gap: np.ndarray, fps: float | Fraction, at_s: np.ndarray) -> np.ndarray:
    """How far below its neighbours the gap is at each event: (T,), times (N,) seconds -> (M,) spreads, M <= N.

    Events whose frames are outside the clip, or were not seen, are left out.
    """
    level = against_neighbours(gap, fps)
    places = (np.asarray(at_s, float)[:, None] - np.array(BEFORE_S)) * float(fps) - 0.5  # a frame shows its middle
    values = np.interp(places, np.arange(len(level)), level, left=np.nan, right=np.nan)
    return -values.mean(1)[~np.isnan(values).any(1)]


def evaluate(events: Sequence[np.ndarray]) -> dict[str, float | int | None]:
    """Of `shut` of each clip: closure, its 95 % interval (whole clips drawn), events and clips; None below FEWEST."""
    some = [clip for clip in events if len(clip)]
    count = sum(map(len, some))
    if count < FEWEST:
        return {"closure": None, "closure_low": None, "closure_high": None, "events": count, "clips": len(some)}
    groups = np.repeat(np.arange(len(some)), [len(clip) for clip in some])
    values = np.concatenate(some)
    low, high = bootstrap(values, groups) or (None, None)
    return {
        "closure": float(values.mean()),
        "closure_low": low,
        "closure_high": high,
        "events": count,
        "clips": len(some),
    }
