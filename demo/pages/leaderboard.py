"""Leaderboard of the benchmark: a page of its own address, the card of each row, and both as files.

Everything shown is computed by `resynced.leaderboard`, which keeps its table in the store until a row is added; here it
is put into words, in two languages, and into an order. Whatever a store holds is escaped by the templates.
"""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import FastAPI, HTTPException, Request
from starlette.responses import FileResponse, JSONResponse, Response

from eval.results import VERSION
from resynced import leaderboard as board
from resynced.export import entry_card, row_card
from resynced.people import human
from resynced.published import FIGURES, PAPER
from resynced.records import CATEGORIES, BenchmarkError

from .. import benchmark
from .frame import languages, render, words_of

if TYPE_CHECKING:
    from resynced.store import Store

    from ..context import Context

Words = dict[str, str]
_log = logging.getLogger(__name__)
RANKED_BY = tuple(c.name for c in board.COLUMNS if c.better and c.name != "coverage")
SORTED_BY = {"sync": "lse_d", "picture": "sharpness", "motion": "movement", "people": "", "n": ""}
BAR_PX = 100
MOST_CLIPS = 100_000  # lines of clips.csv


@dataclass(frozen=True)
class Asked:
    """What an address asks for, brought into bounds."""

    view: board.View
    category: str
    rank_by: str
    sort: str
    descending: bool
    lang: str = ""  # where the address says one

    def query(self, **changed: str) -> str:
        """The query of an address for this, with some of it changed; it names the view, so that the link stays."""
        said = {"view": self.view.id, "category": self.category, "rank_by": self.rank_by, "sort": self.sort}
        said |= {"dir": "down" if self.descending else "", "lang": self.lang, **changed}
        usual = {"category": "", "rank_by": "lse_d", "sort": "rank", "dir": "", "lang": ""}
        return urlencode({k: v for k, v in said.items() if v != usual.get(k)})


def add(app: FastAPI, context: Context) -> None:
    """The routes below /leaderboard."""

    @app.get("/leaderboard")
    def page(request: Request) -> Response:
        """The table."""
        t = words_of(request)
        common = {"title": t["lb_title"], "languages": languages(request)}
        try:
            known = board.views(context.store)
            shared = common | benchmark.state(context, t)
            if not known:
                return render("leaderboard.html", t, state="empty", **shared)
            asked = read(request.query_params, known)
            table = _table(context.store, asked)
            fact = benchmark.set_of(context.store, asked.view)
            shown = shown_table(table, asked, known, t) | {"set_notes": fact.record.get("notes", []) if fact else []}
        except BenchmarkError as error:
            _log.warning("the leaderboard cannot be shown: %s", error)
            return render("leaderboard.html", t, 503, state="failed", running="", last_error="", **common)
        return render("leaderboard.html", t, state="table", **shared, **shown)

    @app.get("/leaderboard.json")
    def as_json(request: Request) -> Response:
        """The table as `resynced.leaderboard.leaderboard` gives it, and the views that there are."""
        known, asked = _asked(context, request)
        table = _table(context.store, asked)
        views = [{"id": v.id, "heading": v.heading()} for v in known]
        return _download(json.dumps(table | {"views": views}, ensure_ascii=False, indent=1), "json", asked)

    @app.get("/leaderboard.csv")
    def as_csv(request: Request) -> Response:
        """A line a system."""
        _, asked = _asked(context, request)
        table = _table(context.store, asked)
        return _download(_csv(board.flat(table)), "csv", asked)

    @app.get("/leaderboard/clips.csv")
    def clips_csv(request: Request) -> Response:
        """A line a clip and system: the rows that count."""
        _, asked = _asked(context, request)
        return _download(_csv(board.clips(context.store, asked.view, asked.category, most=MOST_CLIPS)), "csv", asked)

    @app.get("/leaderboard/row/{view}/{fingerprint}")
    def row(view: str, fingerprint: str, request: Request) -> Response:
        """The card of a system's row: its figures, and the commands that make it again."""
        as_data = fingerprint.endswith(".json")
        with _sentences():
            found = board.find_view(context.store, id=view)
            card = entry_card(context.store, found, fingerprint.removesuffix(".json"))
        if as_data:
            return JSONResponse(card | {"view": found.heading(), "view_id": found.id})
        t = words_of(request)
        rows = board.clips(context.store, found, fingerprints=[card["fingerprint"]])
        clips = sorted(json.loads(rows.to_json(orient="records")), key=lambda one: one["pair"])
        values = {"card": card, "view": found, "clips": clips, "tier": t[f"tier_{card['tier'].replace('-', '_')}"]}
        return render("row.html", t, title=card["system"], languages=languages(request), **values)

    @app.get("/leaderboard/score/{key}.json")
    def score(key: str) -> Response:
        """One clip's row: every number, set, run, and what makes it again."""
        with _sentences():
            return JSONResponse(row_card(context.store, key))

    @app.get("/benchmark/video/{view}/{fingerprint}/{pair}")
    def video(view: str, fingerprint: str, pair: str, request: Request) -> FileResponse:
        """A clip as a system made it, to whoever may watch the set."""
        with _sentences():
            found = board.find_view(context.store, id=view)
            if not benchmark.may_watch(context, found, context.operator.is_operator(request)):
                raise BenchmarkError("The videos of this set are shown to the operator alone.")
            path = benchmark.video_file(context, found, fingerprint, pair)
        if path is None:
            raise HTTPException(404, "There is no such video here.")
        return FileResponse(path, media_type="video/mp4", headers={"Cache-Control": "private, max-age=600"})


