"""The leaderboard: from rows to a table with intervals, ranks as groups, and one sentence that is the answer.

Nothing of it is the record; everything is computed from rows that count. Evaluators, protocols, sets and versions of
the measures are never mixed: a `View` is one of each. Rows are added up once by speaker (sums and counts, as
eval.stats draws whole speakers), the sums are kept in the store up to the last row seen, and a store that has grown
adds the new rows alone.

Ranks: two systems are told apart where the 95 % interval of the difference of their means leaves out zero, the same
speakers drawn for both. A system's rank runs from one more than there are surely better ones to the number of systems
less those surely worse; so "1–2".
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Integer, and_, case, cast, func, literal, not_, select
from sqlalchemy.orm import Session

from eval.results import VERSION
from eval.stats import bootstrap_ratio

from .records import BenchmarkError
from .store import (
    CheckFact,
    Derived,
    DistanceFact,
    Fact,
    ScoreFact,
    SetFact,
    Store,
    SystemFact,
    Withdrawal,
    digest,
)

LAYOUT = 2  # of what is kept in the store; to be raised with any change to it
DRAWS, SEED, LEVEL = 2000, 0, 0.95
BUCKETS = 400  # groups drawn of a category at most: more speakers are pooled, whole, into so many
POOLED = "\r"  # before the number of such a bucket: no speaker's name begins with it
FEWEST_SHARE = 0.9  # of the clips that any system was given, of which one must have scores to be ranked
PASSED = 0.75  # of known shifts that the evaluator must find on the set
WITHIN = 1  # frames of 40 ms
FLOOR, CEILING = "untouched", "real"


@dataclass(frozen=True)
class Column:
    """A measure of the table. better: "lower", "higher", or "" where neither is."""

    name: str
    title: str
    unit: str
    better: str
    digits: int


COLUMNS = (
    Column("lse_d", "LSE-D", "", "lower", 2),
    Column("lse_c", "LSE-C", "", "higher", 2),
    Column("in_sync", "offset within one frame", "share", "higher", 2),
    Column("identity", "identity", "cosine", "higher", 3),
    Column("sharpness", "sharpness / original", "", "", 2),
    Column("movement", "lip movement in silence", "% of box/s", "lower", 1),
    Column("coverage", "coverage", "share", "higher", 2),
    Column("speed", "speed", "frames/s", "higher", 1),
)
BY_NAME = {c.name: c for c in COLUMNS}


@dataclass(frozen=True)
class View:
    """What is never mixed: one set, one evaluator, one protocol, one version of the measures."""

    set_name: str
    set_sha256: str
    evaluator: str
    evaluator_sha256: str
    protocol: str
    protocol_hash: str
    measure_version: str

    @property
    def id(self) -> str:
        """Twelve digits, for an address."""
        return digest(self.set_sha256, self.evaluator_sha256, self.protocol_hash, self.measure_version)[:12]

    def heading(self) -> str:
        """What made the numbers, as it stands above the table."""
        return (
            f"{self.set_name} {self.set_sha256[:8]} · {self.protocol} {self.protocol_hash} · {self.evaluator} "
            f"{self.evaluator_sha256[:8]} · measures {self.measure_version}"
        )

    def where(self):
        """The rows of it, as a condition."""
        return and_(
            ScoreFact.set_sha256 == self.set_sha256,
            ScoreFact.protocol_hash == self.protocol_hash,
            ScoreFact.evaluator_sha256 == self.evaluator_sha256,
            ScoreFact.measure_version == self.measure_version,
        )


# --------------------------------------------------------------------------- from rows


def counted():
    """The condition that a row was not withdrawn."""
    gone = {k: select(Withdrawal.target).where(Withdrawal.kind == k) for k in ("score", "system")}
    return and_(not_(ScoreFact.key.in_(gone["score"])), not_(ScoreFact.fingerprint.in_(gone["system"])))


def _sums() -> dict[str, Any]:
    """What is added up of a group's rows: `NAME_n` and `NAME_s` of each column, rows and failures."""
    timed = and_(ScoreFact.seconds > 0, ScoreFact.frames > 0, ScoreFact.reason.is_(None))
    found = {
        "rows": func.count(),
        "failed": func.coalesce(func.sum(case((ScoreFact.reason.is_not(None), 1), else_=0)), 0),
        "in_sync_n": func.count(ScoreFact.offset),
        "in_sync_s": func.sum(cast(case((func.abs(ScoreFact.offset) <= WITHIN, 1), else_=0), Integer)),
        "speed_n": func.sum(case((timed, ScoreFact.seconds), else_=0.0)),
        "speed_s": func.sum(case((timed, ScoreFact.frames), else_=0)),
    }
    for name in ("lse_d", "lse_c", "identity", "sharpness", "movement", "coverage"):
        column = getattr(ScoreFact, name)
        found |= {f"{name}_n": func.count(column), f"{name}_s": func.coalesce(func.sum(column), 0.0)}
    return found


