"""The runner: systems × pairs -> videos -> rows of the store.

A pair is atomic: it is worked on in a scratch folder, and then one transaction adds its row. Whoever kills the runner
at any moment loses at most the pairs in work, and the same command goes on where it was. What was computed once, in
whatever set, is copied and not computed again; several runners may share a store, since each claims a pair before.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import delete, select

from eval.metrics.base import reason
from lipsync.checkpoints.download import file_sha256
from lipsync.errors import Cancelled
from lipsync.messages import Message
from lipsync.progress import Monitor

from .pools import Lost, open_pool
from .records import CATEGORIES, BenchmarkError, BenchmarkSet, Pair, System
from .scoring import Scorer, Scoring, pair_file
from .store import CheckFact, Claim, DistanceFact, ScoreFact, Store, Withdrawal, digest, insert_new, withdrawal

LEASE_S, RENEW_S = 60.0, 15.0
POLL_S = 0.5
TRIES = 2  # of a pair whose worker ended by itself; the second time it is alone
LIBRARIES = ("torch", "openvino", "numpy", "opencv-python", "mediapipe", "av", "scipy", "librosa")


@dataclass(frozen=True)
class Job:
    """A pair for a system."""

    system: int  # its place in the list
    pair: Pair
    work: str
    attempt: int = 0
    instead: str | None = None  # key of the row that is withdrawn when this one's is there


@dataclass
class Summary:
    """What a run did: rows made, copied from an earlier run and failed of those made; what was there already."""

    run: str = ""
    made: int = 0
    copied: int = 0
    failed: int = 0
    known: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def words(self) -> Message:
        """In a few sentences."""
        done = Message(
            "{made} pairs were made and scored in {seconds:.0f} s, {failed} of them failed",
            made=self.made,
            seconds=self.seconds,
            failed=self.failed,
        )
        known = [Message("{n} were there already", n=self.known)] if self.known else []
        copied = [Message("{n} were known from another set", n=self.copied)] if self.copied else []
        said = Message("{said}.", said=Message.join("; ", [done, *known, *copied]))
        return Message.join(" ", [said, *self.notes])


def run(
    chosen: BenchmarkSet,
    systems: Sequence[System],
    store: Store,
    work: Path,
    scoring: Scoring | None = None,
    *,
    limit: int | None = None,
    workers: int = 1,
    ray: str | None = None,
    again: bool = False,
    keep: bool = True,
    command: str = "",
    monitor: Monitor | None = None,
) -> Summary:
    """Make and score every pair by every system, as far as the store has no row of it.

    systems  with different names and fingerprints
    work     folder for scratch, scored videos (`video_path`) and the clips encoded alike
    scoring  how; anything with `open()` that gives a Scorer
    limit    pairs of each system, taken from the categories in turn
    workers  pairs at a time; `ray`: on the cluster of that address ("local": one begun here) instead of this machine
    again    try failed pairs again: the old row is withdrawn when the new one is there
    keep     the scored videos, for watching; without them there is no Fréchet distance
    command  as it was typed, for the row's card
    Raises BenchmarkError, LipsyncError where nothing can be scored at all, Cancelled; what is done is kept.
    """
    monitor = monitor or Monitor()
    _check_systems(systems, limit)
    began = time.monotonic()
    pairs = first_pairs(chosen, limit)
    scorer = (scoring or Scoring()).open()
    store.add_set(chosen)
    for system in systems:
        store.add_system(system.name, system.fingerprint, system.tier, getattr(system, "card", None))
    done = Summary()
    settings = dict(scorer.facts) | {"limit": limit, "workers": workers, "ray": ray is not None}
    done.run = store.add_run(chosen.sha256, command, commit(), environment(), settings)
    with _scratch(work) as (scratch, owner, gone):
        _check(chosen, store, scorer, done, monitor)
        plan = _Plan(chosen, systems, pairs, store, scorer.facts, done.run, again)
        jobs = plan.jobs(done)
        if jobs:
            setup = _Setup(scoring or Scoring(), tuple(systems), chosen, work, scratch, keep)
            total = len(jobs)
            cancelled = _cancelled(monitor)
            with _renewed(store, owner):
                pool = open_pool(setup, min(workers, total), ray, cancelled)
                try:
                    _drive(pool, deque(jobs), plan, store, owner, gone, done, total, monitor)
                finally:
                    pool.close()
        if keep:
            _distances(chosen, systems, pairs, store, scorer, work, done, monitor)
        else:
            done.notes.append(Message("Videos were not kept, so there is no Fréchet distance."))
    done.seconds = time.monotonic() - began
    return done


def video_path(work: Path, set_name: str, set_sha256: str, system: str, fingerprint: str, pair: str) -> Path:
    """Where the scored video of a pair is kept."""
    folder = videos_folder(work, set_name, set_sha256) / f"{pair_file(system)}-{fingerprint[:8]}"
    return folder / f"{pair_file(pair)}.mp4"


def videos_folder(work: Path, set_name: str, set_sha256: str) -> Path:
    """Where the scored videos of a set are kept, a folder a system."""
    return work / "videos" / f"{pair_file(set_name)}-{set_sha256[:8]}"


def first_pairs(chosen: BenchmarkSet, limit: int | None) -> list[Pair]:
    """The first so many pairs, from the categories in turn, in the set's order."""
    if limit is None or limit >= len(chosen.pairs):
        return list(chosen.pairs)
    order = [c for c in CATEGORIES if any(p.category == c for p in chosen.pairs)]
    order += sorted({p.category for p in chosen.pairs} - set(order))
    queues = [deque(p for p in chosen.pairs if p.category == c) for c in order]
    taken: set[str] = set()
    while len(taken) < limit:
        for queue in queues:
            if queue and len(taken) < limit:
                taken.add(queue.popleft().id)
    return [p for p in chosen.pairs if p.id in taken]


