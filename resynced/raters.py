"""Raters: who they are (nobody we could name), and whose votes are set aside, by a rule fixed before data.

A rater is a random token of which only the hash is kept; a panel's parameters are kept as a keyed hash. Every check
has three outcomes: passed, failed, could not be made. The third counts for nobody and against nobody, and is reported:
an outage of ours must never look like a careless rater.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from eval import ratings
from lipsync.messages import Message

from .ballots import FAILED, NOT_MADE, PASSED
from .studies import Rule, StudyError

CHECKS = ("gold", "trap", "repeat", "speed", "variance", "playback")
LONGEST_DESCRIPTION = 80
DESCRIPTION = ("age_group", "hearing", "vision", "first_language", "device", "headphones")
LEAST_ALIKE = 10  # answers from which on one and the same answer says something
ALARM_RATERS = 20  # a share of fewer raters is no alarm
VOTES = ("rater", "kind", "outcome", "answer", "answer_s", "playback")


def new_token() -> str:
    """A rater's token: 32 random bytes, which the rater's browser keeps and we do not."""
    return secrets.token_urlsafe(32)


def panel_token(key: bytes, study: str, parameters: Mapping[str, str]) -> str:
    """The token of somebody sent by a panel: the same again for the same parameters, so that they can come back.

    parameters  such as {"PROLIFIC_PID": "..."}; nothing of them can be found again without the key
    """
    said = "\n".join(f"{k}={v}" for k, v in sorted(parameters.items()))
    return _keyed(key, f"panel\n{study}\n{said}")


def rater_id(token: str) -> str:
    """The hash under which a rater is known: 32 hex digits. Raises StudyError for what is no token."""
    if not isinstance(token, str) or not 20 <= len(token) <= 200:
        raise StudyError("This browser has no rater's token: begin again from the study's address.")
    return hashlib.sha256(token.encode()).hexdigest()[:32]


def completion_code(key: bytes, study: str, rater: str) -> str:
    """What a rater hands to the panel at the end: eight letters and digits that nobody else can make."""
    return _keyed(key, f"done\n{study}\n{rater}")[:8].upper()


def _keyed(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def description(given: Mapping[str, str]) -> dict[str, str]:
    """A self-description as it is kept: known fields, short. Raises StudyError."""
    for name, value in given.items():
        if name not in DESCRIPTION:
            raise StudyError("{name!r} is not asked: {choices} are.", name=name, choices=", ".join(DESCRIPTION))
        if not isinstance(value, str) or len(value) > LONGEST_DESCRIPTION:
            raise StudyError(
                "The answer on {name} may have {most} letters.",
                name=name,
                most=LONGEST_DESCRIPTION,
            )
    return {k: v for k, v in given.items() if v}


@dataclass(frozen=True)
class Quality:
    """What the checks say of all raters.

    table   one row a rater: rater, votes; each of CHECKS as passed, failed or not_made, and `*_passed`, `*_failed`,
            `*_not_made` counts; score (log likelihood ratio of attentive against inattentive), ring (system or ""),
            excluded (bool), reason (sentence or "")
    rings   {system: raters who are suspected to push it}
    alarms  sentences for the operator
    """

    table: pd.DataFrame
    rings: dict[str, tuple[str, ...]]
    alarms: tuple[str, ...]

    @property
    def excluded(self) -> set[str]:
        return set(self.table.loc[self.table["excluded"], "rater"])

    def counted(self, votes: pd.DataFrame) -> pd.DataFrame:
        """The votes of raters who are not set aside."""
        return votes[~votes["rater"].isin(self.excluded)]


def assess(votes: pd.DataFrame, preferences: pd.DataFrame | None = None, rule: Rule | None = None) -> Quality:
    """Judge every rater by the rule.

    votes        one row an answer: rater, kind (of ballot), outcome (passed, failed, not_made or ""), answer (as text),
                 answer_s (seconds from the end of playing to the answer, NaN unknown), playback (an outcome)
    preferences  counted ones, as eval.ratings has them: from these come suspected rings
    Raises StudyError where columns are missing.
    """
    rule = rule or Rule()
    if missing := [c for c in VOTES if c not in votes]:
        raise StudyError("The votes have no column {missing}.", missing=", ".join(missing))
    counts = _counts(votes, rule)
    table = pd.DataFrame(
        {"rater": counts.index, "votes": votes.groupby("rater").size().reindex(counts.index).to_numpy()}
    )
    score = np.zeros(len(table))
    for check in CHECKS:
        passed, failed, unmade = (counts[(check, o)].to_numpy(int) for o in (PASSED, FAILED, NOT_MADE))
        attentive, inattentive = getattr(rule, check)
        ratio = passed * math.log(attentive / inattentive) + failed * math.log((1 - attentive) / (1 - inattentive))
        score += ratio
        made = passed + failed > 0
        table[check] = np.where(~made, NOT_MADE, np.where(ratio >= 0, PASSED, FAILED))
        table[f"{check}_passed"], table[f"{check}_failed"], table[f"{check}_not_made"] = passed, failed, unmade
    table["score"] = score
    table["excluded"] = score < rule.least_score
    rings: dict[str, tuple[str, ...]] = {}
    if preferences is not None and len(preferences):
        rings = _rings(preferences, set(table.loc[table["excluded"], "rater"]), rule)
    ring_of = {rater: system for system, members in rings.items() for rater in members}
    table["ring"] = table["rater"].map(ring_of).fillna("")
    table["reason"] = [_reason(row, rule) for row in table.to_dict("records")]
    table["excluded"] |= table["ring"] != ""
    return Quality(table, rings, _alarms(table, rule))


def _counts(votes: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """Per rater, how often each check passed, failed and could not be made: columns (check, outcome)."""
    raters = pd.Index(sorted(votes["rater"].unique()), name="rater")
    columns = pd.MultiIndex.from_product([CHECKS, (PASSED, FAILED, NOT_MADE)])
    found = pd.DataFrame(0, index=raters, columns=columns)
    asked = votes[votes["kind"].isin(("gold", "trap", "repeat"))]
    for (check, outcome), n in asked.groupby(["kind", "outcome"])["rater"]:
        found[(check, outcome)] = n.value_counts().reindex(raters, fill_value=0)
    played = votes.groupby(["rater", "playback"]).size().unstack(fill_value=0).reindex(raters, fill_value=0)
    # A rater's playback is one check: half of the answers or more given without having watched is a failure.
    good, bad = (played[o] if o in played else pd.Series(0, index=raters) for o in (PASSED, FAILED))
    _one(found, "playback", good + bad > 0, good > bad)
    counted = votes[votes["kind"].isin(("counted", "repeat")) & (votes["answer"] != "")]
    median = counted.groupby("rater")["answer_s"].median().reindex(raters)
    _one(found, "speed", median.notna(), median >= rule.fastest_s)
    n = counted.groupby("rater").size().reindex(raters, fill_value=0)
    commonest = counted.groupby(["rater", "answer"]).size().groupby("rater").max().reindex(raters, fill_value=0)
    _one(found, "variance", n >= LEAST_ALIKE, commonest < rule.most_alike * n)
    return found


def _one(found: pd.DataFrame, check: str, made: pd.Series, passed: pd.Series) -> None:
    found[(check, PASSED)] = (made & passed).astype(int)
    found[(check, FAILED)] = (made & ~passed).astype(int)
    found[(check, NOT_MADE)] = (~made).astype(int)


def _reason(row: dict, rule: Rule) -> str:
    if row["ring"]:
        return Message("favours {system} as several others do, beyond chance: a suspected ring", system=row["ring"])
    if not row["excluded"]:
        return ""
    failed = [c for c in CHECKS if row[c] == FAILED]
    counts = ", ".join(f"{c} {row[f'{c}_failed']} of {row[f'{c}_passed'] + row[f'{c}_failed']}" for c in failed)
    return Message(
        "score {score:.1f} under {least:g}; failed: {counts}", score=row["score"], least=rule.least_score, counts=counts
    )


def _rings(preferences: pd.DataFrame, excluded: set[str], rule: Rule) -> dict[str, tuple[str, ...]]:
    """Raters who favour the same system beyond what the ranking of all others explains, where they are several."""
    found: dict[str, tuple[str, ...]] = {}
    for _ in range(2):  # once more without those found: a ring lifts the ranking by which it is judged
        left_out = excluded | {r for members in found.values() for r in members}
        rest = preferences[~preferences["rater"].isin(left_out)]
        if rest.empty:
            return found
        try:
            strengths, ties = ratings.strengths(rest)
        except ratings.MeasureError:
            return found  # not connected yet: no ranking, no ring
        found = _favourites(preferences, strengths, ties, rule)
    return found


def _favourites(
    preferences: pd.DataFrame, strengths: Mapping[str, float], ties: float, rule: Rule
) -> dict[str, tuple[str, ...]]:
    """Raters whose wins for one system are beyond chance, where they are more than so many raters would have by chance.

    People have tastes, so wins scatter wider than coins: the usual scatter, by its median, is taken off first.
    """
    known = preferences[preferences["left"].isin(strengths) & preferences["right"].isin(strengths)]
    apart = (known["left"].map(strengths) - known["right"].map(strengths)).to_numpy()
    halves = []
    for side, up in (("left", apart), ("right", -apart)):
        chance = np.exp(up / 2) / (np.exp(up / 2) + np.exp(-up / 2) + 2 * ties)  # Davidson's
        won = (known["answer"] == side).to_numpy(float)
        halves.append(pd.DataFrame({"rater": known["rater"], "system": known[side], "won": won, "chance": chance}))
    table = (
        pd.concat(halves)
        .groupby(["rater", "system"], as_index=False)
        .agg(won=("won", "sum"), n=("won", "size"), chance=("chance", "mean"))
    )
    z = stats.norm.isf(stats.binom.sf(table["won"] - 1, table["n"], table["chance"]).clip(1e-12, 1 - 1e-12))
    scatter = max(1.0, stats.median_abs_deviation(z, scale="normal"))
    table["p"] = stats.norm.sf(z / scatter)
    raters, found = preferences["rater"].nunique(), {}
    for system, rows in table.groupby("system"):
        partial = rows.loc[rows["p"] < rule.partial_p, "rater"]
        beyond = stats.binom.sf(len(partial) - 1, raters, rule.partial_p) < 0.01
        if len(partial) >= rule.ring_size and beyond:
            found[str(system)] = tuple(sorted(partial))
    return found


def _alarms(table: pd.DataFrame, rule: Rule) -> tuple[str, ...]:
    said = []
    low, high = rule.usual_excluded
    share = table["excluded"].mean() if len(table) else 0.0
    if len(table) >= ALARM_RATERS and not low <= share <= high:
        said.append(
            Message(
                "{share:.0%} of {count} raters are set aside; usual are {low:.0%} to {high:.0%}. Look at the checks "
                "before you believe the table: something of ours may be broken.",
                share=share,
                count=len(table),
                low=low,
                high=high,
            )
        )
    for check in CHECKS:
        passed, failed, unmade = (table[f"{check}_{o}"].sum() for o in (PASSED, FAILED, NOT_MADE))
        total = passed + failed + unmade
        if total >= ALARM_RATERS and unmade > rule.most_unmade * total:
            unknown = {"check": check, "unmade": unmade, "total": total}
            said.append(
                Message(
                    "The check {check} could not be made {unmade} of {total} times: those answers count.", **unknown
                )
            )
        if passed + failed >= ALARM_RATERS and failed > 0.5 * (passed + failed):
            said.append(
                Message(
                    "The check {check} failed {failed} of {total} times: more than people ever fail it.",
                    check=check,
                    failed=failed,
                    total=passed + failed,
                )
            )
    return tuple(said)
