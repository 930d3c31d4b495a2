"""Simulated raters with known preferences: does the method find the truth, and does it say how sure it is?

Honest raters choose by Davidson's model with a taste of their own for each system, on items that suit some systems
better than others. A tenth are not honest: some answer at random, some always the same, some push one system. The
truth that intervals must hold is that of the whole population of honest raters and items, not of those drawn.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import evalica
import numpy as np
import pandas as pd
from evalica import Winner

from eval import ratings

from .ballots import FAILED, NOT_MADE, PASSED, PREFERENCES, Seen, session
from .raters import Quality, assess
from .studies import Rule, Study

SPREAD = 2.0  # log strength of the best system above the worst
TIES = 0.35  # Davidson's: equals tie in 26 of 100 votes
TASTE, FIT = 0.35, 0.25  # standard deviations of a rater's taste, and of an item's, for each system
BOTH_BAD = 0.3  # share of ties
SEES_LATE, FOLLOWS, PLAYS = 0.93, 0.985, 0.99  # how often honest raters pass gold, a trap, and watch to the end
SAME_AGAIN = 0.55  # an honest rater remembers and answers alike; else answers anew
KINDS = ("honest", "random", "lazy", "colluding")


@dataclass(frozen=True)
class World:
    """What is true: system names, worst first, and their log strengths about 0."""

    systems: tuple[str, ...]
    strengths: np.ndarray

    @classmethod
    def of(cls, systems: int) -> World:
        at = np.linspace(-SPREAD / 2, SPREAD / 2, systems)
        return cls(tuple(f"system-{k + 1}" for k in range(systems)), at)

    def population(self) -> np.ndarray:
        """(K,) the Bradley-Terry scores of endless votes by endless raters on endless items.

        Tastes blur choices, so these lie nearer together than `strengths`; by quadrature over tastes.
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(41)
        weights = weights / weights.sum()
        blur = np.sqrt(2 * (TASTE**2 + FIT**2)) * nodes
        xs, ys, winners, shares = [], [], [], []
        for a in range(len(self.systems)):
            for b in range(a + 1, len(self.systems)):
                chances = _chances(self.strengths[a] - self.strengths[b] + blur) @ weights
                xs += [a] * 3
                ys += [b] * 3
                winners += [Winner.X, Winner.Y, Winner.Draw]
                shares += (1e6 * chances).tolist()
        fit = evalica.newman(
            xs, ys, winners, index=pd.RangeIndex(len(self.systems)), weights=shares, tolerance=1e-9, limit=5000
        )
        scores = np.log(fit.scores.sort_index().to_numpy())
        return scores - scores.mean()


def _chances(apart: np.ndarray) -> np.ndarray:
    """(3, N) chances that the first wins, the second wins, that they tie, of log strengths so far apart."""
    first, second, tie = np.exp(apart / 2), np.exp(-apart / 2), np.full_like(apart, 2 * TIES)
    return np.stack([first, second, tie]) / (first + second + tie)


@dataclass(frozen=True)
class Answers:
    """Simulated answers: `votes` as raters.assess wants them, `preferences` (counted) as eval.ratings does."""

    votes: pd.DataFrame
    preferences: pd.DataFrame
    kinds: dict[str, str]  # rater: one of KINDS


@dataclass(frozen=True)
class Plan:
    """The ballots of a whole study as arrays; `expected` 0, 1 or -1, `repeats` the ballot asked again or -1."""

    raters: tuple[str, ...]
    items: tuple[str, ...]
    who: np.ndarray
    what: np.ndarray
    left: np.ndarray
    right: np.ndarray
    expected: np.ndarray
    repeats: np.ndarray
    kind: np.ndarray


