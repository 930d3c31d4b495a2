"""Third tab: run the benchmark, see every clip by all systems side by side, plots, and hand in a submission.

Visitors look; what changes the store asks `context.operator` first, in every handler.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import quote

import gradio as gr
import pandas as pd

from lipsync.errors import LipsyncError
from lipsync.options import SMOOTHING, Options
from resynced import leaderboard as board
from resynced.records import CATEGORIES, BenchmarkError

from .. import benchmark, html, plots
from ..context import Context
from ..i18n import text, texts_for, worded
from ..jobs import Job
from ..pages import leaderboard as words
from ..theme import static
from ..uploads import uploaded

KEY = "tab_benchmark"
PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
MOST_PAIRS = 200  # rows of the table of clips
MOST_CLIPS = 20_000  # rows of the store behind the table and the plots
MOST_SHOWN = 6  # systems side by side
FIRST_SHOWN = 4
DRAW_AGAIN = "() => { setTimeout(() => window.dispatchEvent(new Event('resize')), 60); }"  # at the width that is seen
Updates = dict[Any, Any]
DEFAULT = Options()


def build(page: gr.Blocks, context: Context) -> tuple[Callable, list, list]:
    """Lay the tab out and wire it; returns what is to happen when it is opened: handler, inputs, outputs."""
    jobs, operator = context.jobs, context.operator
    asked_view = gr.State("")  # of the address
    picked = gr.State("")

    lead = gr.HTML(elem_id="bench-lead")
    with gr.Column(visible=False, elem_classes="step", elem_id="bench-run") as running:
        gr.Markdown(text("bench_run_title"))
        with gr.Row():
            set_name = gr.Dropdown(label=text("bench_set"), elem_id="bench-set")
            limit = gr.Number(0, minimum=0, precision=0, label=text("bench_limit"), elem_id="bench-limit")
        systems = gr.CheckboxGroup(label=text("bench_systems"), elem_id="bench-systems")
        with gr.Accordion(text("bench_options"), open=False), gr.Row():
            detail = gr.Checkbox(DEFAULT.detail, label=text("bench_detail"))
            smoothing = gr.Dropdown(list(SMOOTHING), value=DEFAULT.smoothing, label=text("bench_smoothing"))
            pad = gr.Slider(-0.2, 0.5, DEFAULT.pad, step=0.01, label=text("pad"))
        go = gr.Button(text("bench_go"), variant="primary", elem_id="bench-go")
    status = gr.HTML(elem_id="bench-status")
    cancel = gr.Button(text("cancel"), size="sm", visible=False, elem_id="bench-cancel")

    with gr.Column(visible=False, elem_classes="step", elem_id="bench-results") as results:
        gr.Markdown(text("bench_results_title"))
        answer = gr.HTML(elem_id="bench-answer")
        with gr.Row():
            view = gr.Dropdown(label=text("bench_view"), elem_id="bench-view", scale=3, min_width=280)
            category = gr.Dropdown(
                [(text("lb_all"), ""), *((text(f"category_{c}"), c) for c in CATEGORIES)],
                value="",
                label=text("lb_category"),
                elem_id="bench-category",
                min_width=160,
            )
        shown = gr.Dropdown(label=text("bench_shown"), multiselect=True, max_choices=MOST_SHOWN, elem_id="bench-shown")
        clips = gr.HTML(js_on_load=static("clips.js"), elem_id="bench-clips")
        together = gr.HTML(js_on_load=static("together.js"), elem_id="bench-together")
        with gr.Accordion(text("bench_plots"), open=False, elem_id="bench-plots") as plotted:
            figures = [gr.Plot(show_label=False, visible=False, elem_id=f"bench-plot-{n}") for n in range(4)]

    with gr.Column(visible=False, elem_classes="step", elem_id="bench-submit") as submitting:
        gr.Markdown(text("bench_submit_title"))
        with gr.Row():
            archive = gr.File(label=text("bench_archive"), file_types=[".zip"], height=140, elem_id="bench-archive")
            card = gr.File(label=text("bench_card"), file_types=[".toml"], height=140, elem_id="bench-card")
        submit_set = gr.Dropdown(label=text("bench_submit_set"), elem_id="bench-submit-set")
        submit = gr.Button(text("bench_submit"), elem_id="bench-submit-go")
        checked = gr.HTML(elem_id="bench-checked")
        stop_check = gr.Button(text("cancel"), size="sm", visible=False, elem_id="bench-stop-check")
    watch_run = gr.HTML(js_on_load=static("watch.js"), elem_id="bench-watch", visible="hidden")
    watch_check = gr.HTML(js_on_load=static("watch.js"), elem_id="bench-watch-check", visible="hidden")

    # what is shown

    def of_run(request: gr.Request) -> Updates:
        """How the run stands."""
        t, job, may = texts_for(request), jobs.latest(benchmark.RUN), operator.is_operator(request)
        busy = job is not None and job.busy
        return {
            status: run_status(job, jobs.ahead(job.id) if job else 0, jobs.progress(job.id) if job else None, t),
            cancel: gr.update(visible=busy and may),
            go: gr.update(interactive=not busy),
            watch_run: f"{job.view} {job.task}" if busy else "",
        }

    def of_submission(request: gr.Request) -> Updates:
        """How the check of a submission stands."""
        t, job, may = texts_for(request), jobs.latest(benchmark.SUBMISSION), operator.is_operator(request)
        busy = job is not None and job.busy
        if job is None or not may:
            said = ""
        elif busy:
            said = html.live(job, *html.state(job, jobs.ahead(job.id), jobs.progress(job.id), t))
        else:
            said = submission_verdict(job, t)
        return {
            checked: said,
            stop_check: gr.update(visible=busy and may),
            submit: gr.update(interactive=not busy),
            watch_check: f"{job.view} {job.task}" if busy and may else "",
        }

    def of_view(view_id: str, part: str, names: list[str] | None, pair: str, request: gr.Request) -> Updates:
        """The results of a view: sentence, clips, videos, plots."""
        t = texts_for(request)
        known = board.views(context.store)
        if not known:
            return {results: gr.update(visible=False)}
        chosen = next((v for v in known if v.id == view_id), known[0])
        table = board.leaderboard(context.store, chosen, part)
        labels = labels_of(table, t)
        kept = [f for f in names or [] if f in labels] or first_shown(table)
        found = board.clips(context.store, chosen, part, most=MOST_CLIPS)
        mine = found[found["fingerprint"].isin(kept)]
        pair = pair if pair in set(mine["pair"]) else next(iter(sorted(set(mine["pair"]))), "")
        fails = board.failures(context.store, chosen)
        drawn = [
            plots.plane(table, labels, t),
            plots.by_category(mine, labels, t),
            plots.offsets(mine, labels, t),
            plots.failures(fails, {r["system"]: labels[r["fingerprint"]] for r in table["rows"]}, t),
        ]
        heads = [
            (f"{v.set_name} · {v.evaluator} · {v.protocol} · v{v.measure_version} · {v.set_sha256[:6]}", v.id)
            for v in known
        ]
        link = f'<a href="/leaderboard?view={chosen.id}">{escape(t["bench_to_board"])}</a>'
        return {
            results: gr.update(visible=True),
            answer: f'<p class="answer">{escape(words.answer(table, t))} {link}</p>',
            view: gr.update(choices=heads, value=chosen.id),
            shown: gr.update(choices=[(label, f) for f, label in labels.items()], value=kept),
            clips: clips_table(mine, {f: labels[f] for f in kept}, pair, t),
            together: side_by_side(context, chosen, mine, {f: labels[f] for f in kept}, pair, request, t),
            picked: pair,
            **{
                place: gr.update(value=figure, visible=figure is not None)
                for place, figure in zip(figures, drawn, strict=True)
            },
        }

    def opened(view_id: str, part: str, names: list[str], pair: str, asked: str, request: gr.Request) -> Updates:
        """The tab is opened: everything anew."""
        t, may = texts_for(request), operator.is_operator(request)
        sets = benchmark.set_names()
        choice = sets[0] if sets else None
        known = benchmark.system_words(choice) if may else []
        updates: Updates = {
            lead: lead_html(operator.is_open, may, t),
            running: gr.update(visible=may),
            submitting: gr.update(visible=may),
            set_name: gr.update(choices=sets, value=choice),
            submit_set: gr.update(choices=sets, value=choice),
            systems: gr.update(choices=known, value=[known[0][1]] if known else []),
        }
        try:
            return (
                updates
                | of_run(request)
                | of_submission(request)
                | of_view(view_id or asked, part, names, pair, request)
            )
        except BenchmarkError:
            return updates | {status: html.sentence(t["lb_broken"])}

    # what is done

    def choose_set(name: str) -> Updates:
        known = benchmark.system_words(name)
        return {systems: gr.update(choices=known, value=[known[0][1]] if known else [])}

    def run(
        name: str, chosen: list[str], most: float | None, fine: bool, smooth: str, larger: float, request: gr.Request
    ) -> Updates:
        t = texts_for(request)
        if not operator.is_operator(request):
            return {status: html.sentence(t["bench_only_operator"])}
        changed = {
            "detail": (fine, DEFAULT.detail),
            "smoothing": (smooth, DEFAULT.smoothing),
            "pad": (larger, DEFAULT.pad),
        }
        options = ",".join(f"{k}={str(v).lower()}" for k, (v, usual) in changed.items() if v != usual)
        try:
            benchmark.start(context, benchmark.request(name, chosen, int(most) if most else None, options))
        except LipsyncError as error:
            return {status: html.sentence(worded(error.message, t))}
        return of_run(request)

    def cancel_task(task: str) -> Callable[[gr.Request], Updates]:
        def cancelled(request: gr.Request) -> Updates:
            job = jobs.latest(task)
            if job is not None and operator.is_operator(request):
                jobs.cancel(job.id)
            return of_run(request) if task == benchmark.RUN else of_submission(request)

        return cancelled

    def check(path: str | None, card_path: str | None, name: str, request: gr.Request) -> Updates:
        t = texts_for(request)
        if not operator.is_operator(request):
            return {checked: html.sentence(t["bench_only_operator"])}
        if not path or not card_path:
            return {checked: html.sentence(t["bench_both"], "warn")}
        try:
            benchmark.submit(context, uploaded(path), uploaded(card_path), name)
        except LipsyncError as error:
            return {checked: html.sentence(worded(error.message, t))}
        return of_submission(request)

    def run_ended(view_id: str, part: str, names: list[str], pair: str, request: gr.Request) -> Updates:
        return of_run(request) | of_view(view_id, part, names, pair, request)

    def check_ended(name: str, request: gr.Request) -> Updates:
        return of_submission(request) | choose_set(name)

    def pick(event: gr.EventData, view_id: str, part: str, names: list[str], request: gr.Request) -> Updates:
        kept = of_view(view_id, part, names, str(event.pair), request)
        return {part: kept[part] for part in (clips, together, picked) if part in kept}

    # wiring

    looks = [view, category, shown, picked]
    everything = [
        lead,
        running,
        set_name,
        systems,
        go,
        status,
        cancel,
        results,
        answer,
        view,
        shown,
        clips,
        together,
        picked,
        submitting,
        submit_set,
        submit,
        checked,
        stop_check,
        watch_run,
        watch_check,
        *figures,
    ]

    def on(event: Callable, handler: Callable, inputs: Any = None) -> None:
        event(handler, inputs, everything, **PRIVATE)

    on(set_name.input, choose_set, set_name)
    on(go.click, run, [set_name, systems, limit, detail, smoothing, pad])
    on(cancel.click, cancel_task(benchmark.RUN))
    on(submit.click, check, [archive, card, submit_set])
    on(stop_check.click, cancel_task(benchmark.SUBMISSION))
    on(watch_run.settled, run_ended, looks)
    on(watch_check.settled, check_ended, set_name)
    for part in (view, category, shown):
        on(part.input, of_view, looks)
    plotted.expand(fn=None, js=DRAW_AGAIN, api_visibility="private")
    on(clips.pick, pick, [view, category, shown])

    def asked(request: gr.Request) -> str:
        return str(request.query_params.get("view", ""))[:12]

    page.load(asked, None, asked_view, **PRIVATE)
    return opened, [*looks, asked_view], everything


# ------------------------------------------------------------------------------------------- as HTML


def lead_html(is_open: bool, is_operator: bool, t: dict[str, str]) -> str:
    """What the tab is for, the way to the leaderboard, and who may start a run."""
    board_link = f'<a href="/leaderboard">{escape(t["bench_to_board"])}</a>'
    who = "bench_is_operator" if is_operator else "bench_visitor" if is_open else "bench_closed"
    sign = f' <a href="/operator/login">{escape(t["operator_login" if not is_operator else "operator_logout"])}</a>'
    return (
        f'<p class="small">{escape(t["bench_lead"])} {board_link}</p>'
        f'<p class="small">{escape(t[who])}{sign if is_open else ""}</p>'
    )


def run_status(job: Job | None, ahead: int, progress: Any, t: dict[str, str]) -> str:
    """How the latest run stands, or ended."""
    if job is None:
        return ""
    if job.busy:
        return html.live(job, *html.state(job, ahead, progress, t))
    if job.state == "failed":
        return html.sentence(worded(job.error, t))
    if job.state in ("cancelled", "interrupted"):
        return html.sentence(t["bench_stopped"], "quiet")
    return html.sentence(t["bench_done"].format(said=worded(job.facts.get("words", ""), t)), "good")


def submission_verdict(job: Job, t: dict[str, str]) -> str:
    """What came of a submission: accepted, or the whole list of its faults."""
    if job.state == "failed":
        return html.sentence(worded(job.error, t))
    if job.state != "done":
        return html.sentence(t["bench_stopped"], "quiet")
    faults = job.facts.get("faults", [])
    if not faults:
        return html.sentence(t["bench_accepted"].format(name=job.facts.get("accepted", "")), "good")
    listed = "".join(f"<li>{escape(worded(fault, t))}</li>" for fault in faults[: benchmark.MOST_FAULTS_SHOWN])
    more = len(faults) - benchmark.MOST_FAULTS_SHOWN
    rest = f"<li>{escape(t['bench_more_faults'].format(n=more))}</li>" if more > 0 else ""
    head = escape(t["bench_refused"].format(n=len(faults)))
    return f'<div class="say bad" role="alert"><p>{head}</p><ol>{listed}{rest}</ol></div>'


def labels_of(table: dict[str, Any], t: dict[str, str]) -> dict[str, str]:
    """Systems of a table by fingerprint, as people read them, in the table's order."""
    return {r["fingerprint"]: t[f"role_{r['role']}"] if r["role"] else r["label"] for r in table["rows"]}


