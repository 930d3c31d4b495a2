"""What people's answers say: preferences, scales, the mismatching task, and how far measures agree with them.

Everything is computed from votes, in three tables (one row a vote, pandas):

    preferences  rater item left right answer      answer: left, right, tie or both_bad; left and right name systems
    scores       rater item system value           value: 0 .. 5, whole numbers
    mismatches   rater item system correct         correct: the rater found the video with the right speech

Votes of one rater are alike, and votes on one item are alike, so every interval is clustered both ways: the variance
is that of whole raters drawn, plus that of whole items drawn, less that of single votes drawn (Cameron, Gelbach and
Miller 2011), which counts what both share once. Drawing both at the same time would count it three times.
Bradley-Terry has ties as Davidson's model (Newman 2023, by evalica); "both bad" counts as a tie in the ranking, and is
reported beside it.

statsmodels and torch are imported where they are used: the page, which shows votes, would start seconds later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import evalica
import krippendorff
import numpy as np
import pandas as pd
from evalica import Winner
from scipy import optimize, sparse, stats
from scipy.sparse.csgraph import connected_components

from .metrics.base import MeasureError
from .stats import bootstrap, wilson

ANSWERS = ("left", "right", "tie", "both_bad")
SCALE = tuple(range(6))  # 0 .. 5, as the paper's
LEVEL = 0.95
POWER = 0.8
MOST_VOTES = 1_000_000  # beyond it "never" is the honest word
PRIOR = 0.1  # virtual wins each way of every pair that met: keeps a system that won or lost everything finite
# Of the integral over a rater's severity, in standard deviations. Close together: a rater with a hundred votes is known
# to a fifth of one, which Gauss-Hermite's few nodes would miss (thresholds were 0.4 off with 21).
NODES = np.linspace(-4.5, 4.5, 91)

PREFERENCES = ("rater", "item", "left", "right", "answer")
SCORES = ("rater", "item", "system", "value")
MISMATCHES = ("rater", "item", "system", "correct")


def validate(votes: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise MeasureError where a table of votes lacks columns, is empty, or has answers that cannot be."""
    missing = [c for c in columns if c not in votes]
    if missing:
        raise MeasureError(
            "The votes have no column {missing}: give {choices}.",
            missing=", ".join(missing),
            choices=", ".join(columns),
        )
    if votes.empty:
        raise MeasureError("There are no votes yet.")
    if votes[list(columns)].isna().any(axis=None):
        raise MeasureError("Some votes have empty fields: leave out what was not answered.")
    if "answer" in columns:
        odd = set(votes["answer"]) - set(ANSWERS)
        if odd:
            raise MeasureError(
                "The answer {answer!r} is none of {choices}.", answer=sorted(odd)[0], choices=", ".join(ANSWERS)
            )
        same = votes["left"] == votes["right"]
        if same.any():
            raise MeasureError(
                "{system} was compared with itself: gold items do not count.", system=votes.loc[same, "left"].iloc[0]
            )
    if "value" in columns and not votes["value"].isin(SCALE).all():
        odd = votes.loc[~votes["value"].isin(SCALE), "value"].iloc[0]
        raise MeasureError(
            "The score {odd} is not on the scale {low} .. {high}.", odd=odd, low=SCALE[0], high=SCALE[-1]
        )


