"""What people said of systems, for the leaderboard: from published studies of a set, a few numbers a system.

A system with fewer than 100 answers has none of them, with fewer than 300 they are preliminary.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from eval import ratings
from eval.metrics.base import MeasureError

from .ballots_tables import Database, StudyEvent, StudyRow, VoteRow
from .desk import StudyDesk
from .raters import assess
from .store import Derived, Store
from .studies import SCALES, standing
from .study_results import read_votes

LAYOUT = 1


def human(store: Store, set_sha256: str) -> dict[str, dict[str, Any]]:
    """By a system's fingerprint, as far as it was asked: study, n (answers), standing ("preliminary" or "public"),
    share (of comparisons won, ties as halves), matched (right speech found, as a share), and sync, quality, experience
    (means, 0 .. 5); each but `share` with `_low` and `_high`. Of several studies the latest that asked.
    """
    with store.read() as session:
        rows = session.execute(select(StudyRow.name, StudyRow.record).order_by(StudyRow.date, StudyRow.name)).all()
        if not rows:
            return {}
        last = [session.scalar(select(func.coalesce(func.max(t.id), 0))) for t in (VoteRow, StudyEvent)]
        count = session.scalar(select(func.count()).select_from(VoteRow))  # less where somebody withdrew
        kept = session.get(Derived, f"human {set_sha256}")
        if kept is not None and kept.state.get("of") == [LAYOUT, *last, count]:
            return kept.state["found"]
    desk, found = StudyDesk(Database(store), bytes(32)), {}  # which reads only: it signs nothing
    for name, _ in rows:
        study = desk.study(name)
        if study.set_sha256 == set_sha256 and study.fingerprints and desk.is_published(name):
            for fingerprint, said in _of(desk, name).items():
                found[fingerprint] = found.get(fingerprint, {}) | said
    with store.write() as session:
        state = {"of": [LAYOUT, *last, count], "found": found}
        session.merge(Derived(name=f"human {set_sha256}", state=state))
    return found


def _of(desk: StudyDesk, name: str) -> dict[str, dict[str, Any]]:
    study, facts = desk.study(name), desk.tables(name)
    votes = read_votes(study, facts["ballots"], facts["votes"])
    if votes.all.empty:
        return {}
    quality = assess(votes.all, votes.preferences, study.rule)
    preferences, scores = quality.counted(votes.preferences), quality.counted(votes.scores)
    mismatches = quality.counted(votes.mismatches)
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for scale in SCALES:
        tables[scale] = _means(scores[scores["question"] == scale], ratings.mos, "mean")
    tables["matched"] = _means(mismatches, ratings.matched_share, "share")
    won = ratings.shares(preferences) if len(preferences) else None
    found = {}
    for system, fingerprint in zip(study.systems, study.fingerprints, strict=True):
        there = [int(table[system]["n"]) for table in tables.values() if system in table]
        said: dict[str, Any] = {"study": name}
        if won is not None and (of_system := won[won["system"] == system])["n"].sum():
            said["share"] = float((of_system["value"] * of_system["n"]).sum() / of_system["n"].sum())
            there.append(int(of_system["n"].sum()))
        said["n"] = max(there, default=0)
        if standing(said["n"]) == "hidden":
            continue
        for key, table in tables.items():
            if system in table:
                said |= {key: table[system]["mean"], f"{key}_low": table[system]["low"]}
                said[f"{key}_high"] = table[system]["high"]
        found[fingerprint] = said | {"standing": standing(said["n"])}
    return found


def _means(votes: Any, of: Any, value: str) -> dict[str, dict[str, float]]:
    if not len(votes):
        return {}
    try:
        table = of(votes)
    except MeasureError:
        return {}
    return {
        row["system"]: {"mean": float(row[value]), "low": float(row["low"]), "high": float(row["high"]), "n": row["n"]}
        for row in table.to_dict("records")
    }