@cache
def plan(raters: int, votes: int, systems: int, items: int, seed: int = 0) -> Plan:
    """Lay out a simulated study by the real allocation."""
    names = World.of(systems).systems
    per_rater = max(1, round(votes / raters))
    study = Study(
        "simulated",
        "Simulated study",
        "preference",
        "simulated",
        "0" * 64,
        names,
        tuple(f"item-{k + 1}" for k in range(items)),
        votes_per_pair=max(1, votes // (systems * (systems - 1) // 2)),
        per_rater=per_rater,
        training=0,
        gold=4,
        traps=2,
        repeats=min(4, per_rater),
        gold_system=names[-1],
        seed=seed,
    )
    seen = Seen(study)
    people = tuple(f"rater-{k:04d}" for k in range(raters))
    ballots = [ballot for rater in people for ballot in session(study, rater, seen)]
    at = {ballot.id: k for k, ballot in enumerate(ballots)}
    of_rater, of_item, of_system = ({n: k for k, n in enumerate(of)} for of in (people, study.items, names))
    sides = {"left": 0, "right": 1}
    return Plan(
        people,
        study.items,
        who=np.array([of_rater[b.rater] for b in ballots]),
        what=np.array([of_item[b.left.item] for b in ballots]),
        left=np.array([of_system[b.left.system] for b in ballots]),
        right=np.array([of_system[b.right.system] for b in ballots]),
        expected=np.array([sides.get(b.expected, -1) for b in ballots]),
        repeats=np.array([at.get(b.repeats, -1) for b in ballots]),
        kind=np.array([b.kind for b in ballots]),
    )


def answer(laid: Plan, world: World, bots: float, seed: int) -> Answers:
    """Let simulated raters answer: `bots` is the share that is not honest, in equal parts of each kind."""
    rng = np.random.default_rng(seed)
    raters, items = laid.raters, laid.items
    who, what, left, right, kind = laid.who, laid.what, laid.left, laid.right, laid.kind
    expected, repeats, n = laid.expected, laid.repeats, len(laid.who)
    kinds = np.array(["honest"] * len(raters), object)
    wrong = rng.permutation(len(raters))[: round(bots * len(raters))]
    kinds[wrong] = [KINDS[1 + k % 3] for k in range(len(wrong))]
    taste = rng.normal(0, TASTE, (len(raters), len(world.systems)))
    fit = rng.normal(0, FIT, (len(items), len(world.systems)))
    worth = world.strengths[None] + taste[who] + fit[what]
    rows = np.arange(n)
    cut = np.cumsum(_chances(worth[rows, left] - worth[rows, right]), 0)
    draw = rng.random(n)
    chosen = (draw[None] > cut[:2]).sum(0)  # 0 left, 1 right, 2 tie
    chosen[(chosen == 2) & (rng.random(n) < BOTH_BAD)] = 3
    honest = kinds[who] == "honest"
    passes = np.where(kind == "gold", SEES_LATE, FOLLOWS)
    checked = expected >= 0
    attentive = checked & (rng.random(n) < passes)
    chosen = np.where(attentive, expected, chosen)
    pushed = len(world.systems) // 2  # a middling system: the best needs no push
    pushing = kinds[who] == "colluding"
    chosen = np.where(pushing & ~checked & (left == pushed), 0, chosen)
    chosen = np.where(pushing & ~checked & (right == pushed), 1, chosen)
    habit = rng.integers(0, 4, len(raters))
    chosen = np.where(kinds[who] == "lazy", habit[who], chosen)
    chosen = np.where(kinds[who] == "random", rng.integers(0, 4, n), chosen)
    again = (repeats >= 0) & (honest | pushing) & (rng.random(n) < SAME_AGAIN)
    turned = np.array([1, 0, 2, 3])
    chosen = np.where(again, turned[chosen[repeats]], chosen)
    passed = np.where(checked, chosen == expected, chosen == turned[chosen[repeats]])
    outcome = np.where(passed, PASSED, FAILED).astype(object)
    outcome[kind == "counted"] = ""
    unmade = (kind != "counted") & (rng.random(n) < 0.01)  # now and then something of ours breaks
    outcome[unmade] = NOT_MADE
    hasty = rng.random(len(raters)) < np.where(kinds == "honest", 0.003, 0.6)
    seconds = rng.lognormal(np.where(hasty[who], np.log(0.4), np.log(3.0)), 0.5)
    plays = rng.random(len(raters)) < np.where(kinds == "honest", PLAYS, 0.5)
    votes = pd.DataFrame(
        {
            "rater": np.array(raters, object)[who],
            "kind": kind,
            "outcome": outcome,
            "answer": np.array(PREFERENCES, object)[chosen],
            "answer_s": seconds,
            "playback": np.where(plays[who], PASSED, FAILED),
            "item": np.array(items, object)[what],
            "left": np.array(world.systems, object)[left],
            "right": np.array(world.systems, object)[right],
        }
    )
    preferences = votes.loc[votes["kind"] == "counted", ["rater", "item", "left", "right", "answer"]]
    return Answers(votes, preferences.reset_index(drop=True), dict(zip(raters, kinds, strict=True)))


def simulate(
    raters: int = 500,
    votes: int = 20_000,
    systems: int = 8,
    items: int = 60,
    bots: float = 0.1,
    seed: int = 0,
    draws: int = 300,
    rule: Rule | None = None,
) -> dict[str, object]:
    """One simulated study, judged and ranked; `seed` is of the crowd, the plan is always the same.

    returns  order_found (bool), kendall (order found against the true one), table (system, true, score, low, high,
             held), covered and systems (how many intervals hold the truth), bots_set_aside {kind: (caught, of)},
             honest_lost (share), votes_counted, alarms
    """
    world = World.of(systems)
    answers = answer(plan(raters, votes, systems, items), world, bots, seed)
    return judged(answers, world, draws, rule)


def judged(answers: Answers, world: World, draws: int = 300, rule: Rule | None = None) -> dict[str, object]:
    """What the method makes of simulated answers: see `simulate`."""
    quality = assess(answers.votes, answers.preferences, rule)
    counted = quality.counted(answers.preferences)
    ranking = ratings.rank(counted, draws)
    true = dict(zip(world.systems, world.population(), strict=True))
    table = ranking.table().assign(true=lambda t: t["system"].map(true))
    table["held"] = (table["low"] <= table["true"]) & (table["true"] <= table["high"])
    order = list(table.sort_values("true", ascending=False)["system"])
    caught = _caught(quality, answers.kinds)
    honest = caught.pop("honest")
    return {
        "order_found": list(ranking.systems) == order,
        "kendall": float(ratings.stats.kendalltau(table["true"], table["score"]).statistic),
        "covered": int(table["held"].sum()),
        "systems": len(table),
        "bots_set_aside": caught,
        "honest_lost": honest[0] / max(honest[1], 1),
        "votes_counted": len(counted),
        "rings": {system: len(members) for system, members in quality.rings.items()},
        "alarms": list(quality.alarms),
        "table": table[["system", "true", "score", "low", "high", "held", "rank"]].to_dict("records"),
    }


def _caught(quality: Quality, kinds: dict[str, str]) -> dict[str, tuple[int, int]]:
    return {
        kind: (sum(kinds[r] == kind for r in quality.excluded), sum(k == kind for k in kinds.values()))
        for kind in KINDS
    }


def repeat(repetitions: int = 200, workers: int = 2, **options: object) -> dict[str, object]:
    """Many simulated studies with seeds 0, 1, ...: how often intervals hold the truth, and what the checks do.

    returns  repetitions, order_found (share), coverage and its 95 % interval (by repetition), caught {kind: share},
             honest_lost (mean share), honest_lost_most
    """
    with ProcessPoolExecutor(workers) as pool:
        found = list(pool.map(_one, [{**options, "seed": seed} for seed in range(repetitions)], chunksize=2))
    covered = np.array([f["covered"] / f["systems"] for f in found])
    caught = {
        kind: sum(f["bots_set_aside"][kind][0] for f in found)
        / max(1, sum(f["bots_set_aside"][kind][1] for f in found))
        for kind in KINDS[1:]
    }
    error = covered.std(ddof=1) / np.sqrt(len(covered)) if len(covered) > 1 else 0.0
    return {
        "repetitions": repetitions,
        "order_found": float(np.mean([f["order_found"] for f in found])),
        "kendall": float(np.mean([f["kendall"] for f in found])),
        "coverage": float(covered.mean()),
        "coverage_interval": (float(covered.mean() - 1.96 * error), float(min(1.0, covered.mean() + 1.96 * error))),
        "caught": caught,
        "honest_lost": float(np.mean([f["honest_lost"] for f in found])),
        "honest_lost_most": float(np.max([f["honest_lost"] for f in found])),
    }


def _one(options: dict) -> dict[str, object]:
    found = simulate(**options)
    found.pop("table")
    return found