# Preferences ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """Systems by people's preference, best first.

    systems     (K,) names
    scores      (K,) log strengths about a mean of 0: where two differ by d, the better wins e^d times as often
    low, high   (K,) ends of their intervals
    covariance  (K, K) of the scores
    ranks       (K,) first and last place that a system may have: tests of all pairs, by Holm's correction
    parted      (K, K) bool: the test of this pair, so corrected, tells the two apart
    ties        Davidson's parameter: a vote on equals is a tie with chance ties / (1 + ties)
    votes       how many votes stand behind it; freedom: degrees of freedom of the intervals
    """

    systems: tuple[str, ...]
    scores: np.ndarray
    low: np.ndarray
    high: np.ndarray
    covariance: np.ndarray
    ranks: tuple[tuple[int, int], ...]
    parted: np.ndarray
    ties: float
    votes: int
    freedom: int

    def difference(self, a: str, b: str) -> tuple[float, float]:
        """By how much a stands above b, and the standard error of that."""
        i, j = self.systems.index(a), self.systems.index(b)
        variance = self.covariance[i, i] + self.covariance[j, j] - 2 * self.covariance[i, j]
        return float(self.scores[i] - self.scores[j]), float(np.sqrt(max(variance, 0)))

    def table(self) -> pd.DataFrame:
        """One row a system: score, low, high, rank (as "2" or "2-4")."""
        named = [f"{a}" if a == b else f"{a}-{b}" for a, b in self.ranks]
        columns = {"score": self.scores, "low": self.low, "high": self.high, "rank": named}
        return pd.DataFrame({"system": self.systems, **columns})


class _Cells:
    """Votes counted by outcome: for each pair of systems, wins of the first, wins of the second, and ties."""

    def __init__(self, votes: pd.DataFrame) -> None:
        self.systems = sorted(set(votes["left"]) | set(votes["right"]))
        code = {name: k for k, name in enumerate(self.systems)}
        left, right = votes["left"].map(code).to_numpy(), votes["right"].map(code).to_numpy()
        self._check(left, right)
        low, high = np.minimum(left, right), np.maximum(left, right)
        pairs, pair = np.unique(low * len(code) + high, return_inverse=True)
        first, second = np.divmod(pairs, len(code))
        tied = ~votes["answer"].isin(("left", "right")).to_numpy()
        winner = np.where(votes["answer"] == "left", left, right)
        self.cell = 3 * pair + np.where(tied, 2, np.where(winner == low, 0, 1))
        self.xs, self.ys = np.repeat(first, 3).tolist(), np.repeat(second, 3).tolist()
        self.winners = [Winner.X, Winner.Y, Winner.Draw] * len(pairs)
        self.counts = np.bincount(self.cell, minlength=len(self.xs)).astype(float)
        self._index = pd.RangeIndex(len(code))
        self._prior = np.tile([PRIOR, PRIOR, 0.0], len(pairs))

    def _check(self, left: np.ndarray, right: np.ndarray) -> None:
        n = len(self.systems)
        parts, part = connected_components(sparse.coo_matrix((np.ones(len(left)), (left, right)), (n, n)), False)
        if parts > 1:
            a, b = (self.systems[int(np.flatnonzero(part == p)[0])] for p in (0, 1))
            raise MeasureError(
                "No chain of votes leads from {a} to {b}, so they cannot be ranked: compare them.", a=a, b=b
            )

    def fit(self, counts: np.ndarray) -> tuple[np.ndarray, float]:
        """Log strengths (K,) about a mean of 0, and the tie parameter, of these counts of the cells."""
        found = evalica.newman(
            self.xs, self.ys, self.winners, index=self._index, weights=counts + self._prior, limit=1000
        )
        scores = np.log(found.scores.reindex(self._index).to_numpy())
        return scores - scores.mean(), float(found.v)

    def by(self, names: pd.Series) -> sparse.csr_matrix:
        """(groups, cells) how often each rater, or item, gave each outcome."""
        codes, levels = pd.factorize(names)
        return sparse.csr_matrix((np.ones(len(codes)), (codes, self.cell)), (len(levels), len(self.counts)))

    def draws(self, groups: sparse.csr_matrix | None, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, cells) counts of n draws with replacement: of whole groups, or (None) of single votes."""
        if groups is None:
            return rng.multinomial(int(self.counts.sum()), self.counts / self.counts.sum(), n).astype(float)
        count = groups.shape[0]
        taken = sparse.csr_matrix(rng.multinomial(count, np.full(count, 1 / count), n))
        return np.asarray((taken @ groups).todense())


