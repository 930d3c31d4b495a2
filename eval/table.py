"""Rows as a table for people, and a set of rows as means with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table

from . import reference as compared
from .metrics import sync
from .metrics.base import Measure
from .results import ScoreRow
from .stats import bootstrap

_SHOWN = {m.name: m for m in (*sync.MEASURES, *(m for family in compared.FAMILIES.values() for m in family))}


def title(measure: Measure, evaluator: str) -> str:
    """A measure's heading: with syncnet-v2 "LSE-D", with any other evaluator its name beside it."""
    if evaluator == "syncnet-v2":
        return measure.title.replace(" ({evaluator})", "")
    return measure.title.format(evaluator=evaluator)


def number(row: ScoreRow, name: str) -> float | None:
    """A value of a row by its measure's name."""
    return row.values.get(name) if name in row.values else getattr(row, name, None)


def rows_table(rows: Sequence[ScoreRow], measures: Sequence[str]) -> Table:
    """A line a clip; a clip without numbers gives its reason in their place."""
    first = rows[0]
    shown = Table(title=first.heading(), title_justify="left", box=None, padding=(0, 2, 0, 0))
    shown.add_column("File", overflow="fold")
    for name in measures:
        shown.add_column(title(_SHOWN[name], first.evaluator), justify="right")
    shown.add_column("Coverage", justify="right")
    shown.add_column("Remark", overflow="fold")
    for row in rows:
        cells = [_cell(number(row, name)) for name in measures]
        cover = "" if row.coverage is None else f"{row.coverage:.0%}"
        shown.add_row(escape(Path(row.file).name), *cells, cover, escape(row.error or " ".join(row.remarks)))
    return shown


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def summary(rows: Sequence[ScoreRow], measures: Sequence[str]) -> dict[str, dict]:
    """Of each measure: n, mean, 95 % intervals over clips and, where identities are known, over identities."""
    out = {}
    for name in measures:
        having = [r for r in rows if number(r, name) is not None]
        values = np.array([float(number(r, name)) for r in having])
        who = [r.identity for r in having]
        known = all(who) and len(set(who)) > 1
        out[name] = {
            "n": len(values),
            "mean": float(values.mean()) if len(values) else None,
            "clips_95": bootstrap(values) if len(values) > 1 else None,
            "identities_95": bootstrap(values, groups=np.array(who)) if known else None,
        }
    return out


def groups(rows: Sequence[ScoreRow]) -> dict[tuple[str, str], list[ScoreRow]]:
    """The rows of each (set, system), in order of appearance: means of two systems pooled are means of neither."""
    out: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in rows:
        out.setdefault((row.set, row.system), []).append(row)
    return out


def summary_table(rows: Sequence[ScoreRow], measures: Sequence[str]) -> Table:
    """`summary` of each set and system as a table, with how many of its clips could be scored."""
    found = groups(rows)
    shown = Table(title=rows[0].heading(), title_justify="left", box=None, padding=(0, 2, 0, 0))
    named = [("Set", 0), ("System", 1)] if len(found) > 1 else []
    for column, _ in named:
        shown.add_column(column, overflow="fold")
    for column in ("Measure", "n", "Mean", "95 % over clips", "95 % over identities"):
        shown.add_column(column, justify="left" if column == "Measure" else "right")
    for key, members in found.items():
        names = [escape(key[place]) for _, place in named]
        scored = [r for r in members if r.error is None]
        shown.add_row(*names, f"{len(scored)} of {len(members)} clips scored")
        for name, one in summary(scored, measures).items():
            spans = ["–" if s is None else f"{s[0]:.3f} to {s[1]:.3f}" for s in (one["clips_95"], one["identities_95"])]
            measure = _SHOWN[name]
            arrow = {"higher": " ↑", "lower": " ↓"}.get(measure.better, "")
            words = title(measure, rows[0].evaluator) + arrow
            shown.add_row(*names, words, str(one["n"]), _cell(one["mean"]), *spans)
    return shown
