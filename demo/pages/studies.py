"""Operator's pages of studies: set one up, open and close it, watch it; its results, for everybody once published."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from fastapi import FastAPI, Request
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, RedirectResponse, Response

from lipsync.errors import LipsyncError

from ..i18n import by_header, worded
from .frame import render

if TYPE_CHECKING:
    from resynced.study_results import Results

    from ..context import Context

COUNTS = {  # of the form: field -> default
    "votes_per_pair": 100,
    "per_rater": 20,
    "training": 2,
    "gold": 2,
    "traps": 1,
    "repeats": 2,
    "items": "",
    "days": 14,
    "least_width_px": 0,
    "seed": 0,
}
WORDS = ("name", "title", "design", "language", "plan", "consent", "completion_code")
MOST_NUMBER = 1_000_000
HEADINGS = {  # of the tables, by how their names begin: sentence of what it shows
    "ranking": "study_ranking",
    "wins": "study_wins",
    "answers_by_system": "study_answers",
    "more_votes_to_part": "study_power",
    "mos_": "study_mos",
    "matched": "study_matched",
    "ordinal_": "study_ordinal",
    "correlation_": "study_correlation",
}
EFFECTS = ("side_effect", "order_effect")
WIDTH, HEIGHT, MARGIN = 320, 240, 34  # of a scatter plot


def add(app: FastAPI, context: Context) -> None:
    """The routes below /studies."""
    studies, operator = context.studies, context.operator

    def texts(request: Request) -> dict[str, str]:
        return by_header(request.headers.get("accept-language", ""))

    def refused(request: Request) -> Response:
        t = texts(request)
        return render("study_said.html", t, 403, title=t["studies_title"], said=t["studies_operator"], login=True)

    def missing(request: Request, error: LipsyncError, status: int = 404) -> Response:
        t = texts(request)
        return render(
            "study_said.html", t, status, title=t["studies_title"], said=worded(error.message, t), login=False
        )

    def listed(request: Request, given: dict[str, Any], said: str = "", status: int = 200) -> Response:
        from resynced.studies import DESIGNS, LANGUAGES
        from resynced.study_media import ready, sets_of

        t, rows = texts(request), []
        sets = sets_of(studies.store)
        for row in studies.desk.studies():
            done, of = ready(studies.desk.study(row["name"]), studies.data)
            rows.append(row | {"ready": done, "items": of, "published": studies.desk.is_published(row["name"])})
        chosen = next((s for s in sets if s["name"] == given.get("set")), sets[0] if sets else None)
        return render(
            "studies.html",
            t,
            status,
            title=t["studies_title"],
            rows=rows[::-1],
            sets=sets,
            chosen=chosen,
            given={"system": [], **COUNTS, **dict.fromkeys(WORDS, ""), **given},
            counts=tuple(COUNTS),
            designs=DESIGNS,
            languages=LANGUAGES,
            said=said,
            most=MOST_NUMBER,
        )

    @app.get("/studies")
    def overview(request: Request, set: str = "") -> Response:  # noqa: A002 - the address says ?set=
        """All studies, and the form of a new one."""
        if not operator.is_operator(request):
            return refused(request)
        try:
            return listed(request, {"set": set[:100]})
        except LipsyncError as error:
            return missing(request, error, 503)

    @app.post("/studies/new")
    async def create(request: Request) -> Response:
        """Write a study down and begin to make its videos."""
        from starlette.concurrency import run_in_threadpool

        if not operator.is_operator(request):
            return refused(request)
        async with request.form(max_fields=200, max_part_size=200_000) as form:
            given = {key: str(form[key])[:200_000] for key in (*WORDS, *COUNTS, "set") if key in form}
            systems = [str(value)[:100] for value in form.getlist("system")]
        return await run_in_threadpool(created, request, given, systems)

    def created(request: Request, given: dict[str, str], systems: list[str]) -> Response:
        from resynced.study_media import draft

        try:
            numbers = {key: _number(key, given.get(key, f"{default}")) for key, default in COUNTS.items()}
            words = {key: given.get(key, "").strip().replace("\r\n", "\n") for key in WORDS}
            words["title"] = words["title"] or words["name"]
            study = draft(studies.store, studies.data, given.get("set", ""), systems, **numbers, **words)
            studies.desk.create(study)
        except (LipsyncError, TypeError) as error:
            said = worded(getattr(error, "message", f"{error}"), texts(request))
            return listed(request, {**given, "system": systems}, said, 400)
        studies.prepare(study.name)
        return RedirectResponse(f"/studies/{study.name}", 303)

    @app.get("/studies/{name}")
    def study_page(name: str, request: Request) -> Response:
        """One study: record, state, counts, alarms, and what can be done with it."""
        from resynced.study_media import ready
        from resynced.study_results import progress

        if not operator.is_operator(request):
            return refused(request)
        t = texts(request)
        try:
            desk = studies.desk
            study, is_open = desk.study(name), desk.is_open(name)
            done, of = ready(study, studies.data)
            state = progress(study, desk.tables(name))
            return render(
                "study.html",
                t,
                title=study.title,
                study=study,
                is_open=is_open,
                published=desk.is_published(name),
                ready=done,
                items=of,
                preparing=studies.preparing(name),
                trouble=studies.trouble(name),
                state=state,
                wide=is_open or studies.preparing(name),
                address=f"{request.url.scheme}://{request.headers.get('host', '')}/rate/{name}",
            )
        except LipsyncError as error:
            return missing(request, error)

    def act(verb: str) -> None:
        @app.post(f"/studies/{{name}}/{verb}", name=f"study_{verb}")
        def done(name: str, request: Request) -> Response:
            from resynced.study_media import check_ready

            if not operator.is_operator(request):
                return refused(request)
            desk = studies.desk
            try:
                study = desk.study(name)
                if verb == "prepare":
                    studies.prepare(name)
                elif verb == "open":
                    check_ready(study, studies.data)
                    desk.open(name)
                elif verb == "close":
                    desk.close(name)
                else:
                    desk.publish(name, verb == "publish")
            except LipsyncError as error:
                return missing(request, error, 409)
            return RedirectResponse(f"/studies/{name}", 303)

    for verb in ("open", "close", "publish", "unpublish", "prepare"):
        act(verb)

    @app.get("/studies/{name}/results")
    def results(name: str, request: Request) -> Response:
        """Every statistic; for visitors without systems that have too few votes."""
        t, inside = texts(request), operator.is_operator(request)
        try:
            if not inside and not studies.desk.is_published(name):
                return missing(request, _hidden(t))
            found, is_open = studies.results(name), studies.desk.is_open(name)
        except LipsyncError as error:
            return missing(request, error)
        hidden = set() if inside else {s for s, v in found.facts["standing"].items() if v["standing"] == "hidden"}
        flip = found.facts.get("votes_to_flip")
        return render(
            "study_results.html",
            t,
            title=found.study.title,
            study=found.study,
            facts=found.facts,
            notes=found.notes if inside else (),
            inside=inside,
            is_open=is_open,
            hidden=sorted(hidden),
            tables=_tables(found, hidden, t),
            effects=[(key, found.facts[key]) for key in sorted(found.facts) if key.startswith(EFFECTS)],
            agreements=[(key, found.facts[key]) for key in sorted(found.facts) if key.startswith("agreement")],
            flip=flip if flip and flip["first"] not in hidden else None,
            raters=found.quality.table.to_dict("records") if inside else [],
            plots=_plots(studies, found, hidden),
            number=_shown,
        )

    @app.get("/studies/{name}/export")
    def export(name: str, request: Request) -> Response:
        """The study as one zip."""
        from resynced.study_export import write_zip

        if not operator.is_operator(request):
            return refused(request)
        folder = tempfile.TemporaryDirectory(prefix="study-")
        try:
            found = studies.results(name)
            path = write_zip(found, studies.desk.tables(name), Path(folder.name, f"{name}.zip"))
        except LipsyncError as error:
            folder.cleanup()
            return missing(request, error)
        headers = {"Cache-Control": "no-store"}
        tidy = BackgroundTask(folder.cleanup)
        return FileResponse(
            path, media_type="application/zip", filename=f"{name}.zip", headers=headers, background=tidy
        )


def _hidden(t: dict[str, str]) -> LipsyncError:
    return LipsyncError(t["study_unpublished"])


def _number(key: str, said: str) -> int | None:
    said = said.strip()
    if not said and key == "items":
        return None
    if not said.isdecimal() or int(said) > MOST_NUMBER:
        raise LipsyncError(
            "{field}: {said!r} is no whole number from 0 to {most:,}.",
            field=key.replace("_", " "),
            said=said[:20],
            most=MOST_NUMBER,
        )
    return int(said)


def _tables(found: Results, hidden: set[str], t: dict[str, str]) -> list[dict[str, Any]]:
    """Tables as a page shows them: heading, columns, rows of texts."""
    listed = []
    for begin, key in HEADINGS.items():
        for name, table in found.tables.items():
            if not name.startswith(begin) or table.empty:
                continue
            for column in ("system", "above", "below"):
                if column in table:
                    table = table[~table[column].isin(hidden)]
            table = table[[c for c in table.columns if c not in hidden and c != "error"]]
            rows = [[_shown(value) for value in row] for row in table.itertuples(index=False)]
            columns = [t[f"column_{c}"] if f"column_{c}" in t else str(c) for c in table.columns]
            question = name.removeprefix(begin) if begin.endswith("_") else ""
            listed.append({"heading": t[key], "question": question, "columns": columns, "rows": rows})
    return listed


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "✓" if value else ""
    if isinstance(value, float):
        return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.2f}"
    return str(value)


def _plots(studies: Any, found: Results, hidden: set[str]) -> list[dict[str, Any]]:
    """Scatter plots of people's answers over each measure: dots are clips, lettered circles the systems' means."""
    from resynced.study_media import measures_of

    measures = measures_of(studies.store, found.study)
    if measures is None:
        return []
    plots, letters = [], {s: chr(65 + k % 26) for k, s in enumerate(found.study.systems)}
    for name, people in found.tables.items():
        if not name.startswith("people_"):
            continue
        both = people[["item", "system", "value"]].merge(measures, on=["item", "system"])
        both = both[~both["system"].isin(hidden)]
        correlation = found.tables.get(f"correlation_{name[7:]}")
        for measure in (c for c in measures.columns if c not in ("item", "system")):
            points = both[["system", "value", measure]].dropna()
            if len(points) < 3 or points[measure].nunique() < 2:
                continue
            plots.append(_plot(points, measure, name[7:], letters, correlation))
    return plots


def _plot(
    points: pd.DataFrame, measure: str, question: str, letters: dict[str, str], correlation: pd.DataFrame | None
) -> dict[str, Any]:
    xs, ys = points[measure], points["value"]

    def place(values: Any, low: float, high: float, first: float, last: float) -> Any:
        return first + (values - low) / ((high - low) or 1) * (last - first)

    def at(x: float, y: float) -> tuple[float, float]:
        across = place(x, xs.min(), xs.max(), MARGIN, WIDTH - 12)
        return round(float(across), 1), round(float(place(y, ys.min(), ys.max(), HEIGHT - MARGIN, 12)), 1)

    means = points.groupby("system")[["value", measure]].mean()
    rho = None
    if correlation is not None:
        row = correlation.query("measure == @measure and level == 'clip' and coefficient == 'spearman'")
        rho = row.to_dict("records")[0] if len(row) else None
    return {
        "measure": measure.replace("_", " "),
        "question": question,
        "dots": [at(x, y) for x, y in zip(xs, ys, strict=True)],
        "means": [(letters[s], s, *at(row[measure], row["value"])) for s, row in means.iterrows()],
        "ends": [_shown(float(v)) for v in (xs.min(), xs.max(), ys.min(), ys.max())],
        "rho": rho,
    }