def rank(votes: pd.DataFrame, n: int = 500, seed: int = 0, level: float = LEVEL) -> Ranking:
    """Bradley-Terry scores with ties, with intervals clustered by rater and by item.

    votes    preferences (see the module)
    n, seed  bootstrap draws of each of the three kinds
    returns  Ranking, best first
    Raises MeasureError: no votes, wrong answers, systems that no chain of votes connects.
    """
    validate(votes, PREFERENCES)
    cells, rng = _Cells(votes), np.random.default_rng(seed)
    scores, ties = cells.fit(cells.counts)
    raters, items = cells.by(votes["rater"]), cells.by(votes["item"])
    parts = [_covariance(cells, groups, n, rng) for groups in (raters, items, None)]
    covariance = _two_way(*parts)
    freedom = _freedom(raters.shape[0], items.shape[0])
    half = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(np.diag(covariance))
    order = np.argsort(-scores, kind="stable")
    covariance = covariance[np.ix_(order, order)]
    parted = _parted(scores[order], covariance, freedom, 1 - level)
    ranks = tuple((int(1 + parted[:k, k].sum()), int(len(order) - parted[k, k + 1 :].sum())) for k in range(len(order)))
    return Ranking(
        systems=tuple(cells.systems[k] for k in order),
        scores=scores[order],
        low=(scores - half)[order],
        high=(scores + half)[order],
        covariance=covariance,
        ranks=ranks,
        parted=parted,
        ties=ties,
        votes=len(votes),
        freedom=freedom,
    )


def strengths(votes: pd.DataFrame) -> tuple[dict[str, float], float]:
    """Bradley-Terry scores alone, as `rank` has them: {system: log strength}, and ties. Raises MeasureError."""
    validate(votes, PREFERENCES)
    cells = _Cells(votes)
    scores, ties = cells.fit(cells.counts)
    return dict(zip(cells.systems, map(float, scores), strict=True)), ties


def _covariance(cells: _Cells, groups: sparse.csr_matrix | None, n: int, rng: np.random.Generator) -> np.ndarray:
    if groups is not None and groups.shape[0] < 2:
        return np.zeros((len(cells.systems),) * 2)  # one rater or one item: nothing can be said of others
    return np.cov(np.array([cells.fit(counts)[0] for counts in cells.draws(groups, n, rng)]).T).reshape(
        (len(cells.systems),) * 2
    )


def _two_way(raters: np.ndarray, items: np.ndarray, single: np.ndarray) -> np.ndarray:
    """raters + items - single, never narrower than either alone: of few clusters the difference is rough."""
    values, vectors = np.linalg.eigh(raters + items - single)
    both = (vectors * np.maximum(values, 0)) @ vectors.T
    least = np.maximum(np.diag(raters), np.diag(items))
    return both + np.diag(np.maximum(least - np.diag(both), 0))


def _freedom(raters: int, items: int) -> int:
    """Degrees of freedom: of the smaller of the two kinds of clusters that there are several of, less one."""
    return max(1, min(k for k in (raters, items, 10**6) if k > 1) - 1)


def _parted(scores: np.ndarray, covariance: np.ndarray, freedom: int, alpha: float) -> np.ndarray:
    """(K, K) bool: which pairs are told apart, by Holm's correction over all of them."""
    from statsmodels.stats.multitest import multipletests

    first, second = np.triu_indices(len(scores), 1)
    found = np.zeros(covariance.shape, bool)
    if len(first):
        variances = np.diag(covariance)[first] + np.diag(covariance)[second] - 2 * covariance[first, second]
        away = (scores[first] - scores[second]) / np.sqrt(np.maximum(variances, 1e-12))
        sure = multipletests(2 * stats.t.sf(np.abs(away), freedom), alpha, method="holm")[0]
        found[first, second] = found[second, first] = sure
    return found


def win_matrix(votes: pd.DataFrame) -> pd.DataFrame:
    """(K, K) share of votes that the row's system won against the column's, ties as halves; NaN: never met."""
    validate(votes, PREFERENCES)
    systems = sorted(set(votes["left"]) | set(votes["right"]))
    points = votes["answer"].map({"left": 1.0, "right": 0.0}).fillna(0.5)
    both = pd.concat(
        [
            pd.DataFrame({"row": votes["left"], "column": votes["right"], "points": points}),
            pd.DataFrame({"row": votes["right"], "column": votes["left"], "points": 1 - points}),
        ]
    )
    return both.pivot_table("points", "row", "column", "mean").reindex(systems, columns=systems)


def shares(votes: pd.DataFrame) -> pd.DataFrame:
    """Per item and system, the share of its comparisons that it won, ties as halves: columns item system value n."""
    validate(votes, PREFERENCES)
    points = votes["answer"].map({"left": 1.0, "right": 0.0}).fillna(0.5)
    halves = [
        pd.DataFrame({"item": votes["item"], "system": votes[side], "value": p})
        for side, p in (("left", points), ("right", 1 - points))
    ]
    grouped = pd.concat(halves).groupby(["item", "system"])["value"]
    return grouped.agg(value="mean", n="size").reset_index()