BY = ("system", "fingerprint", "tier", "category", "speaker")
SUMS = tuple(_sums())


def views(store: Store) -> list[View]:
    """Every view that has rows, the one with the latest row first."""
    names = ("set_name", "set_sha256", "evaluator", "evaluator_sha256", "protocol", "protocol_hash", "measure_version")
    with store.read() as session:
        kept = _state(session, "views")
        last = _last(session, ScoreFact)
        if kept.get("last") == last:
            found = kept["found"]
        else:
            latest = {tuple(row[:-1]): row[-1] for row in kept.get("found", [])}
            query = select(*(getattr(ScoreFact, n) for n in names), func.max(ScoreFact.id))
            query = query.where(ScoreFact.id > kept.get("last", 0)).group_by(*(getattr(ScoreFact, n) for n in names))
            latest |= {tuple(row[:-1]): row[-1] for row in session.execute(query)}
            found = sorted(([*key, value] for key, value in latest.items()), key=lambda row: -row[-1])
    if kept.get("last") != last:
        _keep(store, "views", {"layout": LAYOUT, "last": last, "found": found})
    return [View(*row[:-1]) for row in found]


def find_view(store: Store, set_name: str | None = None, id: str | None = None) -> View:
    """The latest view, of a set where one is named, or by its id. Raises BenchmarkError where there is none."""
    known = [v for v in views(store) if set_name in (None, v.set_name) and id in (None, v.id)]
    if not known:
        if set_name:
            raise BenchmarkError(
                "The store has no scores of the set {name!r}: `python -m resynced run` makes them.", name=set_name
            )
        if id:
            raise BenchmarkError(
                "The store has no scores with the id {id}: `python -m resynced run` makes them.", id=id
            )
        raise BenchmarkError("The store has no scores: `python -m resynced run` makes them.")
    return known[0]


def groups(store: Store, view: View) -> pd.DataFrame:
    """Sums by system, category and speaker over the rows that count: columns BY and SUMS, one row a group.

    A clip of whom no speaker is known is a group of its own. Beyond BUCKETS groups of a category, speakers are pooled.
    """
    name = f"groups {view.id}"
    speaker = case((ScoreFact.speaker == "", literal("\n") + ScoreFact.pair), else_=ScoreFact.speaker)
    by = [*(getattr(ScoreFact, n) for n in BY[:-1]), speaker.label("speaker")]
    summed = select(*by, *(value.label(key) for key, value in _sums().items())).where(view.where(), counted())
    with store.read() as session:
        last, withdrawn = _last(session, ScoreFact), _last(session, Withdrawal)
        kept = _state(session, name)
        if kept and (kept["last"], kept["withdrawn"]) == (last, withdrawn):
            return _frame(kept)
        parts, seen = [_frame(kept)], kept.get("last", 0)
        if kept and kept["withdrawn"] != withdrawn:  # what of these systems was added up is added up again
            again = _withdrawn_since(session, kept["withdrawn"])
            parts[0] = parts[0][~parts[0]["fingerprint"].isin(again)]
            old = summed.where(ScoreFact.id <= seen, ScoreFact.fingerprint.in_(again)).group_by(*by)
            parts.append(pd.DataFrame(session.execute(old).all(), columns=[*BY, *SUMS]))
        new = summed.where(ScoreFact.id > seen).group_by(*by)
        parts.append(pd.DataFrame(session.execute(new).all(), columns=[*BY, *SUMS]))
    total = pooled(pd.concat([p for p in parts if len(p)] or parts))
    columns = {c: total[c].tolist() for c in total.columns}
    _keep(store, name, {"layout": LAYOUT, "last": last, "withdrawn": withdrawn, "columns": columns})
    return total