def first_shown(table: dict[str, Any]) -> list[str]:
    """The systems that are shown before anybody chooses: the untouched clips, then the first of the table."""
    floor = [r["fingerprint"] for r in table["rows"] if r["role"] == "floor"]
    return [*floor, *(r["fingerprint"] for r in table["rows"] if r["role"] != "floor")][:FIRST_SHOWN]


def clips_table(found: pd.DataFrame, labels: dict[str, str], picked: str, t: dict[str, str]) -> str:
    """Every clip with each system's LSE-D; a click on its name shows it."""
    if found.empty:
        return f'<p class="note">{escape(t["bench_no_clips"])}</p>'
    latest = found.drop_duplicates(["pair", "fingerprint"])
    cells = {(r.pair, r.fingerprint): r for r in latest.itertuples()}
    pairs = latest.drop_duplicates("pair").sort_values("pair")
    heads = "".join(f'<th scope="col">{escape(label)}</th>' for label in labels.values())
    lines = []
    for pair, kind in list(zip(pairs["pair"], pairs["category"], strict=True))[:MOST_PAIRS]:
        row = "".join(
            f'<td><span class="phone">{escape(label)}</span>{_figure(cells.get((pair, f)), t)}</td>'
            for f, label in labels.items()
        )
        now = ' aria-current="true"' if pair == picked else ""
        category = escape(t.get(f"category_{kind}", kind))
        lines.append(
            f'<tr{now}><th scope="row"><button type="button" data-pair="{escape(pair)}">{escape(pair)}</button>'
            f"<small>{category}</small></th>{row}</tr>"
        )
    more = len(pairs) - MOST_PAIRS
    note = f'<p class="note">{escape(t["bench_more_clips"].format(n=more))}</p>' if more > 0 else ""
    return (
        f'<div class="clips" tabindex="0" role="region" aria-label="{escape(t["bench_clips"])}"><table>'
        f"<caption>{escape(t['bench_clips'])}</caption>"
        f'<thead><tr><th scope="col">{escape(t["clip"])}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>{note}"
    )


