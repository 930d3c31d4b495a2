"""Sync: how far mouth and sound are apart for the evaluator at each shift of the sound: offset, LSE-D, LSE-C.

Sources: Chung and Zisserman, "Out of time" (2016); arXiv 2008.10010, section 4; protocol.md section 5, item 6 (vectors
scores.npz, scores.json). The sound of shift s at window i is that of window i + s; a positive offset means that the
sound is early, and that delaying it by so many frames puts it right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import medfilt

from lipsync.messages import Message

from .base import Measure, MeasureError

EPSILON = 1e-6  # torch's pairwise_distance adds it to every difference
FEWEST_PAIRS = 8  # of windows at a shift, where no zeros are padded
CONFIDENCE_MEDIAN = 9  # frames of the filter over the confidence of each frame
SURE = 0.9  # certainty from which on an offset is named: docs/metrics.md says how often that is wrong
RESAMPLES, BLOCK = 400, 10  # of the block bootstrap behind `certainty`; windows a block

_SOURCE = "arXiv 2008.10010, section 4; protocol.md section 5"
MEASURES = (
    Measure("offset", "Offset", "frames of 40 ms", -15, 15, "", _SOURCE),
    Measure("lse_d", "LSE-D ({evaluator})", "", 0, np.inf, "lower", _SOURCE),
    Measure("lse_c", "LSE-C ({evaluator})", "", 0, np.inf, "higher", _SOURCE),
    Measure("certainty", "Certainty of the offset", "", 0, 1, "higher", "ours: docs/metrics.md"),
)


@dataclass(frozen=True)
class SyncScore:
    """What one track gave.

    curve       (2 v + 1,) mean distance at each shift of the sound, -v .. v frames; NaN: fewer than 8 pairs
    confidence  (N,) median of the curve minus each window's distance at the best shift, median-filtered
    """

    offset: int
    lse_d: float
    lse_c: float
    certainty: float
    curve: np.ndarray
    confidence: np.ndarray

    @property
    def sure(self) -> bool:
        """Is there an offset to name? Not at the last shift tried: the true one may lie beyond."""
        return self.certainty >= SURE and abs(self.offset) < len(self.curve) // 2


def doubt(certainty: float, shifts: int) -> Message:
    """Why no offset was named, after "the evaluator cannot tell the offset: "."""
    if certainty < SURE:
        return Message(
            "only {certainty:.0%} of resamples of its windows agree within a frame, {sure:.0%} are needed.",
            certainty=certainty,
            sure=SURE,
        )
    return Message(
        "the best shift is the last one tried, {shifts} frames, so the true one may lie beyond: try more (--shifts).",
        shifts=shifts,
    )


def fewest_windows(shifts: int, padded: bool) -> int:
    """How many windows a score needs."""
    return 1 if padded else shifts + FEWEST_PAIRS


def validate(video: np.ndarray, audio: np.ndarray, shifts: int, padded: bool) -> None:
    """Raise MeasureError unless embeddings video (N, D) and audio (M, D) can be scored at `shifts` to each side."""
    if video.ndim != 2 or audio.ndim != 2 or video.shape[1] != audio.shape[1]:
        raise MeasureError(
            "Embeddings of picture and sound are (N, D) each, not {video} and {audio}.",
            video=video.shape,
            audio=audio.shape,
        )
    if shifts < 1:
        raise MeasureError("At least one shift to each side is needed, not {shifts}.", shifts=shifts)
    windows, fewest = min(len(video), len(audio)), fewest_windows(shifts, padded)
    if windows < fewest:
        raise MeasureError(
            "Only {windows} windows of five frames: at {shifts} shifts to each side {fewest} are needed.",
            windows=windows,
            shifts=shifts,
            fewest=fewest,
        )
    if not (np.isfinite(video).all() and np.isfinite(audio).all()):
        raise MeasureError("The embeddings hold values that are not numbers: the network or its input is broken.")


def distance_rows(
    video: np.ndarray,
    audio: np.ndarray,
    first: int = 0,
    audio_first: int = 0,
    windows: int | None = None,
    shifts: int = 15,
    padded: bool = True,
) -> np.ndarray:
    """Distances of some windows to the sound at every shift; scores are made of such rows, so a video can stream by.

    video        (B, D): windows first .. first + B - 1
    audio        (M, D): sound of windows audio_first .. audio_first + M - 1; must reach `shifts` to both sides of them
    windows      windows in all (default: M, when all are given)
    padded       True: beyond its ends the sound is zeros, as published; False: such pairs do not exist
    returns      (B, 2 shifts + 1) float32, column k is shift k - shifts; NaN where there is no pair
    """
    windows = len(audio) if windows is None else windows
    out = np.full((len(video), 2 * shifts + 1), np.nan, np.float32)
    at = np.arange(first, first + len(video))
    for k in range(2 * shifts + 1):
        there = at + k - shifts
        inside = (there >= 0) & (there < windows)
        sound = np.zeros_like(video)
        sound[inside] = audio[there[inside] - audio_first]
        distance = np.linalg.norm(video - sound + np.float32(EPSILON), axis=1)
        out[:, k] = distance if padded else np.where(inside, distance, np.nan)
    return out


def score(rows: np.ndarray, certainty: bool = True) -> SyncScore:
    """Scores of one track from its distance rows (N, 2 v + 1)."""
    shifts = rows.shape[1] // 2
    curve = _means(rows)
    if np.isnan(curve).all():
        raise MeasureError(
            "Only {count} windows of five frames: no shift has the {fewest} pairs it needs.",
            count=len(rows),
            fewest=FEWEST_PAIRS,
        )
    best = int(np.nanargmin(curve))
    middle = float(np.nanmedian(curve))
    each = middle - np.where(np.isnan(rows[:, best]), middle, rows[:, best])
    return SyncScore(
        offset=shifts - best,
        lse_d=float(curve[best]),
        lse_c=middle - float(curve[best]),
        certainty=_certainty(rows, best) if certainty else float("nan"),
        curve=curve,
        # Zeros beyond the ends, as medfilt has them, but without its warning for fewer than nine windows.
        confidence=medfilt(np.pad(each.astype(np.float32), CONFIDENCE_MEDIAN), CONFIDENCE_MEDIAN)[
            CONFIDENCE_MEDIAN:-CONFIDENCE_MEDIAN
        ],
    )


def evaluate(video: np.ndarray, audio: np.ndarray, shifts: int = 15, padded: bool = True) -> dict[str, float | None]:
    """Embeddings of windows (N, D) and (M, D) -> every measure of MEASURES. Raises MeasureError."""
    validate(video, audio, shifts, padded)
    count = min(len(video), len(audio))  # as the published count of windows: what has both
    video, audio = video[:count], audio[:count]
    found = score(distance_rows(video, audio, shifts=shifts, padded=padded))
    return {
        "offset": found.offset if found.sure else None,
        "lse_d": found.lse_d,
        "lse_c": found.lse_c,
        "certainty": found.certainty,
    }


def _means(rows: np.ndarray) -> np.ndarray:
    """Mean of each column in float32, as the published code's; NaN where fewer than FEWEST_PAIRS pairs exist."""
    there = ~np.isnan(rows)
    count = there.sum(0)
    enough = count >= min(FEWEST_PAIRS, len(rows))
    return np.where(enough, np.where(there, rows, 0).sum(0) / np.maximum(count, 1), np.nan).astype(np.float32)


