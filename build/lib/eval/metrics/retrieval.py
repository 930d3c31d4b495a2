"""Speech2Vid's retrieval test: does a generated video find the voice it was made from among all the others?

Each of N videos ranks all N voices by distance (arXiv 1705.02966; embeddings from a sync network, theirs SyncNet's).
A guess is right by chance once in N, so the chance stands beside each share. Ties count against: what makes all voices
equally near has found none, and a constant network must not look better than chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Measure, MeasureError

FIRST = 5  # places of the wider recall
_SOURCE = "arXiv 1705.02966; protocol.md section 2"
MEASURES = (
    Measure("recall_at_1", "voice found first", "", 0, 1, "higher", _SOURCE),
    Measure("recall_at_5", "voice among the first 5", "", 0, 1, "higher", _SOURCE),
    Measure("chance_at_1", "chance, first", "", 0, 1, "", "1 / N"),
    Measure("chance_at_5", "chance, first 5", "", 0, 1, "", "min(5, N) / N"),
    Measure("median_rank", "median rank of the voice", "", 1, np.inf, "lower", _SOURCE),
)


def validate(distance: np.ndarray) -> None:
    """Raise MeasureError where this is not a square of numbers."""
    if distance.ndim != 2 or distance.shape[0] != distance.shape[1] or not distance.size:
        raise MeasureError(
            f"Distances of shape {distance.shape} cannot be ranked: give (N, N), a row for each video and a column for "
            f"the voice of each, in the same order."
        )
    bad = int((~np.isfinite(distance)).sum())
    if bad:
        raise MeasureError(f"{bad} of {distance.size} distances are not numbers: leave out the clips without a score.")


def distances(video: Sequence[np.ndarray], audio: Sequence[np.ndarray]) -> np.ndarray:
    """Mean Euclidean distance of every video to every voice over their windows, start to start, without shifts.

    video    N arrays (n_i, D), embeddings of a clip's windows
    audio    N arrays (m_j, D), in the same order; the longer of a pair is cut at its end
    returns  (N, N) float64, row: video, column: voice; smaller is nearer
    Raises MeasureError where a clip has no window or another D.
    """
    widths = {a.shape[1] if a.ndim == 2 and len(a) else 0 for a in (*video, *audio)}
    if len(widths) > 1 or 0 in widths:
        raise MeasureError("Every clip needs at least one window, (n, D), and all of them the same D.")
    out = np.empty((len(video), len(audio)))
    for i, seen in enumerate(video):
        for j, heard in enumerate(audio):
            count = min(len(seen), len(heard))
            out[i, j] = np.linalg.norm(seen[:count].astype(np.float64) - heard[:count], axis=1).mean()
    return out


def ranks(distance: np.ndarray) -> np.ndarray:
    """The place of each video's own voice, 1..N, 1 is best: (N, N) -> (N,) int, how many are as near or nearer."""
    return (distance <= distance.diagonal()[:, None]).sum(1)


def evaluate(distance: np.ndarray) -> dict[str, float | None]:
    """Shares of videos whose voice is found, what chance would give, and the median rank, for (N, N) distances.

    Raises MeasureError.
    """
    validate(distance)
    count, place = len(distance), ranks(distance)
    return {
        "recall_at_1": float((place <= 1).mean()),
        "recall_at_5": float((place <= FIRST).mean()),
        "chance_at_1": 1 / count,
        "chance_at_5": min(FIRST, count) / count,
        "median_rank": float(np.median(place)),
    }