def work_key(pair: Pair, fingerprint: str, facts: dict[str, Any]) -> str:
    """What is computed, whatever it is called: clip, voice, really synced clip, system and how it is scored."""
    reference = file_sha256(pair.reference) if pair.reference else ""
    return digest("pair", pair.video.sha256, pair.voice.sha256, reference, fingerprint, facts)


def commit() -> str:
    """The code's commit, with "+changes" where files differ from it; "" where this is no checkout."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return ""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=20).stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):
        at = git("rev-parse", "HEAD")
        return at + ("+changes" if at and git("status", "--porcelain", "--untracked-files=no") else "")
    return ""


def environment() -> dict[str, Any]:
    """What could change a number beside the code: Python, libraries, processor, system."""
    found = {}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "libraries": found,
    }


def _check_systems(systems: Sequence[System], limit: int | None) -> None:
    if not systems:
        raise BenchmarkError("No system was chosen: name at least one.")
    for what in ("name", "fingerprint"):
        seen = [getattr(s, what) for s in systems]
        if twice := [v for v in seen if seen.count(v) > 1]:
            raise BenchmarkError(
                "Two of the systems have the same {what} {twice!r}: it must tell them apart.", what=what, twice=twice[0]
            )
    if limit is not None and limit < 1:
        raise BenchmarkError("A limit of {limit} leaves no pair: give 1 or more.", limit=limit)


def _cancelled(monitor: Monitor) -> Callable[[], bool]:
    def asked() -> bool:
        try:
            monitor.check()
        except Cancelled:
            return True
        return False

    return asked


# ------------------------------------------------------------------- scratch, owners


def _host() -> str:
    """This machine, boot and space of process numbers, as a sum that says nothing of them."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _owner() -> str:
    return f"{_host()}-{os.getpid()}-{psutil.Process().create_time():.2f}-{threading.get_ident()}"


def _is_gone(owner: str) -> bool:
    """Whether an owner was a process of this machine that is no more."""
    host, pid, began, *_ = [*owner.split("-"), "", "", ""]
    if host != _host() or not pid.isdigit():
        return False
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" != began
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


