"""Benchmark on the page: a run in a process of its own at the lowest priority, submissions, videos to be watched.

A run is a job of the queue, in a lane of its own. What it makes is in the store, not in the job: a run that is stopped
or dies with the server goes on where it was when it is started again.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from lipsync.errors import Cancelled, InputError, LipsyncError
from lipsync.messages import Message
from lipsync.progress import Monitor, Progress
from resynced.leaderboard import View, counted, leaderboard, views
from resynced.manifests import load_set, sets
from resynced.records import BenchmarkError, BenchmarkSet, System
from resynced.runner import run, video_path
from resynced.scoring import Scoring
from resynced.store import Claim, ScoreFact, SetFact, Store, data_folder
from resynced.submissions import SubmissionRefused, all_registered, register
from resynced.systems import open_system, with_limits

from .html import state as words_of_state
from .i18n import worded
from .jobs import BROKEN, Job
from .tasks import models

if TYPE_CHECKING:
    from .context import Context

STARTER = "starter"
RUN, SUBMISSION = "benchmark", "submission"  # tasks of the queue
GRACE_S = 30.0  # for a run that is stopped to end its pair
LOWEST = 19
MOST_FAULTS_SHOWN = 200
FREE = re.compile(r"cc[ -]?(by|0)|public domain", re.IGNORECASE)  # licences of sets that anybody may watch
STOPPED = Message("The run was stopped.")
DIED = Message("The run ended by itself: the server may have too little memory. Start it again.")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A run, as another process can be sent it. place: of the store; work: folder of the runner's videos."""

    chosen: BenchmarkSet
    systems: tuple[System, ...]
    scoring: Any
    place: str
    work: Path
    limit: int | None = None
    command: str = ""


def warm_up(context: Context) -> None:
    """Open the store and compute its latest table, so that the first visitor of the leaderboard need not wait."""
    try:
        if known := views(context.store):
            leaderboard(context.store, known[0])
    except BenchmarkError as error:
        _log.warning("the benchmark's store is not ready: %s", error)


# -------------------------------------------------------------------------- what there is to choose


def set_names() -> list[str]:
    """The sets that can be run here, that of the repository first."""
    return sorted(sets(), key=lambda name: (name != STARTER, name))


def system_words(set_name: str | None = None) -> list[tuple[str, str]]:
    """Systems that can be run, as name and word of `open_system`: our models, and submissions (for one set)."""
    found = [(name, name) for name in models()]
    theirs = [one for one in all_registered() if set_name in (None, one.set_name)]
    return found + [(f"{one.card.name} · {one.name[-8:]}", f"submission:{one.name}") for one in theirs]


def request(set_name: str, words: Sequence[str], limit: int | None, options: str = "") -> Request:
    """A run as it is asked for; raises LipsyncError with what is wrong.

    options  KEY=VALUE,… for the models among the systems
    """
    if set_name not in sets():
        raise BenchmarkError("There is no set {name!r} here.", name=set_name)
    known = {word for _, word in system_words()}
    if unknown := [word for word in words if word not in known]:
        raise BenchmarkError("There is no system {name!r} here.", name=unknown[0][:100])
    words = [f"{word}:{options}" if options and ":" not in word else word for word in words]
    chosen = load_set(set_name)
    systems = with_limits([open_system(word) for word in words], chosen)
    typed = ["python", "-m", "resynced", "run", "--set", set_name, "--system", *(words or ["untouched"])]
    typed += ["--limit", str(limit)] if limit else []
    return Request(chosen, tuple(systems), Scoring(), store_place(), data_folder(), limit, shlex.join(typed))


def store_place() -> str:
    """The store's address, as `Store` takes it."""
    from resynced.store import database_url

    return database_url().render_as_string(hide_password=False)


# ------------------------------------------------------------------------------------------ running


def start(context: Context, asked: Request) -> Job:
    """Queue a run. Raises InputError where one is going on."""
    jobs = context.jobs
    busy = jobs.latest(RUN)
    if busy is not None and busy.busy:
        raise InputError("A run is going on already: wait for its end, or cancel it.")
    job = jobs.create()
    names = [system.name for system in asked.systems]
    jobs.update(job.id, set=asked.chosen.name, systems=names, limit=asked.limit, command=asked.command)
    jobs.submit(job.id, RUN, run_apart(context, asked))
    return job


