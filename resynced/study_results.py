"""Results of a study, recomputed from its facts: votes as tables, raters judged, every statistic."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from eval import ratings
from eval.metrics.base import MeasureError
from lipsync.messages import Message

from .ballots import OTHER, Ballot, Stimulus, outcome
from .desk import playback
from .raters import Quality, assess
from .studies import SCALES, Study, standing


@dataclass(frozen=True)
class Votes:
    """A study's answers, the last revision of each.

    all          one row an answer, checks and training too: rater, ballot, position, kind, item, left, left_variant,
                 right, right_variant, expected, answer (as text), cannot_play, outcome, answer_s, playback, date, and
                 one column a question
    preferences, scores, mismatches  counted ones, as eval.ratings has them, with `order`; scores also with `question`
    """

    all: pd.DataFrame
    preferences: pd.DataFrame
    scores: pd.DataFrame
    mismatches: pd.DataFrame


def read_votes(study: Study, ballots: pd.DataFrame, votes: pd.DataFrame) -> Votes:
    """Join a study's ballots and votes, as StudyDesk.tables gives them."""
    latest = votes.sort_values("revision").drop_duplicates("ballot", keep="last").set_index("ballot")
    said = {ballot: json.loads(text) for ballot, text in latest["answer"].items()}
    times = {ballot: json.loads(text) for ballot, text in latest["timings"].items()}
    sides = ("left", "right") if study.design != "questions" else ("left",)
    rows = []
    for b in ballots[ballots["id"].isin(latest.index)].itertuples():
        left = Stimulus(b.left_system, b.item, b.left_variant)
        right = Stimulus(b.right_system, b.item, b.right_variant) if b.right_system else None
        ballot = Ballot(b.id, b.study, b.rater, b.position, b.kind, left, right, b.expected, b.repeats)
        answer = said[b.id]
        dumb = bool(answer.get("cannot_play"))
        rows.append(
            {
                "rater": b.rater,
                "ballot": b.id,
                "order": b.position,
                "kind": b.kind,
                "item": b.item,
                "left": b.left_system,
                "left_variant": b.left_variant,
                "right": b.right_system,
                "right_variant": b.right_variant,
                "expected": b.expected,
                "repeats": b.repeats,
                "cannot_play": dumb,
                "answer": "" if dumb else " ".join(str(v) for _, v in sorted(answer.items())),
                "outcome": outcome(ballot, answer, said.get(b.repeats)),
                "answer_s": times[b.id].get("answer_s", np.nan),
                "playback": playback(times[b.id], sides),
                "elapsed_s": latest.at[b.id, "elapsed_s"],
                "date": latest.at[b.id, "date"],
                **{k: v for k, v in answer.items() if k != "cannot_play"},
            }
        )
    columns = [
        "rater",
        "ballot",
        "order",
        "kind",
        "item",
        "left",
        "left_variant",
        "right",
        "right_variant",
        "expected",
        "repeats",
        "cannot_play",
        "answer",
        "outcome",
        "answer_s",
        "playback",
        "elapsed_s",
        "date",
    ]
    everything = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    counted = everything[(everything["kind"] == "counted") & ~everything["cannot_play"].astype(bool)]
    return Votes(everything, _preferences(counted), _scores(counted), _mismatches(counted))


def _preferences(counted: pd.DataFrame) -> pd.DataFrame:
    if "preference" not in counted:
        return pd.DataFrame(columns=[*ratings.PREFERENCES, "order"])
    found = counted.rename(columns={"answer": "said", "preference": "answer"})
    return found[[*ratings.PREFERENCES, "order"]].reset_index(drop=True)