@contextmanager
def _scratch(work: Path) -> Iterator[tuple[Path, str, Callable[[str], bool]]]:
    """A folder that is gone afterwards; those of runners that were killed go now."""
    owner, root = _owner(), work / "scratch"
    root.mkdir(parents=True, exist_ok=True)
    for left in root.iterdir():
        if _is_gone(left.name):
            shutil.rmtree(left, ignore_errors=True)
    folder = root / owner
    folder.mkdir(exist_ok=True)
    try:
        yield folder, owner, _is_gone
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _renewed(store: Store, owner: str) -> Iterator[None]:
    """While it lasts, this owner's claims do; afterwards it has none."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEW_S):
            with suppress(BenchmarkError):  # a database that is away for a moment; the next time it is asked again
                store.renew(owner, LEASE_S)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(BenchmarkError), store.write() as session:
            session.execute(delete(Claim).where(Claim.owner == owner))


# -------------------------------------------------------------------------- the plan


class _Plan:
    """Which pairs are to be made, and what becomes of one that was."""

    def __init__(
        self,
        chosen: BenchmarkSet,
        systems: Sequence[System],
        pairs: list[Pair],
        store: Store,
        facts: dict[str, Any],
        run_key: str,
        again: bool,
    ) -> None:
        self._chosen, self._systems, self._pairs, self._store = chosen, systems, pairs, store
        self._facts, self._run, self._again = facts, run_key, again

    def jobs(self, done: Summary) -> list[Job]:
        """Those that the store has no row of, in order; what it knows from another set is copied at once."""
        out = []
        for number, system in enumerate(self._systems):
            rows = self._rows(system.fingerprint)
            for pair in self._pairs:
                work = work_key(pair, system.fingerprint, self._facts)
                job = self._job(number, pair, work, rows.get(work, []))
                if job is None:
                    done.known += 1
                elif self._copied(job, rows.get(work, [])):
                    done.copied += 1
                else:
                    out.append(job)
        return out

    def _rows(self, fingerprint: str) -> dict[str, list[tuple[ScoreFact, bool]]]:
        """Rows of a system by what was computed, and whether each counts."""
        with self._store.read() as session:
            withdrawn = set(session.scalars(select(Withdrawal.target).where(Withdrawal.kind == "score")))
            found: dict[str, list[tuple[ScoreFact, bool]]] = {}
            query = select(ScoreFact).where(
                ScoreFact.fingerprint == fingerprint,
                ScoreFact.protocol_hash == self._facts["protocol_hash"],
                ScoreFact.evaluator_sha256 == self._facts["evaluator_sha256"],
            )
            for row in session.scalars(query):
                found.setdefault(row.work, []).append((row, row.key not in withdrawn))
        return found

    def _job(self, number: int, pair: Pair, work: str, rows: list[tuple[ScoreFact, bool]]) -> Job | None:
        """What is to be done for a pair; None where its row is there."""
        mine = [(row, counts) for row, counts in rows if self._is_mine(row, number, pair)]
        current = next((row for row, counts in mine if counts), None)
        if current is not None and (current.reason is None or not self._again):
            return None
        attempt = max((row.attempt for row, _ in mine), default=-1) + 1
        return Job(number, pair, work, attempt, current.key if current is not None else None)

    def _is_mine(self, row: ScoreFact, number: int, pair: Pair) -> bool:
        system = self._systems[number]
        return (row.set_sha256, row.pair, row.system, row.tier) == (
            self._chosen.sha256,
            pair.id,
            system.name,
            system.tier,
        )

    def _copied(self, job: Job, rows: list[tuple[ScoreFact, bool]]) -> bool:
        """Whether the same was computed under another name, and now has a row under this one."""
        known = next((row for row, counts in rows if counts and row.reason is None), None)
        if known is None:
            return False
        columns = {c.name: getattr(known, c.name) for c in ScoreFact.__table__.columns}
        facts = columns | self._named(job) | {"run": known.run}  # the run that made the numbers
        for name in ("id", "key", "date"):
            del facts[name]
        self._commit(job, facts)
        return True

    def still_needed(self, job: Job) -> bool:
        """Whether no other runner has made it since."""
        with self._store.read() as session:
            rows = session.scalars(
                select(ScoreFact).where(ScoreFact.work == job.work, ScoreFact.attempt == job.attempt)
            ).all()
        return not any(self._is_mine(row, job.system, job.pair) for row in rows)

    def add(self, job: Job, outcome: dict[str, Any]) -> None:
        """Keep what a worker found; withdraws the row that it replaces, and gives up the claim."""
        settings = {
            n: self._facts[n] for n in ("measure_version", "evaluator", "evaluator_sha256", "protocol", "protocol_hash")
        }
        self._commit(job, settings | outcome | self._named(job) | {"run": self._run})

    def _named(self, job: Job) -> dict[str, Any]:
        system, pair = self._systems[job.system], job.pair
        return {
            "work": job.work,
            "attempt": job.attempt,
            "set_name": self._chosen.name,
            "set_sha256": self._chosen.sha256,
            "pair": pair.id,
            "category": pair.category,
            "speaker": pair.video.speaker,
            "language": pair.voice.language,
            "system": system.name,
            "fingerprint": system.fingerprint,
            "tier": system.tier,
        }

    def _commit(self, job: Job, facts: dict[str, Any]) -> None:
        with self._store.write() as session:
            self._store.add_row(facts, session)
            if job.instead:
                again = str(Message("It failed and was tried again."))
                insert_new(session, Withdrawal, [withdrawal("score", job.instead, again)])
            session.execute(delete(Claim).where(Claim.work == job.work))


def _drive(
    pool,
    waiting: deque[Job],
    plan: _Plan,
    store: Store,
    owner: str,
    gone: Callable[[str], bool],
    done: Summary,
    total: int,
    monitor: Monitor,
) -> None:
    """Jobs into the pool, outcomes into the store, until none is left."""
    held_by_others: deque[Job] = deque()
    suspects: deque[Job] = deque()  # their worker ended by itself: the next time they are alone
    flying: dict[Future, Job] = {}
    tries: dict[str, int] = {}
    finished = 0

    def begin(job: Job) -> None:
        nonlocal finished
        if not store.claim(job.work, owner, LEASE_S, [o for o in store.owners() if gone(o)]):
            held_by_others.append(job)
        elif not plan.still_needed(job):
            store.release(job.work, owner)
            finished, done.known = finished + 1, done.known + 1
        else:
            flying[pool.submit(job)] = job

    while waiting or held_by_others or suspects or flying:
        monitor.step("pairs", finished, total)
        if suspects and not flying:
            begin(suspects.popleft())
        while not suspects and waiting and len(flying) < pool.size and not any(f.done() for f in flying):
            begin(waiting.popleft())
        if not flying:
            if not waiting and not suspects and held_by_others:
                time.sleep(POLL_S)
                waiting, held_by_others = held_by_others, deque()
            continue
        for future in wait(flying, POLL_S, FIRST_COMPLETED).done:
            job = flying.pop(future)
            try:
                outcome = future.result()
            except Lost:
                tries[job.work] = tries.get(job.work, 0) + 1
                if tries[job.work] < TRIES:
                    suspects.append(job)
                    continue
                outcome = nothing(
                    Message("The process that made it ended by itself, twice: it may have run out of memory.")
                )
            plan.add(job, outcome)
            finished, done.made = finished + 1, done.made + 1
            done.failed += outcome["reason"] is not None
    monitor.step("pairs", total, total)


# ------------------------------------------------------------------------ the worker


@dataclass(frozen=True)
class _Setup:
    """What a worker is told once."""

    scoring: Scoring
    systems: tuple[System, ...]
    chosen: BenchmarkSet
    work: Path
    scratch: Path
    keep: bool

    def __call__(self, cancelled: Callable[[], bool]) -> _Worker:
        return _Worker(self, cancelled)


class _Worker:
    """Makes and scores one pair after the other; one system is ready at a time."""

    def __init__(self, setup: _Setup, cancelled: Callable[[], bool]) -> None:
        self._setup = setup
        self._monitor = Monitor(cancelled=cancelled)
        self._scorer: Scorer = setup.scoring.open()
        self._ready: System | None = None

    def __call__(self, job: Job) -> dict[str, Any]:
        """The columns of ScoreFact that are measured. Raises Cancelled alone."""
        system, pair = self._setup.systems[job.system], job.pair
        self._setup.scratch.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=self._setup.scratch))
        seconds = None
        try:
            if self._ready is not system:
                self.close()
                system.prepare()
                self._ready = system
            began = time.perf_counter()
            made = system.make(pair, scratch / "made.mp4", self._monitor)
            seconds = time.perf_counter() - began
            video, row = self._scorer.score(
                pair, system.name, self._setup.chosen.name, made, scratch, self._setup.work, self._monitor
            )
            return self._columns(job, video, row, seconds)
        except Cancelled:
            raise
        except Exception as error:  # whatever a system does, the other pairs are made
            said = reason(error).replace(f"{scratch}{os.sep}", "").replace(str(scratch), "")
            return nothing(said, seconds)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _columns(self, job: Job, video: Path | None, row, seconds: float) -> dict[str, Any]:
        chosen, system = self._setup.chosen, self._setup.systems[job.system]
        checksum = file_sha256(video) if video is not None else ""
        if video is not None and self._setup.keep:
            kept = video_path(
                self._setup.work, chosen.name, chosen.sha256, system.name, system.fingerprint, job.pair.id
            )
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.replace(video, kept)
        row = replace(row, file=f"{pair_file(job.pair.id)}.mp4", reference=Path(row.reference).name)
        values = row.values
        return {
            "offset": row.offset,
            "lse_d": row.lse_d,
            "lse_c": row.lse_c,
            "certainty": row.certainty,
            "coverage": row.coverage,
            "identity": values.get("identity_cosine"),
            "sharpness": values.get("sharpness_mouth"),
            "movement": values.get("mouth_movement_silence"),
            "frames": row.frames,
            "seconds": seconds,
            "reason": None if row.error is None else str(row.error),
            "video_sha256": checksum,
            "record": row.record(),
        }

    def close(self) -> None:
        """Let go of the system that is ready."""
        if self._ready is not None:
            self._ready.close()
            self._ready = None


def nothing(why: str, seconds: float | None = None) -> dict[str, Any]:
    """The measured columns of a pair that has no numbers."""
    numbers = ("offset", "lse_d", "lse_c", "certainty", "coverage", "identity", "sharpness", "movement")
    return dict.fromkeys(numbers) | {
        "frames": 0,
        "seconds": seconds,
        "reason": str(why),
        "video_sha256": "",
        "record": {},
    }


# ------------------------------------------------------- what is measured of a whole set


def _check(chosen: BenchmarkSet, store: Store, scorer: Scorer, done: Summary, monitor: Monitor) -> None:
    """Let the evaluator find known shifts in the set's real clips, once for each way to score."""
    facts = {
        n: scorer.facts[n] for n in ("measure_version", "evaluator", "evaluator_sha256", "protocol", "protocol_hash")
    }
    key = digest("check", chosen.sha256, facts)
    with store.read() as session:
        if session.scalar(select(CheckFact.id).where(CheckFact.key == key)) is not None:
            return
    tried, found, record = scorer.check(chosen, monitor)
    store.add(
        CheckFact,
        [
            {
                "key": key,
                "run": done.run,
                "set_sha256": chosen.sha256,
                **facts,
                "tried": tried,
                "found": found,
                "record": record,
            }
        ],
    )