def _withdrawn_since(session: Session, last: int) -> list[str]:
    """Fingerprints of the systems of whose rows some were withdrawn after withdrawal number `last`."""
    rows = session.execute(select(Withdrawal.kind, Withdrawal.target).where(Withdrawal.id > last)).all()
    systems = {target for kind, target in rows if kind == "system"}
    keys = [target for kind, target in rows if kind == "score"]
    for first in range(0, len(keys), 500):
        part = select(ScoreFact.fingerprint).where(ScoreFact.key.in_(keys[first : first + 500]))
        systems |= set(session.scalars(part))
    return sorted(systems)


def pooled(sums: pd.DataFrame) -> pd.DataFrame:
    """Groups of one name added up; in categories of more than BUCKETS speakers, speakers by a sum of their names."""
    many = sums.groupby("category")["speaker"].nunique()
    already = sums["speaker"].str.startswith(POOLED)
    crowded = sums["category"].isin({*many[many > BUCKETS].index, *sums.loc[already, "category"]})
    if crowded.any():
        bucket = sums["speaker"].map(lambda name: f"{POOLED}{zlib.crc32(name.encode()) % BUCKETS}")
        sums = sums.assign(speaker=sums["speaker"].where(already | ~crowded, bucket))
    for column in SUMS:
        sums = sums.assign(**{column: pd.to_numeric(sums[column]).fillna(0)})
    return sums.groupby(list(BY), as_index=False, sort=True)[list(SUMS)].sum()