def answer_counts(votes: pd.DataFrame) -> pd.DataFrame:
    """One row a system: votes, won, lost, tie, both_bad (how often it stood in such a vote)."""
    validate(votes, PREFERENCES)
    rows = []
    for system in sorted(set(votes["left"]) | set(votes["right"])):
        there = votes[(votes["left"] == system) | (votes["right"] == system)]
        won = (there["answer"] == "left") & (there["left"] == system)
        won |= (there["answer"] == "right") & (there["right"] == system)
        tie, bad = (there["answer"] == "tie").sum(), (there["answer"] == "both_bad").sum()
        lost = len(there) - won.sum() - tie - bad
        rows.append(
            {"system": system, "votes": len(there), "won": won.sum(), "lost": lost, "tie": tie, "both_bad": bad}
        )
    return pd.DataFrame(rows)


def votes_to_part(ranking: Ranking, a: str, b: str, power: float = POWER, level: float = LEVEL) -> int | None:
    """How many votes more, of the study as a whole, until two systems part with that chance, if they differ as now.

    returns  0: they have parted; None: more than a million. New votes are taken to be like those that are there:
             of new raters and new items in the same proportion.
    """
    apart, error = ranking.difference(a, b)
    count = len(ranking.systems)
    if ranking.parted[ranking.systems.index(a), ranking.systems.index(b)]:
        return 0
    if not apart:
        return None
    alpha = (1 - level) / (count * (count - 1) / 2)  # Holm's first step: what the last pair to part must pass at most
    reach = stats.t.isf(alpha / 2, ranking.freedom) + stats.norm.ppf(power)
    needed = ranking.votes * (reach * error / apart) ** 2
    return int(np.ceil(needed - ranking.votes)) if needed <= MOST_VOTES else None


def votes_to_flip(votes: pd.DataFrame) -> dict[str, object]:
    """How few votes carry the first place.

    returns  first, second; flipped: votes for the first that would have to be against it; dropped: votes won by the
             first that would have to be absent. None where no number is enough. Votes between first and second go
             first, then those of the first against others.
    """
    validate(votes, PREFERENCES)
    cells = _Cells(votes)
    order = np.argsort(-cells.fit(cells.counts)[0])
    first, second = int(order[0]), int(order[1])
    xs, ys = np.array(cells.xs), np.array(cells.ys)
    kind = np.arange(len(xs)) % 3
    won = np.flatnonzero(((xs == first) & (kind == 0)) | ((ys == first) & (kind == 1)))
    won = won[np.argsort((xs[won] + ys[won] - first) != second, kind="stable")]
    most = int(cells.counts[won].sum())

    def falls(k: int, flip: bool) -> bool:
        counts, left = cells.counts.copy(), k
        for cell in won:
            taken = min(left, counts[cell])
            counts[cell] -= taken
            if flip:
                counts[cell + (1 if kind[cell] == 0 else -1)] += taken
            left -= taken
        scores = cells.fit(counts)[0]
        return scores[first] < np.delete(scores, first).max()

    found = {}
    for name, flip in (("flipped", True), ("dropped", False)):
        low, high = 0, most
        if not falls(most, flip):
            found[name] = None
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if falls(middle, flip) else (middle, high)
        found[name] = high
    return {"first": cells.systems[first], "second": cells.systems[second], **found}


# Effects of side and order -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """One tested effect: its size, interval and p; `unit` says of what."""

    name: str
    size: float
    low: float
    high: float
    p: float
    n: int
    unit: str


def side_effect(votes: pd.DataFrame, level: float = LEVEL) -> Effect:
    """Does the left video win because it is on the left? Log odds of a decided vote for the left, between equals.

    A logistic regression on which systems stand where, its intercept the side, errors clustered by rater.
    Raises MeasureError.
    """
    import statsmodels.api as sm

    validate(votes, PREFERENCES)
    decided = votes[votes["answer"].isin(("left", "right"))]
    if decided["answer"].nunique() < 2:
        raise MeasureError(
            "All {count} decided votes are for one side: no side effect can be told.", count=len(decided)
        )
    systems = sorted(set(decided["left"]) | set(decided["right"]))
    design = np.stack([(decided["left"] == s).astype(float) - (decided["right"] == s) for s in systems[1:]], 1)
    won = (decided["answer"] == "left").to_numpy(float)
    model = sm.GLM(won, sm.add_constant(design, has_constant="add"), family=sm.families.Binomial())
    return _tested("side", model, decided["rater"], 0, level, "log odds for the left")