def _table(store: Store, asked: Asked) -> dict[str, Any]:
    """The table that is asked for, with what people said of its systems."""
    people = human(store, asked.view.set_sha256)
    return board.leaderboard(store, asked.view, asked.category, asked.rank_by, people)


class _sentences:
    """What is not there is a 404 with its sentence."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, BenchmarkError):
            raise HTTPException(404, error.message) from error


def _asked(context: Context, request: Request) -> tuple[list[board.View], Asked]:
    with _sentences():
        known = board.views(context.store)
        if not known:
            raise BenchmarkError("The store has no scores yet.")
        return known, read(request.query_params, known)


def _csv(table: Any) -> str:
    """A table for spreadsheets, in which no cell is a formula."""
    text = io.StringIO()
    for column in table.select_dtypes(exclude="number"):
        risky = table[column].map(lambda v: isinstance(v, str) and v[:1] in "=+-@\t\r" and v != "")
        table[column] = table[column].where(~risky, "'" + table[column].astype(str))
    table.to_csv(text, index=False)
    return text.getvalue()


def _download(text: str, kind: str, asked: Asked) -> Response:
    name = f"leaderboard-{asked.view.id}{'-' + asked.category if asked.category else ''}.{kind}"
    kinds = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(text, media_type=kinds[kind], headers=headers)


# ------------------------------------------------------------------------- what is asked


def read(query: Mapping[str, str], known: list[board.View]) -> Asked:
    """What a query asks for; what it gets wrong is as if it were not said. known: not empty, the latest view first."""
    chosen = query.get("set", "")
    views = [v for v in known if v.set_sha256[:12] == chosen] or known
    view = next((v for v in views if v.id == query.get("view")), views[0])
    category = query.get("category", "")
    rank_by, sort = query.get("rank_by", "lse_d"), query.get("sort", "rank")
    return Asked(
        view,
        category if category in CATEGORIES else "",
        rank_by if rank_by in RANKED_BY else "lse_d",
        sort if sort in ("rank", "system", *SORTED_BY) else "rank",
        query.get("dir") == "down",
        query.get("lang", "") if query.get("lang") in ("en", "ko") else "",
    )


# -------------------------------------------------------------------------- in words


def shown_table(table: dict[str, Any], asked: Asked, known: list[board.View], t: Words) -> dict[str, Any]:
    """Everything that leaderboard.html shows of a table."""
    shown_sync = asked.rank_by if asked.rank_by in ("lse_d", "lse_c", "in_sync") else "lse_d"
    columns = {"sync": shown_sync, "picture": "sharpness", "motion": "movement"}
    spans = {name: _span(table["rows"], column) for name, column in columns.items()}
    rows = [_row(row, table, asked, columns, spans, t) for row in _ordered(table["rows"], asked, shown_sync)]
    sets = list({v.set_sha256: v for v in known}.values())
    same_set = [v for v in known if v.set_sha256 == asked.view.set_sha256]
    stale = ""
    if asked.view.measure_version != VERSION:
        stale = t["lb_stale"].format(old=asked.view.measure_version, now=VERSION)
    return {
        "asked": asked,
        "heading": table["heading"],
        "set_title": table["title"],
        "set_version": table["version"],
        "footer": table["footer"],
        "answer": answer(table, t),
        "changes": changes(table, t),
        "notes": notes(table, t),
        "stale": stale,
        "newer": next((v for v in same_set if v.measure_version == VERSION), None) if stale else None,
        "rows": rows,
        "heads": [_head(name, columns, asked, t) for name in ("system", *SORTED_BY)],
        "sets": sets,
        "views": same_set,
        "categories": [("", t["lb_all"]), *((c, t[f"category_{c}"]) for c in CATEGORIES)],
        "measures": [(name, t[f"measure_{name}"]) for name in RANKED_BY],
        "explained": [(t[f"measure_{c.name}"], t[f"about_{c.name}"]) for c in board.COLUMNS],
        "published": published_tables(t),
    }


def answer(table: Mapping[str, Any], t: Words) -> str:
    """The sentence before the table."""
    if table["cannot_rank"]:
        return cannot_rank(table, t)
    said, measure = table["answer"], t[f"measure_{table['rank_by']}"]
    if not said["best"]:
        nobody = not any(not row["role"] for row in table["rows"])
        return t["lb_nobody" if nobody else "lb_too_few"]
    best = ", ".join(said["best"])
    if not said["others"] and len(said["best"]) == 1:
        return t["lb_only"].format(n=table["n"], a=best)
    if len(said["best"]) == 1:
        return t["lb_first"].format(n=table["n"], a=best, measure=measure)
    words = t["lb_together"].format(n=table["n"], a=best, measure=measure)
    return words + (" " + t["lb_sharpest"].format(a=said["sharpest"]) if said["sharpest"] else "")


def cannot_rank(table: Mapping[str, Any], t: Words) -> str:
    """Why nothing of a table is ranked."""
    check, evaluator = table["check"], table["view"]["evaluator"]
    if not check["tried"]:
        return t["lb_blind"].format(evaluator=evaluator)
    need = math.ceil(board.PASSED * check["tried"])
    return t["lb_unsure"].format(evaluator=evaluator, found=check["found"], tried=check["tried"], need=need)


def changes(table: Mapping[str, Any], t: Words) -> str:
    """How firm the first place is."""
    count = table["changes"]
    return "" if not count else t["lb_changes_one"] if count == 1 else t["lb_changes"].format(n=count)


def notes(table: Mapping[str, Any], t: Words) -> list[str]:
    """What belongs under a table."""
    found = []
    able = [row["rank"] for row in table["rows"] if row["rank"]]
    if len(able) > 1 and all(rank == [1, len(able)] for rank in able):
        found.append(t["lb_inseparable"].format(measure=t[f"measure_{table['rank_by']}"]))
    if table["check"] is None:
        found.append(t["lb_unchecked"])
    elif not table["cannot_rank"]:
        found.append(t["lb_checked"].format(found=table["check"]["found"], tried=table["check"]["tried"]))
    return found


def unranked(row: Mapping[str, Any], table: Mapping[str, Any], t: Words) -> str:
    """Why one row has no rank; "" where it has one, or is a limit."""
    if row["role"] or row["rank"]:
        return ""
    if table["cannot_rank"]:
        return t["lb_none_ranked"]
    if row["scored"] < board.FEWEST_SHARE * table["n"]:
        return t["lb_few"].format(n=row["scored"], of=table["n"], share=f"{board.FEWEST_SHARE:.0%}")
    return t["lb_no_value"].format(measure=t[f"measure_{table['rank_by']}"])


def _ordered(rows: list[dict[str, Any]], asked: Asked, sync: str) -> list[dict[str, Any]]:
    """Rows as they are to stand: limits last whatever the order, and rows without a value before them."""
    if asked.sort == "rank":
        return rows
    found = [row for row in rows if not row["role"]]

    def value(row: dict[str, Any]) -> Any:
        if asked.sort == "system":
            return row["label"].lower()
        if asked.sort == "n":
            return row["scored"]
        if asked.sort == "people":
            return (row["human"] or {}).get("share")
        return row["values"][sync if asked.sort == "sync" else SORTED_BY[asked.sort]]["mean"]

    there = sorted((r for r in found if value(r) is not None), key=value, reverse=asked.descending)
    return there + [r for r in found if value(r) is None] + [r for r in rows if r["role"]]


def _head(name: str, columns: Mapping[str, str], asked: Asked, t: Words) -> dict[str, str]:
    """A heading: what it says, where a click on it leads, and how it is sorted."""
    column = board.BY_NAME.get(columns.get(name, ""))
    sign = {"lower": "↓", "higher": "↑"}.get(column.better, "") if column else ""
    state, change = "none", {"sort": name, "dir": ""}
    if asked.sort == name:
        state = "descending" if asked.descending else "ascending"
        change = {"sort": "rank", "dir": ""} if asked.descending else {"sort": name, "dir": "down"}
    unit = t[f"measure_{column.name}"] if column else ""
    better = {"↓": t["lb_lower"], "↑": t["lb_higher"], "": ""}[sign]
    return {
        "name": name,
        "title": t[f"col_{name}"],
        "unit": unit,
        "sign": sign,
        "better": better,
        "state": state,
        "query": asked.query(**change),
    }


def _row(
    row: dict[str, Any],
    table: dict[str, Any],
    asked: Asked,
    columns: Mapping[str, str],
    spans: Mapping[str, tuple[float, float]],
    t: Words,
) -> dict[str, Any]:
    first, last = row["rank"] or (None, None)
    rank = "–" if first is None else str(first) if first == last else f"{first}–{last}"
    distance = row["distance"] or {}
    measures = [_measure(row["values"][c.name], c, t) for c in board.COLUMNS]
    if distance.get("frechet") is not None:
        count = t["lb_clips"].format(n=distance["clips"])
        measures.append((distance["title"], f"{distance['frechet']:.3f}", f"{count}, {distance['crop']}"))
    failed = t["lb_failed"].format(n=row["failed"], of=row["tried"]) if row["failed"] else ""
    return {
        "label": row["label"] if not row["role"] else t[f"role_{row['role']}"],
        "role": row["role"],
        "rank": rank,
        "unranked": unranked(row, table, t),
        "tier": t[f"tier_{row['tier'].replace('-', '_')}"],
        "cells": {n: _cell(row["values"][c], board.BY_NAME[c], spans[n]) for n, c in columns.items()},
        "human": _human(row["human"], t),
        "n": row["scored"],
        "tried": row["tried"],
        "failed": failed,
        "measures": measures,
        "fingerprint": row["fingerprint"],
        "link": f"/leaderboard/row/{asked.view.id}/{row['fingerprint'][:16]}",
    }


def _measure(value: Mapping[str, Any], column: board.Column, t: Words) -> tuple[str, str, str]:
    """A measure's name, its mean, and what stands behind it."""
    name = t[f"measure_{column.name}"]
    if value["mean"] is None:
        return name, "–", ""
    behind = (
        []
        if value["low"] is None
        else [t["lb_interval"].format(low=_number(value["low"], column), high=_number(value["high"], column))]
    )
    behind += [t["lb_clips"].format(n=value["n"])] if value["n"] is not None else []
    return name, _number(value["mean"], column), ", ".join(behind)


