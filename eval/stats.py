"""How sure is a number? Intervals for any statistic over clips, and for shares.

`bootstrap` draws clips with replacement; where clips share a speaker they are not independent, and whole groups are
drawn instead, which makes the interval wider and honest. Both are scipy's percentile bootstrap, of places in an array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from .metrics.base import MeasureError

Interval = tuple[float, float]


def validate(values: np.ndarray, groups: np.ndarray | None = None, n: int = 2000, level: float = 0.95) -> None:
    """Raise MeasureError where values, groups, number of draws or level cannot be used."""
    if values.ndim != 1:
        raise MeasureError(f"Values of shape {values.shape} are not one number for each clip.")
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise MeasureError(f"{bad} of {len(values)} values are not numbers: leave out the clips without a score.")
    if groups is not None and groups.shape != values.shape:
        raise MeasureError(f"{len(values)} values have groups of shape {groups.shape}: give each value its own.")
    if n < 1:
        raise MeasureError(f"{n} draws give no interval: 2000 are usual.")
    if not 0 < level < 1:
        raise MeasureError(f"A level of {level} is not a share between 0 and 1: 0.95 is usual.")


def bootstrap(
    values: Sequence[float] | np.ndarray,
    groups: Sequence | np.ndarray | None = None,
    statistic: Callable[[np.ndarray], float] = np.mean,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval | None:
    """The percentile bootstrap's interval of a statistic.

    values     (N,), one for each clip
    groups     (N,), names or numbers of identities: these are drawn, and the values of those drawn pooled
    statistic  from values (M,) to a number
    n, seed    draws, and the seed that makes them the same each time
    level      share of intervals that hold the truth, if there are many clips; of few, fewer do
    returns    (low, high); None of fewer than two clips, or two groups
    Raises MeasureError.
    """
    values = np.asarray(values, np.float64)
    groups = None if groups is None else np.asarray(groups)
    validate(values, groups, n, level)
    if groups is None:
        count = len(values)

        def drawn(places: np.ndarray) -> float:
            return statistic(values[places])
    else:
        names, member = np.unique(groups, return_inverse=True)
        pools, count = [values[member == g] for g in range(len(names))], len(names)

        def drawn(places: np.ndarray) -> float:
            return statistic(np.concatenate([pools[p] for p in places]))

    if count < 2:
        return None
    found = stats.bootstrap(
        (np.arange(count),),
        drawn,
        n_resamples=n,
        batch=100,
        vectorized=False,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def wilson(hits: int, n: int, level: float = 0.95) -> Interval | None:
    """Wilson's interval of a share, hits of n: (low, high) within 0..1; None where n is 0. Raises MeasureError."""
    if not 0 <= hits <= n:
        raise MeasureError(f"{hits} hits of {n} is not a share: hits lie between 0 and n.")
    if not 0 < level < 1:
        raise MeasureError(f"A level of {level} is not a share between 0 and 1: 0.95 is usual.")
    if not n:
        return None
    found = stats.binomtest(int(hits), int(n)).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def bootstrap_ratio(sums: np.ndarray, counts: np.ndarray, n: int = 2000, seed: int = 0) -> np.ndarray:
    """Draws of the means of many systems at once: of groups drawn with replacement, the sums over the counts.

    For a mean this is `bootstrap` with groups, from their sums alone; every system is given the same draws, so that
    differences between columns are draws of the difference.

    sums, counts  (K, G): of K systems over G groups (speakers), zero where a system has none of a group
    returns       (n, K), NaN where a draw has no clip of a system, and everywhere of fewer than two groups
    Raises MeasureError.
    """
    sums, counts = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    if sums.ndim != 2 or sums.shape != counts.shape:
        raise MeasureError(f"Sums of shape {sums.shape} and counts of {counts.shape} must both be (systems, groups).")
    systems, groups = sums.shape
    if groups < 2:
        return np.full((n, systems), np.nan)
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), n).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (drawn @ sums.T) / (drawn @ counts.T)
    return np.where(np.isfinite(found), found, np.nan)