def order_effect(votes: pd.DataFrame, level: float = LEVEL) -> Effect:
    """Do answers drift during a session? The change from its first tenth to its last, clustered by rater.

    votes    scores with a column `order` (position in the session): points of the scale, systems apart; or
             preferences with it: log odds of a tie or "both bad"
    Raises MeasureError.
    """
    import statsmodels.api as sm

    validate(votes, ("rater", "order"))
    place = votes["order"].rank(pct=True).to_numpy()
    if "value" in votes:
        design = np.column_stack([place, pd.get_dummies(votes["system"]).to_numpy(float)])
        return _tested("order", sm.OLS(votes["value"].to_numpy(float), design), votes["rater"], 0, level, "points")
    tied = votes["answer"].isin(("tie", "both_bad")).astype(float).to_numpy()
    if not 0 < tied.mean() < 1:
        raise MeasureError("All votes are ties, or none is: no drift of ties can be told.")
    model = sm.GLM(tied, sm.add_constant(place), family=sm.families.Binomial())
    return _tested("order", model, votes["rater"], 1, level, "log odds of a tie")


def _tested(name: str, model, raters: pd.Series, at: int, level: float, unit: str) -> Effect:
    groups = pd.factorize(raters)[0]
    if groups.max() < 1:
        raise MeasureError("One rater alone shows no effect of {name}: more are needed.", name=name)
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": groups})
    size, error = float(fit.params[at]), float(fit.bse[at])
    half = stats.t.ppf((1 + level) / 2, groups.max()) * error
    p = float(2 * stats.t.sf(abs(size) / max(error, 1e-12), groups.max()))
    return Effect(name, size, size - half, size + half, p, len(groups), unit)


# Scales --------------------------------------------------------------------------------------------------------------


def screen(scores: pd.DataFrame, method: str = "bt500", least_correlation: float = 0.75) -> dict[str, str]:
    """Raters whose scores stand apart, with the reason: {rater: sentence}.

    method  bt500: ITU-R BT.500-14, annex 1: often (over 5 %) far from the others, and on both sides;
            p910: ITU-T P.910: correlation with the means of the others under `least_correlation`
    Clips with fewer than four scores say nothing of a rater. Raises MeasureError.
    """
    validate(scores, SCORES)
    stimulus = ["item", "system"]
    if method == "bt500":
        group = scores.groupby(stimulus)["value"]
        mean, sd = group.transform("mean"), group.transform("std")
        kurtosis = group.transform(lambda v: stats.kurtosis(v, fisher=False) if v.nunique() > 1 else np.nan)
        reach = sd * np.where(kurtosis.between(2, 4), 2, np.sqrt(20))
        known = (group.transform("size") >= 4) & (sd > 0)
        above = (scores["value"] >= mean + reach) & known
        below = (scores["value"] <= mean - reach) & known
        counts = pd.DataFrame({"rater": scores["rater"], "up": above, "down": below, "n": known}).groupby("rater").sum()
        far = counts["up"] + counts["down"]
        bad = counts[(far > 0.05 * counts["n"]) & ((counts["up"] - counts["down"]).abs() < 0.3 * far)]
        return {
            str(rater): f"{row.up + row.down} of {row.n} scores far from the others', on both sides (BT.500)"
            for rater, row in bad.iterrows()
        }
    if method != "p910":
        raise MeasureError("There is no screening {method!r}: bt500 or p910.", method=method)
    group = scores.groupby(stimulus)["value"]
    n = group.transform("size")
    others = (group.transform("sum") - scores["value"]) / (n - 1).clip(lower=1)
    table = pd.DataFrame({"rater": scores["rater"], "value": scores["value"], "others": others})[n >= 4]
    found = {}
    for rater, rows in table.groupby("rater"):
        if len(rows) < 8 or rows["others"].nunique() < 2:
            continue
        r = rows["value"].corr(rows["others"]) if rows["value"].nunique() > 1 else 0.0
        if r < least_correlation:
            found[str(rater)] = f"correlation {r:.2f} with the others' means, under {least_correlation} (P.910)"
    return found