def _distances(
    chosen: BenchmarkSet,
    systems: Sequence[System],
    pairs: list[Pair],
    store: Store,
    scorer: Scorer,
    work: Path,
    done: Summary,
    monitor: Monitor,
) -> None:
    """Fréchet distances of each system's kept videos, by category and over all."""
    categories = ["", *sorted({p.category for p in pairs})]
    total = len(systems) * len(categories)
    for number, (system, category) in enumerate((s, c) for s in systems for c in categories):
        monitor.step("distances", number, total)
        asked = [p for p in pairs if category in ("", p.category)]
        paths = [video_path(work, chosen.name, chosen.sha256, system.name, system.fingerprint, p.id) for p in asked]
        there = [(pair, path) for pair, path in zip(asked, paths, strict=True) if path.is_file()]
        if not there:
            continue
        sums = [file_sha256(path) for _, path in there]
        key = digest("distance", chosen.sha256, system.fingerprint, category, sums, scorer.facts)
        with store.read() as session:
            if session.scalar(select(DistanceFact.id).where(DistanceFact.key == key)) is not None:
                continue
        try:
            found = scorer.distance([pair for pair, _ in there], [path for _, path in there], work)
        except Cancelled:
            raise
        except Exception as error:
            done.notes.append(Message("No Fréchet distance of {system}: {why}", system=system.name, why=reason(error)))
            continue
        if found is None:
            return
        store.add(
            DistanceFact,
            [
                {
                    "key": key,
                    "run": done.run,
                    "set_sha256": chosen.sha256,
                    "system": system.name,
                    "fingerprint": system.fingerprint,
                    "category": category,
                    **found,
                }
            ],
        )
    monitor.step("distances", total, total)