def _scores(counted: pd.DataFrame) -> pd.DataFrame:
    found = []
    for side, prefix in (("left", ""), ("left", "left_"), ("right", "right_")):
        for scale in SCALES:
            if prefix + scale in counted:
                one = counted[["rater", "item", "order"]].copy()
                one["system"], one["question"] = counted[side], scale
                one["value"] = counted[prefix + scale].astype(int)
                found.append(one)
    columns = [*ratings.SCORES, "question", "order"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def _mismatches(counted: pd.DataFrame) -> pd.DataFrame:
    if "mismatching" not in counted:
        return pd.DataFrame(columns=[*ratings.MISMATCHES, "order"])
    right_side = np.where(counted["left_variant"] == OTHER, "right", "left")
    found = counted[["rater", "item", "order"]].assign(system=counted["left"])
    return found.assign(correct=counted["mismatching"] == right_side)[[*ratings.MISMATCHES, "order"]]


@dataclass(frozen=True)
class Results:
    """Everything that a results page or a paper shows. Tables are data frames; None where there is nothing of it.

    notes  sentences on what could not be computed, and why
    """

    study: Study
    votes: Votes
    quality: Quality
    tables: dict[str, pd.DataFrame]
    facts: dict[str, Any]
    notes: tuple[str, ...]

    def as_json(self) -> str:
        """Facts, tables and notes as JSON."""
        tables = {name: json.loads(table.to_json(orient="records")) for name, table in self.tables.items()}
        return json.dumps({"facts": self.facts, "tables": tables, "notes": self.notes}, indent=1, default=str)


def compute(
    study: Study,
    facts: dict[str, pd.DataFrame],
    measures: pd.DataFrame | None = None,
    draws: int = 500,
    seed: int = 0,
) -> Results:
    """Every statistic of a study.

    facts     StudyDesk.tables(name)
    measures  item system and one column an objective measure: correlated with people's answers
    """
    votes = read_votes(study, facts["ballots"], facts["votes"])
    quality = assess(votes.all, votes.preferences, study.rule)
    tables: dict[str, pd.DataFrame] = {"raters": quality.table}
    found: dict[str, Any] = {
        "study": study.name,
        "study_sha256": study.sha256,
        "raters": int(votes.all["rater"].nunique()),
        "raters_set_aside": len(quality.excluded),
        "answers": len(votes.all),
        "cannot_play": int(votes.all["cannot_play"].sum()),
        "alarms": list(quality.alarms),
        "suspected_rings": {k: len(v) for k, v in quality.rings.items()},
    }
    notes: list[str] = []

    def attempt(name: str, make: Callable[[], Any]) -> None:
        try:
            made = make()
        except MeasureError as error:
            notes.append(Message("{name}: {error}", name=name, error=error))
            return
        (tables if isinstance(made, pd.DataFrame) else found)[name] = made

    preferences, scores = quality.counted(votes.preferences), quality.counted(votes.scores)
    people = {}
    if len(preferences):
        _of_preferences(preferences, attempt, draws, seed)
        people["preference"] = ratings.shares(preferences)
    for question in sorted(scores["question"].unique()):
        one = scores[scores["question"] == question]
        _of_scores(question, one, attempt, draws, seed)
        people[question] = one.groupby(["item", "system"], as_index=False)["value"].mean()
    mismatches = quality.counted(votes.mismatches)
    if len(mismatches):
        attempt("matched", lambda: ratings.matched_share(mismatches))
        people["matched"] = mismatches.groupby(["item", "system"])["correct"].mean().rename("value").reset_index()
    for question, means in people.items():
        tables[f"people_{question}"] = means
        if measures is not None:
            attempt(
                f"correlation_{question}",
                lambda m=means: ratings.correlate(m, measures, draws, seed),
            )
    found["standing"] = _standing(study, preferences, scores, mismatches)
    return Results(study, votes, quality, tables, found, tuple(notes))


def _of_preferences(votes: pd.DataFrame, attempt: Callable, draws: int, seed: int) -> None:
    attempt("side_effect", lambda: asdict(ratings.side_effect(votes)))
    attempt("order_effect", lambda: asdict(ratings.order_effect(votes)))
    attempt("answers_by_system", lambda: ratings.answer_counts(votes))
    attempt("wins", lambda: ratings.win_matrix(votes).reset_index(names="system"))
    attempt("votes_to_flip", lambda: ratings.votes_to_flip(votes))
    ranked: list[ratings.Ranking] = []

    def ranking() -> pd.DataFrame:
        ranked.append(ratings.rank(votes, draws, seed))
        return ranked[0].table()

    attempt("ranking", ranking)

    def more() -> pd.DataFrame:
        names = ranked[0].systems
        rows = [
            {"above": a, "below": b, "more_votes": ratings.votes_to_part(ranked[0], a, b)}
            for a, b in zip(names[:-1], names[1:], strict=True)
        ]
        return pd.DataFrame(rows, dtype=object)

    if ranked:
        attempt("more_votes_to_part", more)

    def agreement() -> dict[str, Any]:
        first = np.where(votes["left"] < votes["right"], "left", "right")
        value = np.where(votes["answer"].isin(("tie", "both_bad")), "tie", np.where(votes["answer"] == first, "1", "2"))
        pair = [" ".join(sorted(p)) for p in zip(votes["left"], votes["right"], strict=True)]
        alpha, interval = ratings.agreement(votes.assign(system=pair, value=value), "nominal", draws, seed)
        return {"alpha": alpha, "interval": interval}

    attempt("agreement", agreement)


def _of_scores(question: str, scores: pd.DataFrame, attempt: Callable, draws: int, seed: int) -> None:
    screened = ratings.screen(scores)
    kept = scores[~scores["rater"].astype(str).isin(screened)]
    attempt(f"mos_{question}", lambda: ratings.mos(kept))
    attempt(f"screened_{question}", lambda: screened)
    attempt(f"order_effect_{question}", lambda: asdict(ratings.order_effect(kept)))

    def agreement() -> dict[str, Any]:
        alpha, interval = ratings.agreement(kept, n=draws, seed=seed)
        return {"alpha": alpha, "interval": interval}

    attempt(f"agreement_{question}", agreement)
    attempt(f"ordinal_{question}", lambda: ratings.ordinal(kept).table)


def _standing(study: Study, *tables: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Votes of each system, and whether it may be shown."""
    found = {}
    for system in study.systems:
        n = 0
        for table in tables:
            if "left" in table:
                n = max(n, int(((table["left"] == system) | (table["right"] == system)).sum()))
            elif len(table):
                there = table[table["system"] == system]
                n = max(n, len(there[["rater", "item", "order"]].drop_duplicates()))
        found[system] = {"votes": n, "standing": standing(n)}
    return found


def progress(study: Study, facts: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Counts and alarms while a study runs, without statistics of systems: raters, finished, votes, wanted (counted
    votes), counted, set_aside, cannot_play, withdrawn, problems, alarms.
    """
    votes = read_votes(study, facts["ballots"], facts["votes"])
    quality = assess(votes.all, votes.preferences, study.rule)
    laid, given = facts["ballots"].groupby("rater").size(), votes.all.groupby("rater").size()
    said = facts["facts"]["fact"].value_counts()
    return {
        "raters": len(facts["raters"]),
        "finished": int((given == laid.reindex(given.index)).sum()),
        "votes": len(votes.all),
        "counted": int((votes.all["kind"] == "counted").sum()),
        "wanted": study.votes_per_pair * len(study.pairs),
        "set_aside": len(quality.excluded),
        "cannot_play": int(votes.all["cannot_play"].sum()),
        "withdrawn": int(said.get("withdrawn", 0)),
        "problems": int(said.get("problem", 0)),
        "alarms": list(quality.alarms),
    }


@dataclass(frozen=True)
class Agreement:
    """How a rater's answers stand to those of others on the same videos, for the rater's own eyes.

    share     of choices that others made too (mean over ballots), None where nobody else chose on them yet
    distance  mean distance of scores from the mean of the others, 0 .. 5, None as above
    ballots   how many of the rater's answers others answered too
    """

    share: float | None
    distance: float | None
    ballots: int


def own_agreement(own: Votes, everybody: Votes, rater: str) -> Agreement:
    """Compare a rater with the others; checks and training do not count.

    own  the rater's votes alone; everybody: of the study, which may be some seconds older
    """
    shares, distances = [], []
    chosen = _choices([own, everybody], rater)
    for _, same in chosen.groupby(["item", "system"]):
        mine, others = same[same["rater"] == rater], same[same["rater"] != rater]
        if len(mine) and len(others):
            shares.append((others["said"] == mine["said"].iloc[0]).mean())
    for _, same in _joined([own.scores, everybody.scores], rater).groupby(["item", "system", "question"]):
        mine, others = same[same["rater"] == rater], same[same["rater"] != rater]
        if len(mine) and len(others):
            distances.append(abs(mine["value"].iloc[0] - others["value"].mean()))
    return Agreement(
        float(np.mean(shares)) if shares else None,
        float(np.mean(distances)) if distances else None,
        max(len(shares), len(distances)),
    )


def _joined(tables: list[pd.DataFrame], rater: str) -> pd.DataFrame:
    """The rater's rows of the first table, the others' of the second."""
    return pd.concat([tables[0][tables[0]["rater"] == rater], tables[1][tables[1]["rater"] != rater]])


def _choices(votes: list[Votes], rater: str) -> pd.DataFrame:
    """Columns rater item system said: what was compared, and which of it was chosen, wherever it stood."""
    preferences = _joined([v.preferences for v in votes], rater)
    if preferences.empty:
        return _joined([v.mismatches for v in votes], rater).rename(columns={"correct": "said"})
    sides = {side: preferences["answer"] == side for side in ("left", "right")}
    said = preferences["answer"].mask(sides["left"], preferences["left"]).mask(sides["right"], preferences["right"])
    pair = [" ".join(sorted(two)) for two in zip(preferences["left"], preferences["right"], strict=True)]
    return preferences[["rater", "item"]].assign(system=pair, said=said)