def _frame(kept: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(kept["columns"], columns=[*BY, *SUMS]) if kept else pd.DataFrame(columns=[*BY, *SUMS])


def _last(session: Session, table: type[Fact]) -> int:
    return session.scalar(select(func.max(table.id))) or 0


def _state(session: Session, name: str) -> dict[str, Any]:
    kept = session.get(Derived, name)
    return kept.state if kept is not None and kept.state.get("layout") == LAYOUT else {}


def _keep(store: Store, name: str, state: dict[str, Any]) -> None:
    with store.write() as session:
        session.merge(Derived(name=name, state=state))


# -------------------------------------------------------------------------- the table


def leaderboard(
    store: Store,
    view: View | None = None,
    category: str = "",
    rank_by: str = "lse_d",
    human: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The table of a view, as JSON takes it; computed once for a state of the store.

    view      default: the latest
    category  "" for all
    rank_by   a column that has a better side
    human     by fingerprint: what people said, laid beside the row; default: people.human, of published studies

    heading, set, footer    what it is of, and the credit line
    n                       clips that any of its systems was given
    cannot_rank             why nothing is ranked, or None
    notes                   sentences that belong under it
    answer                  {"text", "best", "others", "sharpest"}: the sentence, and the systems in it
    columns                 as COLUMNS
    rows                    ranked by `rank_by`, then what is not ranked; the untouched clips and the real ones last. Of
                            each: label, system, fingerprint, tier, role ("", floor, ceiling), tried, scored, failed,
                            rank ([first, last] or None), unranked (why), values {name: mean, low, high, n}, distance,
                            human
    changes                 how many clips would have to go the other way for first place to change; None: untold
    Raises BenchmarkError for a column that ranks nothing, or an empty store.
    """
    if BY_NAME.get(rank_by, Column("", "", "", "", 0)).better == "":
        able = ", ".join(c.name for c in COLUMNS if c.better)
        raise BenchmarkError("Nothing is ranked by {rank_by!r}: choose one of {able}.", rank_by=rank_by, able=able)
    view = view or find_view(store)
    with store.read() as session:
        state = [_last(session, t) for t in (ScoreFact, Withdrawal, DistanceFact, CheckFact, SystemFact, SetFact)]
        name = f"table {view.id} {category} {rank_by}"
        kept = _state(session, name)
    if kept.get("of") == [*state, VERSION]:
        table = kept["table"]
    else:
        table = _computed(store, view, category, rank_by)
        _keep(store, name, {"layout": LAYOUT, "of": [*state, VERSION], "table": table})
    if human is None:
        from .people import human as said  # which stands on this module

        human = said(store, view.set_sha256)
    for row in table["rows"]:
        row["human"] = dict(human.get(row["fingerprint"], {})) or None
    return table


def _computed(store: Store, view: View, category: str, rank_by: str) -> dict[str, Any]:
    sums = groups(store, view)
    if category:
        sums = sums[sums["category"] == category]
    with store.read() as session:
        record = session.scalars(select(SetFact).where(SetFact.key == view.set_sha256)).first()
        cards = {
            f: (c, k) for f, c, k in session.execute(select(SystemFact.fingerprint, SystemFact.card, SystemFact.id))
        }
        distances = _distances(session, view, category)
        check = session.scalars(
            select(CheckFact).where(
                CheckFact.set_sha256 == view.set_sha256,
                CheckFact.evaluator_sha256 == view.evaluator_sha256,
                CheckFact.protocol_hash == view.protocol_hash,
                CheckFact.measure_version == view.measure_version,
            )
        ).first()
    table = ranked(sums, rank_by, {f: card for f, (card, _) in cards.items()}, failed_check(check))
    for row in table["rows"]:
        row["distance"] = distances.get(row["fingerprint"])
    ranked_rows = [r for r in table["rows"] if r["rank"]]
    changes = None
    if len(ranked_rows) > 1:
        first, second = (_by_pair(store, view, category, r["fingerprint"], r["tier"], rank_by) for r in ranked_rows[:2])
        changes = changes_needed(first, second, BY_NAME[rank_by].better)
    notes = list(table["notes"])
    if check is None:
        notes.append("The evaluator was not checked on this set: whether it finds known shifts is not known.")
    if view.measure_version != VERSION:
        notes.append(f"Measured with version {view.measure_version} of the measures; it is {VERSION} now.")
    return table | {
        "view": asdict(view) | {"id": view.id},
        "heading": view.heading(),
        "category": category,
        "rank_by": rank_by,
        "title": record.title if record else view.set_name,
        "version": record.version if record else "",
        "footer": record.footer if record else "",
        "check": None if check is None else {"tried": check.tried, "found": check.found},
        "changes": changes,
        "notes": notes,
        "columns": [asdict(c) for c in COLUMNS],
    }


def failed_check(check: CheckFact | None) -> str | None:
    """Why an evaluator ranks nothing on a set; None where it may."""
    if check is None:
        return None
    if not check.tried:
        return f"Cannot be ranked: {check.evaluator} could score none of the set's real clips by {check.protocol}."
    if check.found < PASSED * check.tried:
        return (
            f"Cannot be ranked: on this set's real clips {check.evaluator} found {check.found} of {check.tried} known "
            f"shifts of the sound; {math.ceil(PASSED * check.tried)} are needed."
        )
    return None


def ranked(
    sums: pd.DataFrame,
    rank_by: str = "lse_d",
    cards: Mapping[str, Mapping[str, Any]] | None = None,
    cannot_rank: str | None = None,
) -> dict[str, Any]:
    """The table of groups (columns BY and SUMS): `leaderboard` without what else the store knows. Pure.

    cards  of systems by fingerprint: a `role` of "floor" or "ceiling" there, else the names untouched and real, say
           which rows are limits and no competitors
    """
    cards, better = cards or {}, BY_NAME[rank_by].better
    member, systems = pd.factorize(pd.MultiIndex.from_frame(sums[list(BY[:3])]))
    speaker, speakers = pd.factorize(sums["speaker"], sort=True)
    keys = [tuple(map(str, key)) for key in systems]
    filled = {c: np.zeros((len(keys), len(speakers))) for c in SUMS}
    for column, total in filled.items():
        np.add.at(total, (member, speaker), sums[column].to_numpy(float))
    sums_of, counts_of = (np.concatenate([filled[f"{c.name}_{k}"] for c in COLUMNS]) for k in "sn")
    each = np.split(bootstrap_ratio(sums_of, counts_of, DRAWS, SEED), len(COLUMNS), axis=1)  # the same draws for all
    drawn = {c.name: draws for c, draws in zip(COLUMNS, each, strict=True)}
    tried = filled["rows"].sum(1)
    base = float(tried.max()) if len(keys) else 0.0
    named = [k[0] for k in keys]
    rows = []
    for i, (system, fingerprint, tier) in enumerate(keys):
        values = {
            c.name: _cell(filled[f"{c.name}_s"][i], filled[f"{c.name}_n"][i], drawn[c.name][:, i], c) for c in COLUMNS
        }
        scored = int(filled["lse_d_n"][i].sum())
        role = _role(system, cards.get(fingerprint, {}))
        why = None if role else cannot_rank
        if not role and why is None and scored < FEWEST_SHARE * base:
            why = f"Scored on {scored} of {base:.0f} clips: systems are ranked from {FEWEST_SHARE:.0%} on."
        if not role and why is None and values[rank_by]["mean"] is None:
            why = f"It has no value of {BY_NAME[rank_by].title}."
        rows.append(
            {
                "label": system if named.count(system) == 1 else f"{system} ({fingerprint[:6]})",
                "system": system,
                "fingerprint": fingerprint,
                "tier": tier,
                "role": role,
                "tried": int(tried[i]),
                "scored": scored,
                "failed": int(filled["failed"][i].sum()),
                "rank": None,
                "unranked": why,
                "values": values,
                "distance": None,
                "human": None,
            }
        )
    able = [i for i, row in enumerate(rows) if not row["role"] and row["unranked"] is None]
    sure = {(i, j): _surely_better(drawn[rank_by], i, j, better) for i in able for j in able if i != j}
    for i in able:
        above = sum(sure[j, i] for j in able if j != i)
        below = sum(sure[i, j] for j in able if j != i)
        rows[i]["rank"] = [1 + above, len(able) - below]
    sign = 1 if better == "lower" else -1

    def order(i: int) -> tuple:
        row = rows[i]
        mean = row["values"][rank_by]["mean"]
        kind = 0 if row["rank"] else {"": 1, "floor": 2, "ceiling": 3}[row["role"]]
        return (kind, (row["rank"] or [0])[0], mean is None, sign * (mean or 0.0), row["label"])

    listed = sorted(range(len(rows)), key=order)
    answer = _answer(rows, [i for i in listed if rows[i]["rank"]], sure, drawn, rank_by, int(base), cannot_rank)
    notes = []
    if len(able) > 1 and not any(sure.values()):
        notes.append(f"This set does not separate these systems in {BY_NAME[rank_by].title}.")
    return {
        "n": int(base),
        "cannot_rank": cannot_rank,
        "notes": notes,
        "answer": answer,
        "changes": None,
        "rows": [rows[i] for i in listed],
    }


def _role(system: str, card: Mapping[str, Any]) -> str:
    return card.get("role") or {FLOOR: "floor", CEILING: "ceiling"}.get(system.lower(), "")


def _cell(sums: np.ndarray, counts: np.ndarray, drawn: np.ndarray, column: Column) -> dict[str, Any]:
    total = counts.sum()
    if not total:
        return {"mean": None, "low": None, "high": None, "n": 0}
    span = _span(drawn)
    n = None if column.name == "speed" else int(total)
    return {"mean": float(sums.sum() / total), "low": span[0], "high": span[1], "n": n}


def _span(drawn: np.ndarray) -> tuple[float | None, float | None]:
    """The interval of draws; none where no draw could be made."""
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return None, None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def _surely_better(drawn: np.ndarray, i: int, j: int, better: str) -> bool:
    low, high = _span(drawn[:, i] - drawn[:, j])
    if low is None or high is None:
        return False
    return high < 0 if better == "lower" else low > 0


def _answer(
    rows: list[dict], order: list[int], sure: dict, drawn: dict, rank_by: str, n: int, cannot_rank: str | None
) -> dict[str, Any]:
    """One sentence, and the names in it."""
    said = {"text": "", "best": [], "others": [], "sharpest": None}
    label = [row["label"] for row in rows]
    what = "sync" if rank_by in ("lse_d", "lse_c", "in_sync") else BY_NAME[rank_by].title
    if cannot_rank or not order:
        why = cannot_rank or (
            "No system has been run on this set yet."
            if not any(not r["role"] for r in rows)
            else "No system has scores on enough clips to be ranked."
        )
        return said | {"text": why}
    best = [i for i in order if rows[i]["rank"][0] == 1]
    said |= {"best": [label[i] for i in best], "others": [label[i] for i in order if i not in best]}
    clips = f"On {n} clip{'s' if n != 1 else ''}, "
    if len(order) == 1:
        return said | {"text": f"{clips}{label[best[0]]} is the only system."}
    if len(best) == 1:
        text = f"{clips}{label[best[0]]} is first in {what}"
    else:
        text = f"{clips}{_listed([label[i] for i in best])} cannot be told apart in {what}"
        sharp = sorted(best, key=lambda i: -(rows[i]["values"]["sharpness"]["mean"] or 0))
        rest = sharp[1:]
        if all(_surely_better(drawn["sharpness"], sharp[0], j, "higher") for j in rest):
            said["sharpest"] = label[sharp[0]]
            text += f"; {label[sharp[0]]} is {'sharper' if len(best) == 2 else 'the sharpest'}"
    return said | {"text": f"{text}."}


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _by_pair(store: Store, view: View, category: str, fingerprint: str, tier: str, column: str) -> pd.Series:
    """A column's values of a system by pair; kept like `groups`, new rows alone are read."""
    value = {
        "in_sync": case((func.abs(ScoreFact.offset) <= WITHIN, 1.0), (ScoreFact.offset.is_not(None), 0.0)),
        "speed": case((ScoreFact.seconds > 0, ScoreFact.frames / ScoreFact.seconds)),
    }.get(column)
    value = getattr(ScoreFact, column) if value is None else value
    name = f"pairs {view.id} {fingerprint} {tier} {column}"
    with store.read() as session:
        last, withdrawn = _last(session, ScoreFact), _last(session, Withdrawal)
        kept = _state(session, name)
        if kept.get("withdrawn") != withdrawn:
            kept = {}
        query = select(ScoreFact.pair, ScoreFact.category, value).where(
            ScoreFact.id > kept.get("last", 0),
            view.where(),
            counted(),
            ScoreFact.fingerprint == fingerprint,
            ScoreFact.tier == tier,
            value.is_not(None),
        )
        found = session.execute(query).all() if kept.get("last") != last else []
    columns = [list(c) for c in zip(*found, strict=True)] or [[], [], []]
    columns = [old + new for old, new in zip(kept.get("columns", [[], [], []]), columns, strict=True)]
    if kept.get("last") != last:
        _keep(store, name, {"layout": LAYOUT, "last": last, "withdrawn": withdrawn, "columns": columns})
    pairs, categories, values = columns
    series = pd.Series(values, index=pairs, dtype=float)
    return series[np.array(categories) == category] if category else series


def changes_needed(first: pd.Series, second: pd.Series, better: str) -> int | None:
    """Of the clips that both have, how many would have to go the other way, the two systems' values exchanged, before
    the first is no longer ahead of the second. None where they share no clip; 0 where it is not ahead on these.

    first, second  values by pair
    better         lower or higher
    """
    ahead = (second - first if better == "lower" else first - second).dropna().to_numpy()
    if not len(ahead):
        return None
    left = ahead.sum()
    if left <= 0:
        return 0
    # Exchanging the values of a clip takes twice its difference from the sum; the most favourable clips go first.
    after = left - 2 * np.cumsum(np.sort(ahead)[::-1])
    return int(np.argmax(after <= 1e-12 * max(abs(ahead).max(), 1e-300))) + 1


def _distances(session: Session, view: View, category: str) -> dict[str, dict[str, Any]]:
    """The Fréchet distance of each system over the most clips, the latest of these; all of one encoder.

    A later run of a few pairs must not take the place of one of the whole set.
    """
    query = (
        select(DistanceFact)
        .where(DistanceFact.set_sha256 == view.set_sha256, DistanceFact.category == category)
        .order_by(DistanceFact.clips, DistanceFact.id)
    )
    rows = session.scalars(query).all()
    if not rows:
        return {}
    names = (
        "encoder",
        "encoder_sha256",
        "title",
        "crop",
        "clips",
        "n_real",
        "n_made",
        "frechet",
        "extrapolated",
        "kid",
    )
    same = [r for r in rows if (r.encoder_sha256, r.crop) == (rows[-1].encoder_sha256, rows[-1].crop)]
    return {r.fingerprint: {n: getattr(r, n) for n in names} for r in same}


# ----------------------------------------------------------------------------- single rows


def clips(
    store: Store,
    view: View,
    category: str = "",
    pair: str | None = None,
    fingerprints: Sequence[str] | None = None,
    most: int = 10_000,
) -> pd.DataFrame:
    """The rows that count, one a clip and system, as the plots and the table of clips take them; latest `most`."""
    names = (
        "key",
        "system",
        "fingerprint",
        "tier",
        "pair",
        "category",
        "speaker",
        "language",
        "offset",
        "lse_d",
        "lse_c",
        "coverage",
        "identity",
        "sharpness",
        "movement",
        "frames",
        "seconds",
        "reason",
        "video_sha256",
    )
    query = select(*(getattr(ScoreFact, n) for n in names)).where(view.where(), counted())
    if category:
        query = query.where(ScoreFact.category == category)
    if pair is not None:
        query = query.where(ScoreFact.pair == pair)
    if fingerprints is not None:
        query = query.where(ScoreFact.fingerprint.in_(list(fingerprints)))
    with store.read() as session:
        found = session.execute(query.order_by(ScoreFact.id.desc()).limit(most)).all()
    return pd.DataFrame(found, columns=list(names))


def failures(store: Store, view: View, most: int = 50) -> pd.DataFrame:
    """Why systems have no numbers: system, category, reason, clips; the most frequent first."""
    by = (ScoreFact.system, ScoreFact.category, ScoreFact.reason)
    query = select(*by, func.count()).where(view.where(), counted(), ScoreFact.reason.is_not(None)).group_by(*by)
    with store.read() as session:
        found = session.execute(query.order_by(func.count().desc(), *by).limit(most)).all()
    return pd.DataFrame(found, columns=["system", "category", "reason", "clips"])


def flat(table: Mapping[str, Any]) -> pd.DataFrame:
    """A leaderboard as one line a system, for CSV: ranks, means, limits of intervals, distance, people's votes."""
    lines = []
    for row in table["rows"]:
        line = {n: row[n] for n in ("label", "system", "fingerprint", "tier", "role", "tried", "scored", "failed")}
        line |= {
            "rank_first": (row["rank"] or [None])[0],
            "rank_last": (row["rank"] or [None])[-1],
            "unranked": row["unranked"],
        }
        for column in COLUMNS:
            value = row["values"][column.name]
            line |= {
                column.name: value["mean"],
                f"{column.name}_low": value["low"],
                f"{column.name}_high": value["high"],
            }
        distance = row["distance"] or {}
        line |= {
            "frechet": distance.get("frechet"),
            "frechet_title": distance.get("title"),
            "frechet_clips": distance.get("clips"),
        }
        line |= {f"human_{k}": v for k, v in (row["human"] or {}).items() if not isinstance(v, dict | list)}
        lines.append(line)
    kinds = dict.fromkeys(("rank_first", "rank_last"), "Int64")
    return pd.DataFrame(lines).astype(kinds if lines else {})