def mos(scores: pd.DataFrame, level: float = LEVEL) -> pd.DataFrame:
    """Mean opinion score of each system: columns system mean low high n raters items; clustered by rater and item.

    Give scores of one question, after screening. Raises MeasureError.
    """
    validate(scores, SCORES)
    return _means(scores, scores["value"].to_numpy(float), level).sort_values(
        "mean", ascending=False, ignore_index=True
    )


def _means(votes: pd.DataFrame, values: np.ndarray, level: float) -> pd.DataFrame:
    """Means by system with two-way clustered errors (statsmodels): system mean low high n raters items error."""
    rows = []
    for system, there in votes.assign(_value=values).groupby("system"):
        y = there["_value"].to_numpy(float)
        groups = np.stack([pd.factorize(there[c])[0] for c in ("rater", "item")], 1)
        raters, items = (int(groups[:, k].max()) + 1 for k in (0, 1))
        error, freedom = _two_way_error(y, groups), _freedom(raters, items)
        half = stats.t.ppf((1 + level) / 2, freedom) * error
        rows.append(
            {
                "system": system,
                "mean": y.mean(),
                "low": y.mean() - half,
                "high": y.mean() + half,
                "n": len(y),
                "raters": raters,
                "items": items,
                "error": error,
            }
        )
    return pd.DataFrame(rows)