def run_apart(context: Context, asked: Request) -> Callable[..., None]:
    """Work that runs a benchmark in a process of its own, so that visitors' videos come first."""

    def work(job: Job, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> None:
        spawn = multiprocessing.get_context(method="spawn")
        ours, theirs = spawn.Pipe()
        child = spawn.Process(target=_child, args=(theirs, asked), name="benchmark")
        child.start()
        theirs.close()
        try:
            kind, said = _listen(ours, child, progress, cancelled)
        finally:
            ours.close()  # which the child takes for "stop"
            child.join(GRACE_S)
            if child.is_alive():
                child.kill()
                child.join()
        if kind == "cancelled":
            raise Cancelled(said)
        if kind == "failed":
            raise BenchmarkError(said)
        context.jobs.update(job.id, words=said)

    return work


def _listen(ours: Any, child: Any, progress: Callable, cancelled: Callable[[], bool]) -> tuple[str, Message]:
    """What the child ends with: done, failed or cancelled, and a sentence."""
    asked_to_stop = 0.0
    while True:
        if cancelled() and not asked_to_stop:
            asked_to_stop = time.monotonic()
            with suppress(OSError):
                ours.send("stop")
        if asked_to_stop and time.monotonic() - asked_to_stop > GRACE_S:
            return "cancelled", STOPPED
        if not ours.poll(0.2):
            if child.is_alive():
                continue
            if not ours.poll(0):
                return "failed", DIED
        try:
            kind, said = ours.recv()
        except (EOFError, OSError):
            return "failed", DIED
        if kind != "progress":
            return kind, said
        progress(said)


def _child(pipe: Any, asked: Request) -> None:
    """The process of a run: says how far it is, and ends when it is told to, or when nobody listens any more."""
    os.nice(LOWEST)
    stop = threading.Event()
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel, pipe])  # nothing comes but "stop", or the end of the other side
        stop.set()
        wait([parent.sentinel])
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

    def tell(kind: str, said: Any) -> None:
        with suppress(OSError):
            pipe.send((kind, said))

    try:
        with Store(asked.place) as store:
            monitor = Monitor(lambda p: tell("progress", p), stop.is_set)
            done = run(
                asked.chosen,
                asked.systems,
                store,
                asked.work,
                asked.scoring,
                limit=asked.limit,
                command=asked.command,
                monitor=monitor,
            )
        tell("done", done.words())
    except Cancelled:
        tell("cancelled", STOPPED)
    except LipsyncError as error:
        tell("failed", error.message)
    except Exception:
        _log.exception("a run of the benchmark failed")
        tell("failed", BROKEN)


def state(context: Context, t: dict[str, str]) -> dict[str, str]:
    """How a run stands, for the leaderboard: a line while one goes on, and why the last one failed."""
    jobs = context.jobs
    job = jobs.latest(RUN)
    if job is not None and job.busy:
        said, _ = words_of_state(job, jobs.ahead(job.id), jobs.progress(job.id), t)
        return {"running": f"{t['lb_running']} {said}", "last_error": ""}
    with context.store.read() as session:
        elsewhere = session.scalar(select(func.count()).select_from(Claim).where(Claim.until > time.time()))
    failed = worded(job.error, t) if job is not None and job.state == "failed" else ""
    return {"running": t["lb_running"] if elsewhere else "", "last_error": failed}


# -------------------------------------------------------------------------------------- submissions


def submit(context: Context, archive: Path, card: Path, set_name: str) -> Job:
    """Queue the check of a submission; it is kept where nothing is wrong. Raises InputError where one is going on."""
    jobs = context.jobs
    busy = jobs.latest(SUBMISSION)
    if busy is not None and busy.busy:
        raise InputError("A submission is being checked already: wait for its end, or cancel it.")
    job = jobs.create()
    jobs.submit(job.id, SUBMISSION, check_submission(context, archive, card, set_name))
    return job


def check_submission(context: Context, archive: Path, card: Path, set_name: str) -> Callable[..., None]:
    """Work that checks a submission: its faults stand in the job's facts, or the name under which it is kept."""

    def work(job: Job, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> None:
        monitor = Monitor(lambda p: progress(replace(p, stage="submission")), cancelled)
        try:
            kept = register(archive, load_set(set_name), card, monitor)
        except SubmissionRefused as refused:
            context.jobs.update(job.id, faults=[_tame(fault) for fault in refused.faults])
        except BenchmarkError as error:
            context.jobs.update(job.id, faults=[_tame(error.message)])
        else:
            context.jobs.update(job.id, faults=[], accepted=kept.card.name, word=f"submission:{kept.name}")

    return work


def _tame(said: str) -> str:
    """A sentence without a path of this server."""
    if isinstance(said, Message):
        return Message(said, **{name: _tame(value) for name, value in said.values.items()})
    return re.sub(r"(?<![\w:/])/(?:[^/\s:]+/)+", "", said)


# ------------------------------------------------------------------------------------------ watching


def set_of(store: Store, view: View) -> SetFact | None:
    """What the store knows of a view's set."""
    with store.read() as session:
        return session.scalars(select(SetFact).where(SetFact.key == view.set_sha256)).first()


def may_watch(context: Context, view: View, is_operator: bool) -> bool:
    """Whether somebody may see a set's videos: everybody those of a free licence, the operator all."""
    fact = set_of(context.store, view)
    return is_operator or (fact is not None and bool(FREE.search(fact.licence)))


def video_file(context: Context, view: View, fingerprint: str, pair: str) -> Path | None:
    """The scored video of a pair by a system of which a row counts; None where there is none."""
    query = select(ScoreFact.system, ScoreFact.fingerprint, ScoreFact.set_name).where(
        view.where(), counted(), ScoreFact.pair == pair, ScoreFact.fingerprint.startswith(fingerprint)
    )
    with context.store.read() as session:
        row = session.execute(query.limit(1)).first()
    if row is None:
        return None
    path = video_path(data_folder(), row.set_name, view.set_sha256, row.system, row.fingerprint, pair)
    return path if path.is_file() else None