def _certainty(rows: np.ndarray, best: int) -> float:
    """Share of block-bootstrap resamples of the windows that put the best shift within one frame of `best`.

    Windows share frames with their neighbours, so blocks of them are drawn. The draws are the same every time.
    """
    rng, count = np.random.default_rng(0), len(rows)
    block = min(BLOCK, max(count // 4, 1))
    there = ~np.isnan(rows)
    totals, pairs = _blocks(np.where(there, rows, 0), block), _blocks(there, block)
    enough = there.sum(0) >= min(FEWEST_PAIRS, count)
    agree = 0
    for _ in range(RESAMPLES):  # one at a time: all at once would hold 400 times as much
        starts = rng.integers(0, count, -(-count // block))
        total, number = totals[starts].sum(0), pairs[starts].sum(0)
        means = np.where(enough & (number > 0), total / np.maximum(number, 1), np.inf)
        agree += abs(int(means.argmin()) - best) <= 1
    return agree / RESAMPLES


def _blocks(rows: np.ndarray, block: int) -> np.ndarray:
    """Sums over the `block` rows from each row on, the first following the last: (N, K) -> (N, K) float64."""
    wrapped = np.concatenate([rows, rows[: block - 1]])
    return np.lib.stride_tricks.sliding_window_view(wrapped, block, axis=0).sum(-1, dtype=np.float64)