def _two_way_error(y: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of a mean, clustered both ways, never under that of either way alone, nor of single votes."""
    import statsmodels.api as sm

    if len(y) < 2 or not y.std():
        return 0.0
    model, ones = sm.OLS(y, np.ones(len(y))), [model_groups for model_groups in groups.T if model_groups.max() > 0]
    errors = [model.fit().bse[0]]
    errors += [model.fit(cov_type="cluster", cov_kwds={"groups": g}).bse[0] for g in ones]
    if len(ones) == 2:
        with np.errstate(
            invalid="ignore"
        ):  # of few clusters the difference may be under nothing: then it is passed over
            errors.append(model.fit(cov_type="cluster", cov_kwds={"groups": groups}).bse[0])
    return float(np.nanmax(errors))


@dataclass(frozen=True)
class OrdinalFit:
    """A cumulative logit model with a random severity for each rater.

    table       system effect low high p: log odds of a higher score, against the first system (by name), which has 0
    thresholds  (5,) between the steps of the scale, as used
    rater_sd    standard deviation of the raters' severities, log odds
    """

    table: pd.DataFrame
    thresholds: np.ndarray
    rater_sd: float
    log_likelihood: float


def ordinal(scores: pd.DataFrame, level: float = LEVEL) -> OrdinalFit:
    """Fit the scale as steps, not as metres: cumulative logit, fixed systems, random intercept by rater.

    statsmodels' OrderedModel has no random effects, and its mixed models no ordered answers; so the likelihood is
    written down here, integrated over the raters on a grid and maximised by scipy, with the
    derivatives of torch. Without rater effects it is OrderedModel's (a test compares them).
    Raises MeasureError: one system, one step of the scale, or no maximum found.
    """
    import torch

    validate(scores, SCORES)
    systems = sorted(scores["system"].unique())
    steps = np.sort(scores["value"].unique())
    if len(systems) < 2 or len(steps) < 2:
        raise MeasureError(
            "{systems} system and {scores} different scores leave nothing to compare.",
            systems=len(systems),
            scores=len(steps),
        )
    alike = scores.groupby(["rater", "system", "value"]).size().reset_index(name="n")  # the model tells them not apart
    y = torch.from_numpy(np.searchsorted(steps, alike["value"].to_numpy()))
    x = torch.from_numpy(pd.Categorical(alike["system"], systems).codes.astype(np.int64))
    rater = torch.from_numpy(pd.factorize(alike["rater"])[0].astype(np.int64))
    times = torch.from_numpy(alike["n"].to_numpy(float))[:, None]
    weights = stats.norm.pdf(NODES)
    nodes, log_weights = torch.from_numpy(NODES), torch.from_numpy(np.log(weights / weights.sum()))
    cuts, count, raters = len(steps) - 1, len(systems) - 1, int(rater.max()) + 1
    endless = torch.full((1,), torch.inf, dtype=torch.float64)

    def loss(p: torch.Tensor) -> torch.Tensor:
        cut = torch.cumsum(torch.cat([p[:1], torch.exp(p[1:cuts])]), 0)
        edges = torch.cat([-endless, cut, endless])
        effect = torch.cat([torch.zeros(1, dtype=torch.float64), p[cuts : cuts + count]])
        eta = effect[x][:, None] + torch.exp(p[-1]) * nodes  # (votes, nodes)
        chance = torch.sigmoid(edges[y + 1][:, None] - eta) - torch.sigmoid(edges[y][:, None] - eta)
        each = times * torch.log(chance.clamp_min(1e-300))
        whole = torch.zeros(raters, len(NODES), dtype=torch.float64).index_add(0, rater, each)
        return -torch.logsumexp(whole + log_weights, 1).sum()

    def value_and_slope(at: np.ndarray) -> tuple[float, np.ndarray]:
        p = torch.tensor(at, requires_grad=True)
        value = loss(p)
        value.backward()
        return float(value.detach()), p.grad.numpy()

    below = np.cumsum(np.bincount(y.numpy(), times[:, 0].numpy(), cuts + 1))[:-1] / len(scores)
    start = np.concatenate([_logit(below[:1]), np.log(np.diff(_logit(below))), np.zeros(count), [-0.5]])
    with _one_thread():
        found = optimize.minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    if not np.isfinite(found.fun):
        raise MeasureError("The ordinal model found no maximum: a system may have had the same score throughout.")
    with _one_thread():
        information = torch.autograd.functional.hessian(loss, torch.from_numpy(found.x)).numpy()
    errors = np.sqrt(np.clip(np.diag(np.linalg.pinv(information)), 0, None))[cuts : cuts + count]
    effect = found.x[cuts : cuts + count]
    half, p = stats.norm.ppf((1 + level) / 2) * errors, 2 * stats.norm.sf(np.abs(effect) / np.maximum(errors, 1e-12))
    table = pd.DataFrame({"system": systems, "effect": [0.0, *effect], "low": [0.0, *(effect - half)]})
    table["high"], table["p"] = [0.0, *(effect + half)], [np.nan, *p]
    thresholds = np.cumsum([found.x[0], *np.exp(found.x[1:cuts])])
    return OrdinalFit(table, thresholds, float(np.exp(found.x[-1])), -float(found.fun))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small tensors: on a busy machine several threads wait for each other ten times as long as they work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _logit(share: np.ndarray) -> np.ndarray:
    return np.log(share / (1 - share))


def agreement(
    scores: pd.DataFrame, measurement: str = "ordinal", n: int = 500, seed: int = 0
) -> tuple[float, tuple[float, float] | None]:
    """Krippendorff's alpha of the raters over clips, and its interval by drawing clips.

    scores       one row a score; `value` may be of any kind when `measurement` is nominal
    measurement  nominal, ordinal, interval or ratio
    returns      alpha (1: all agree, 0: as by chance), (low, high) or None of fewer than two clips
    Raises MeasureError where no clip has two scores, or all scores are the same.
    """
    unit = [c for c in ("item", "system") if c in scores]
    validate(scores, ("rater", *unit) if measurement == "nominal" else SCORES)
    counts = scores.groupby([*unit, "value"]).size().unstack(fill_value=0)
    domain = np.arange(counts.shape[1]) if measurement == "nominal" else counts.columns.to_numpy(float)
    table = counts.to_numpy()
    table = table[table.sum(1) > 1]
    if len(table) == 0 or (table.sum(0) > 0).sum() < 2:
        raise MeasureError("Agreement needs clips that two raters scored, and scores that differ.")

    def alpha(places: np.ndarray) -> float:
        there = table[places.astype(int)]
        used = there.sum(0) > 0
        if used.sum() < 2:
            return 1.0
        return krippendorff.alpha(
            value_counts=there[:, used], value_domain=domain[used], level_of_measurement=measurement
        )

    places = np.arange(len(table), dtype=float)
    return float(alpha(places)), bootstrap(places, statistic=alpha, n=n, seed=seed)


# The mismatching task ------------------------------------------------------------------------------------------------


def matched_share(votes: pd.DataFrame, level: float = LEVEL) -> pd.DataFrame:
    """Share of raters who found the video with the right speech: columns system share low high n p; 0.5 is blind.

    Wilson's interval of as many votes as the clustered ones are worth; p of a share of one half. Raises MeasureError.
    """
    validate(votes, MISMATCHES)
    correct = votes["correct"].to_numpy(bool).astype(float)
    rows = []
    for row in _means(votes, correct, level).itertuples():
        plain = np.sqrt(max(row.mean * (1 - row.mean), 1e-9) / row.n)
        worth = max(1, round(row.n * min(1.0, (plain / max(row.error, plain)) ** 2)))
        hits = round(row.mean * worth)
        low, high = wilson(hits, worth, level)
        p = stats.binomtest(hits, worth).pvalue
        rows.append({"system": row.system, "share": row.mean, "low": low, "high": high, "n": row.n, "p": float(p)})
    return pd.DataFrame(rows).sort_values("share", ascending=False, ignore_index=True)


# People and measures -------------------------------------------------------------------------------------------------


def correlate(people: pd.DataFrame, measures: pd.DataFrame, n: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Which measure should one trust? Rank correlation of people's answers with measures.

    people    item system value: means of scores, or `shares` of preferences
    measures  item system and one column a measure (LSE-D and the like); NaN where a clip has no number
    returns   measure level coefficient value low high n: level is clip (intervals by drawing items) or system (means;
              by drawing systems, of which there must be six); coefficient spearman or kendall
    Raises MeasureError where they share no clip.
    """
    names = [c for c in measures.columns if c not in ("item", "system")]
    both = people[["item", "system", "value"]].merge(measures, on=["item", "system"])
    if both.empty:
        raise MeasureError("People's answers and measures share no clip: items and systems must have the same names.")
    rows = []
    for name in names:
        known = both[["item", "system", "value", name]].dropna()
        means = known.groupby("system", as_index=False)[["value", name]].mean().assign(item=lambda t: t["system"])
        for where, table, least in (("clip", known, 8), ("system", means, 3)):
            if len(table) < least or table["value"].nunique() < 2 or table[name].nunique() < 2:
                continue
            people_, measured = table["value"].to_numpy(), table[name].to_numpy()
            for coefficient, function in (("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):

                def drawn(places: np.ndarray, f=function, a=people_, b=measured) -> float:
                    at = places.astype(int)
                    if np.ptp(a[at]) == 0 or np.ptp(b[at]) == 0:
                        return 0.0  # a draw of one clip over and over shows no relation
                    return float(f(a[at], b[at]).statistic)

                places = np.arange(len(table), dtype=float)
                enough = where == "clip" or len(table) >= 6
                interval = bootstrap(places, table["item"].to_numpy(str), drawn, n, seed) if enough else None
                low, high = interval or (None, None)
                rows.append(
                    {
                        "measure": name,
                        "level": where,
                        "coefficient": coefficient,
                        "value": drawn(places),
                        "low": low,
                        "high": high,
                        "n": len(table),
                    }
                )
    return pd.DataFrame(rows, columns=["measure", "level", "coefficient", "value", "low", "high", "n"])


# CREMA-D -------------------------------------------------------------------------------------------------------------


def read_crema_d(path) -> pd.DataFrame:
    """CREMA-D's finishedResponses.csv as votes: rater item channel emotion level, a row a response.

    channel   voice, face or both; emotion A D F H N S; level 0 .. 100 (NaN where none was given)
    Raises MeasureError where the columns are not those of the data set.
    """
    used = ["sessionNums", "clipName", "queryType", "respEmo", "respLevel"]
    try:
        table = pd.read_csv(path, usecols=used, low_memory=False)
    except (ValueError, OSError) as error:
        raise MeasureError(
            "{path} is not laid out as CREMA-D's finishedResponses.csv: {error}.", path=path, error=error
        ) from error
    channel = table["queryType"].map({1: "voice", 2: "face", 3: "both"})
    return pd.DataFrame(
        {
            "rater": table["sessionNums"].astype(str),
            "item": table["clipName"],
            "channel": channel,
            "emotion": table["respEmo"],
            "level": pd.to_numeric(table["respLevel"], errors="coerce"),
        }
    ).dropna(subset=["item", "channel", "emotion"])