def _human(said: Mapping[str, Any] | None, t: Words) -> str:
    """People's vote: the share of comparisons that were won, and how many there were."""
    if not said or said.get("share") is None:
        return ""
    return t["lb_votes"].format(share=f"{said['share']:.0%}", n=said.get("n", 0))


def _number(value: float, column: board.Column) -> str:
    return f"{value:.{column.digits}f}"


def _span(rows: list[dict[str, Any]], column: str) -> tuple[float, float]:
    """The scale that all bars of a column share."""
    ends = [row["values"][column][end] for row in rows for end in ("low", "mean", "high")]
    known = [v for v in ends if v is not None]
    if not known:
        return 0.0, 1.0
    room = (max(known) - min(known)) * 0.05 or 0.5
    return min(known) - room, max(known) + room


def _cell(value: Mapping[str, Any], column: board.Column, span: tuple[float, float]) -> dict[str, Any]:
    """A figure with the places of its bar, in pixels."""
    if value["mean"] is None:
        return {"text": "–", "bar": None}

    def at(v: float) -> float:
        return round(2 + (BAR_PX - 4) * (v - span[0]) / (span[1] - span[0]), 1)

    low, high = (value["mean"] if value[end] is None else value[end] for end in ("low", "high"))
    return {
        "text": _number(value["mean"], column),
        "bar": {"low": at(low), "mean": at(value["mean"]), "high": at(high)},
        "low": _number(low, column),
        "high": _number(high, column),
    }


def published_tables(t: Words) -> list[dict[str, Any]]:
    """The papers' figures, a table a set, each with the columns that it has."""
    names = ("lse_d", "lse_c", "fid", "sync", "visual", "overall", "preference")
    found = []
    for name in dict.fromkeys(figure.set for figure in FIGURES):
        figures = [figure for figure in FIGURES if figure.set == name]
        columns = [c for c in names if any(getattr(figure, c) is not None for figure in figures)]
        lines = [
            {
                "system": figure.system,
                "source": figure.source if figure.source.startswith(PAPER) else "",
                "status": t[f"status_{figure.status.replace('-', '_').replace(' ', '_')}"],
                "cells": ["–" if (v := getattr(figure, c)) is None else f"{v:g}" for c in columns],
            }
            for figure in figures
        ]
        found.append(
            {"set": name, "open": name == "LRS2", "columns": [t[f"paper_{c}"] for c in columns], "rows": lines}
        )
    return found