def _figure(row: Any, t: dict[str, str]) -> str:
    if row is None:
        return "–"
    if row.reason:
        return f'<span class="failed">{escape(t["bench_failed"])}</span>'
    return "–" if pd.isna(row.lse_d) else f"{row.lse_d:.2f}"


def side_by_side(
    context: Context,
    view: board.View,
    found: pd.DataFrame,
    labels: dict[str, str],
    pair: str,
    request: gr.Request,
    t: dict[str, str],
) -> str:
    """One clip by every system, with what was measured of it, to be played in step."""
    if not pair:
        return ""
    if not benchmark.may_watch(context, view, context.operator.is_operator(request)):
        return f'<p class="note">{escape(t["bench_not_free"])}</p>'
    mine = {r.fingerprint: r for r in found[found["pair"] == pair].itertuples()}
    figures, count = [], 0
    for fingerprint, label in labels.items():
        row = mine.get(fingerprint)
        if row is None:
            continue
        there = not row.reason and benchmark.video_file(context, view, fingerprint, pair) is not None
        said = _measured(row, t)
        hear = (
            f'<button type="button" class="hear" aria-pressed="false">{escape(t["bench_hear"])}</button>'
            if there
            else ""
        )
        if there:
            count += 1
            source = f"/benchmark/video/{view.id}/{fingerprint[:16]}/{quote(pair)}"
            inner = f'<video src="{source}" playsinline muted preload="auto" aria-label="{escape(label)}"></video>'
            inner += f'<p class="unplayable">{escape(t["unplayable"])}</p>'
        else:
            inner = f'<p class="none">{escape(worded(row.reason, t) if row.reason else t["bench_no_video"])}</p>'
        figures.append(
            f"<figure><figcaption><span>{escape(label)}</span>{hear}</figcaption>{inner}"
            f'<p class="note">{escape(said)}</p></figure>'
        )
    both = ""
    if count:
        both = (
            f'<div class="middle"><button type="button" class="both" data-play="{escape(t["bench_together"])}" '
            f'data-pause="{escape(t["stop_both"])}">▶ {escape(t["bench_together"])}</button></div>'
        )
    head = escape(t["bench_clip_title"].format(pair=pair))
    return (
        f'<h3 id="bench-clip">{head}</h3><div class="strip" tabindex="0" role="group" aria-labelledby="bench-clip">'
        f"{''.join(figures)}</div>{both}"
    )


def _measured(row: Any, t: dict[str, str]) -> str:
    said = []
    if not pd.isna(row.lse_d):
        said.append(f"LSE-D {row.lse_d:.2f}")
    if not pd.isna(row.offset):
        said.append(html.offset_words(int(row.offset), t))
    if not pd.isna(row.sharpness):
        said.append(t["bench_sharpness"].format(x=f"{row.sharpness:.2f}"))
    return " · ".join(said)
