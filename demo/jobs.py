"""Job queue: each visitor's files in a folder with an unguessable name, lanes of work, and an end for every file.

A job is a folder `<work>/jobs/<id>/` with `job.json` beside the files. The id is its owner's key: whoever has it finds
the job again, also while it runs and after a restart of the server. Files and progress are served under `Job.view`,
results for anybody under `Job.shared`; neither gives the id or the other away. What a lane's work is, only
demo/tasks.py knows.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import heapq
import json
import logging
import math
import os
import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lipsync.errors import Cancelled, InputError, LipsyncError
from lipsync.messages import Message, as_json, from_json
from lipsync.progress import Progress
from lipsync.renamed import current_name

_ID = re.compile(r"[A-Za-z0-9_-]{32}")
_log = logging.getLogger(__name__)

BUSY = ("waiting", "running")
LANES = {  # task -> lane, rank in it (0 first)
    "faces": ("faces", 0),
    "sync": ("sync", 0),
    "evaluate": ("sync", 1),
    "benchmark": ("benchmark", 0),  # the operator's, at the lowest priority of the machine
    "submission": ("submission", 0),
}
OLD_TASKS = {"judge": "evaluate"}  # of before 2026-12, still read in stored jobs
UNBOUNDED = ("benchmark", "submission")  # tasks that may take as long as they need
LANE_NAMES = tuple(dict.fromkeys(lane for lane, _ in LANES.values()))
BROKEN = Message("Something broke on our side; the operator's log says what.")
UNWRITABLE = Message("This server's disk is full or cannot be written, so the work was ended. Try again later.")
OUT_OF_MEMORY = Message("This clip needs more memory than the server has; try a shorter or smaller one.")
MEMORY_BYTES = 512 << 20  # of face maps that are kept for the next click


@dataclass
class Job:
    """One visitor's clip and what became of it.

    state   new | waiting | running | done | failed | cancelled | interrupted (the server was restarted meanwhile)
    task    what the state is about: a key of LANES
    error   one sentence, where the state is failed: a Message, so that every visitor reads it in their language
    facts   what the work wrote down, as JSON values and Messages
    """

    id: str
    created: float
    touched: float  # unix time of the last change of state: the files live on from here
    state: str = "new"
    task: str = ""
    error: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Is work on it waiting or running?"""
        return self.state in BUSY

    @property
    def view(self) -> str:
        """The name under which its files and progress are served: gives no right to change or delete them."""
        return self._name("view")

    @property
    def shared(self) -> str:
        """The name under which anybody may be shown its results: gives no right to its source, files or progress."""
        return self._name("share")

    def _name(self, right: str) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(f"{right} {self.id}".encode()).digest()).decode()[:32]


Work = Callable[[Job, Callable[[Progress], None], Callable[[], bool]], None]


class Ages:
    """How old files are, by a clock that nobody can set; the wall clock is asked only about what was there before.

    wall, steady  unix time and a monotonic time, seconds; tests give their own
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic):
        self.wall, self._steady = wall, steady
        self._round = -math.inf  # what was not there at the last round cannot be older than that
        self._born: dict[Hashable, tuple[float, float]] = {}

    def of(self, key: Hashable, written: float) -> float:
        """Seconds since a thing was written, by unix time, as far as this process can know: it counts on from there."""
        known = self._born.get(key)
        if known is None or known[0] != written:
            age = min(max(0.0, self.wall() - written), self._steady() - self._round)
            self._born[key] = known = (written, self._steady() - age)
        return self._steady() - known[1]

    def touch(self, key: Hashable, written: float) -> None:
        """A thing was written just now."""
        self._born[key] = written, self._steady()

    def keep(self, keys: set[Hashable]) -> None:
        """End a round: these were seen, all others are forgotten."""
        self._round = self._steady()
        self._born = {key: born for key, born in self._born.items() if key in keys}


class Memory:
    """Values by job id, the least recently used of which go when all together hold more than `most` bytes."""

    def __init__(self, most: int = MEMORY_BYTES):
        self.most = most
        self._held: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._held

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: str) -> Any:
        """The value; None where it went."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: str, value: Any) -> None:
        """Keep a value, also one that alone is over the bound: it is needed now."""
        with self._lock:
            self._held.pop(key, None)
            self._held[key] = value, held_bytes(value)
            while len(self._held) > 1 and sum(size for _, size in self._held.values()) > self.most:
                self._held.popitem(last=False)

    def pop(self, key: str) -> None:
        """Forget one."""
        with self._lock:
            self._held.pop(key, None)


def held_bytes(value: Any) -> int:
    """Bytes of the arrays and byte strings in a value of dataclasses, tuples, lists and dicts."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, bytes):
        return len(value)
    if is_dataclass(value) and not isinstance(value, type):
        return sum(held_bytes(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, dict):
        return sum(map(held_bytes, value.values()))
    if isinstance(value, tuple | list):
        return sum(map(held_bytes, value))
    return 0


@dataclass(order=True)
class _Entry:
    """One piece of waiting work."""

    rank: int
    number: int
    job: Job = field(compare=False)
    work: Work = field(compare=False)
    stop: threading.Event = field(compare=False)
    address: str = field(compare=False)


class JobQueue:
    """All jobs of one server, and the threads that work on them.

    folder             where jobs live; made if needed
    keep_s             seconds after its last change for which a job is kept
    at_once            how many run at a time in the lane `sync`; `faces` has a thread of its own
    max_waiting        entries that may wait in a lane; max_waiting_each: of one address
    budget_s           seconds of wall time that one piece of work may take
    ages               clocks; tests give their own
    """

    def __init__(
        self,
        folder: Path,
        keep_s: float = 3600,
        at_once: int = 1,
        *,
        max_waiting: int = 32,
        max_waiting_each: int = 6,
        budget_s: float = 1800,
        ages: Ages | None = None,
    ):
        self.folder_of_all, self.keep_s = folder, keep_s
        self._max_waiting, self._max_waiting_each, self._budget_s = max_waiting, max_waiting_each, budget_s
        self._ages = ages or Ages()
        folder.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
        self._lock = threading.RLock()
        self._come = threading.Condition(self._lock)
        self._closing = False
        self._lanes: dict[str, list[_Entry]] = {name: [] for name in LANE_NAMES}
        self._next: dict[str, tuple[str, Work, str]] = {}  # what a busy job does after its present work
        self._stop: dict[str, threading.Event] = {}  # of busy jobs
        self._progress: dict[str, Progress] = {}
        self._unwritten: set[str] = set()  # jobs whose state the disk did not take
        self._count = 0
        self.memory = Memory()  # what is costly to find again and too large for JSON; gone with its job
        self._jobs = self._read_all()
        self._views = {job.view: job.id for job in self._jobs.values()}
        self._shared = {job.shared: job.id for job in self._jobs.values()}
        self._threads = [
            threading.Thread(target=self._serve, args=(name,), daemon=True, name=f"lane-{name}")
            for name in LANE_NAMES
            for _ in range(at_once if name == "sync" else 1)
        ]
        for thread in self._threads:
            thread.start()

    # -- finding ------------------------------------------------------------------------------------------------------

    def create(self) -> Job:
        """A new job with its empty folder. Raises InputError where the disk takes none."""
        now = self._ages.wall()
        job = Job(secrets.token_urlsafe(24), now, now)
        try:
            self.folder(job.id).mkdir(mode=0o700)
            self._save(job)
        except OSError as error:
            shutil.rmtree(self.folder(job.id), ignore_errors=True)
            _log.error("no job can be made: %s", error)
            raise InputError(UNWRITABLE) from error
        with self._lock:
            self._ages.touch(job.id, now)
            self._jobs[job.id], self._views[job.view], self._shared[job.shared] = job, job.id, job.id
        return job

    def get(self, job_id: object) -> Job | None:
        """The job of this id; None for one that is unknown, deleted or expired."""
        with self._lock:
            job = self._jobs.get(job_id) if isinstance(job_id, str) else None
            return None if job is None or self._expired(job) else job

    def viewed(self, view: str) -> Job | None:
        """The job whose files are served under this name."""
        return self.get(self._views.get(view))

    def shared(self, name: str) -> Job | None:
        """The job whose results are shown to anybody under this name."""
        return self.get(self._shared.get(name))

    def latest(self, task: str) -> Job | None:
        """The job that is busy with a task, else the one that was last."""
        with self._lock:
            mine = [job for job in self._jobs.values() if job.task == task]
        return max(mine, key=lambda job: (job.busy, job.touched), default=None)

    def folder(self, job_id: str) -> Path:
        """The folder of a job's files."""
        if not _ID.fullmatch(job_id):
            raise ValueError(f"no job id: {job_id!r}")
        return self.folder_of_all / job_id

    def progress(self, job_id: str) -> Progress | None:
        """How far the running work is."""
        return self._progress.get(job_id)

    def pending(self, job_id: str) -> bool:
        """Does a video wait to be made until the job's present work has ended?"""
        return self._next.get(job_id, ("",))[0] == "sync"

    def ahead(self, job_id: str) -> int:
        """How many others wait or run before this waiting one, in its lane."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.state != "waiting":
                return 0
            lane = LANES[job.task][0]
            order = [entry.job.id for entry in sorted(self._lanes[lane])]
            running = sum(j.state == "running" and LANES[j.task] == LANES[job.task] for j in self._jobs.values())
            return order.index(job_id) + running if job_id in order else 0

    # -- working ------------------------------------------------------------------------------------------------------

    def update(self, job_id: str, **facts: Any) -> None:
        """Write facts of a job down. Raises InputError where the disk does not take them."""
        with self._lock:
            if job := self._jobs.get(job_id):
                job.facts.update(facts)
                try:
                    self._save(job)
                except OSError as error:
                    _log.error("facts of a job cannot be written: %s", error)
                    raise InputError(UNWRITABLE) from error

    def submit(self, job_id: str, task: str, work: Work, address: str = "") -> None:
        """Put work on a job into the lane of its task; work(job, progress, cancelled).

        A job that is busy with the same task is left as it is. One that is busy with another takes the new work up when
        that has ended; being measured ends at once for it.
        Raises InputError where too many wait already, in all or from this address.
        """
        with self._lock:
            job = self.get(job_id)
            if job is None or (job.busy and job.task == task):
                return
            waiting = self._lanes[LANES[task][0]]
            mine = sum(bool(address) and entry.address == address for entry in waiting)
            if task != "evaluate" and (len(waiting) >= self._max_waiting or mine >= self._max_waiting_each):
                count = mine if mine >= self._max_waiting_each else len(waiting)
                raise InputError(
                    "{count} clips wait here already, which is all that may. Try again in a few minutes.", count=count
                )
            if job.busy:
                self._next[job.id] = task, work, address
                if job.task == "evaluate":
                    self._stop[job.id].set()
                    if job.state == "waiting":
                        self._leave(job, "cancelled")
                return
            self._enter(job, task, work, address)

    def _enter(self, job: Job, task: str, work: Work, address: str) -> None:
        lane, rank = LANES[task]
        self._stop[job.id] = threading.Event()
        self._count += 1
        heapq.heappush(self._lanes[lane], _Entry(rank, self._count, job, work, self._stop[job.id], address))
        job.task, job.error = task, ""
        self._set(job, "waiting")
        self._come.notify_all()

    def _serve(self, lane: str) -> None:
        """Work on the entries of a lane, until the queue closes."""
        while True:
            with self._come:
                while not self._lanes[lane] and not self._closing:
                    self._come.wait()
                if self._closing:
                    return
                entry = heapq.heappop(self._lanes[lane])
                self._set(entry.job, "running")
            self._run(entry)

    def _run(self, entry: _Entry) -> None:
        job, stop = entry.job, entry.stop
        until = math.inf if job.task in UNBOUNDED else time.monotonic() + self._budget_s

        def over() -> bool:
            return stop.is_set() or time.monotonic() > until

        state, error = "done", ""
        try:
            entry.work(job, lambda p: self._progress.__setitem__(job.id, p), over)
        except Cancelled:
            state = "cancelled"
            if not stop.is_set():
                state = "failed"
                error = Message(
                    "This took longer than the {minutes:g} minutes that a video may take here. Cut it.",
                    minutes=self._budget_s / 60,
                )
        except LipsyncError as known:
            state, error = "failed", known.message
        except MemoryError:
            _log.error("a job ran out of memory at %s", job.task)
            state, error = "failed", OUT_OF_MEMORY
        except Exception:
            if not stop.is_set():  # a deleted job's files are gone under its work
                _log.exception("a job failed at %s", job.task)
            state, error = "failed", BROKEN
        if self._closing and state != "done":
            state, error = "interrupted", ""
        with self._lock:
            self._leave(job, state, error)

    def _leave(self, job: Job, state: str, error: str = "") -> None:
        """The present work on a job has ended: take up what comes next."""
        self._progress.pop(job.id, None)
        self._stop.pop(job.id, None)
        for entries in self._lanes.values():
            if job.id in (entry.job.id for entry in entries):
                entries[:] = [entry for entry in entries if entry.job is not job]
                heapq.heapify(entries)
        after = self._next.pop(job.id, None)
        if job.id not in self._jobs:  # deleted meanwhile
            self._remove(job)
            return
        if job.id in self._unwritten:
            self._unwritten.discard(job.id)
            state, error, after = "failed", UNWRITABLE, None
        job.error = error
        if after and not self._closing and (state == "done" or job.task == "evaluate"):
            self._enter(job, *after)
        else:
            self._set(job, state)

    def cancel(self, job_id: str) -> None:
        """Stop the work on a job, at once if it still waits. Its files stay."""
        with self._lock:
            job, stop = self._jobs.get(job_id), self._stop.get(job_id)
            self._next.pop(job_id, None)
            if stop is not None:
                stop.set()
            if job is not None and job.state == "waiting":
                self._leave(job, "cancelled")

    def named_by_others(self, job_id: str) -> set[str]:
        """Uploads that other jobs still name. Gradio keeps one copy of what two visitors gave under one name."""
        with self._lock:
            facts = [job.facts for job in self._jobs.values() if job.id != job_id]
        return {path for f in facts for path in (*f.get("uploads", []), *f.get("given", {}).values())}

    # -- ending -------------------------------------------------------------------------------------------------------

    def delete(self, job_id: str) -> None:
        """Forget a job and remove its files, now."""
        self.cancel(job_id)
        with self._lock:
            job = self._jobs.pop(job_id, None)
            if job is not None:
                self._remove(job)

    def sweep(self) -> int:
        """Delete jobs whose time is over, and folders that belong to none; returns how many."""
        with self._lock:
            over = [job.id for job in self._jobs.values() if self._expired(job)]
            for job_id in over:
                self.delete(job_id)
            stray = [p for p in self.folder_of_all.iterdir() if p.name not in self._jobs and p.name not in self._stop]
            self._ages.keep(set(self._jobs))
            for path in stray:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return len(over) + len(stray)

    def close(self) -> None:
        """Stop everything; the state of jobs stays on disk for the next start."""
        with self._come:
            self._closing = True
            for stop in self._stop.values():
                stop.set()
            self._come.notify_all()
        for thread in self._threads:
            thread.join(timeout=60)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _expired(self, job: Job) -> bool:
        return not job.busy and self._ages.of(job.id, job.touched) > self.keep_s

    def _set(self, job: Job, state: str) -> None:
        """Change a job's state. One whose state cannot be written is ended, and says so, until the disk takes it."""
        job.state, job.touched = state, self._ages.wall()
        self._ages.touch(job.id, job.touched)
        try:
            self._save(job)
        except OSError as error:
            _log.error("the state of a job cannot be written: %s", error)
            if state in BUSY:
                self._unwritten.add(job.id)
                self._stop[job.id].set()
            else:
                job.state, job.error = "failed", UNWRITABLE

    def _save(self, job: Job) -> None:
        """Write job.json whole or not at all; a folder that was deleted is not made again."""
        path = self.folder(job.id) / "job.json"
        temporary = path.with_suffix(".part")
        try:
            temporary.write_text(json.dumps(as_json(asdict(job)), ensure_ascii=False), encoding="utf-8")
            temporary.replace(path)
        except FileNotFoundError:
            return
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _remove(self, job: Job) -> None:
        self.memory.pop(job.id)
        self._progress.pop(job.id, None)
        self._views.pop(job.view, None)
        self._shared.pop(job.shared, None)
        shutil.rmtree(self.folder(job.id), ignore_errors=True)

    def _read_all(self) -> dict[str, Job]:
        """The jobs of the last run of the server; those that were being worked on are interrupted."""
        found = {}
        for half in self._half_written():
            shutil.rmtree(half) if half.is_dir() else half.unlink(missing_ok=True)
        for path in self.folder_of_all.glob("*/job.json"):
            try:
                job = Job(**from_json(json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError) as error:
                _log.warning("the job %s cannot be read and is dropped: %r", path, error)
                continue
            if job.id != path.parent.name or not _ID.fullmatch(job.id):
                continue
            job.task = current_name(job.task, OLD_TASKS, "task")
            if job.busy:
                job.state = "interrupted"
                with contextlib.suppress(OSError):
                    self._save(job)
            self._ages.of(job.id, job.touched)
            found[job.id] = job
        return found

    def _half_written(self) -> Iterator[Path]:
        """What a server that was killed left unfinished."""
        for pattern in ("*/job.part", "*/*.new", "*/.lipsync-*"):
            yield from self.folder_of_all.glob(pattern)


class FolderSweeper:
    """Removes files not changed for `keep_s` seconds, and folders empty for as long (gradio's cache of uploads)."""

    def __init__(self, folder: Path, keep_s: float, ages: Ages | None = None):
        self._folder, self._keep_s, self._ages = folder, keep_s, ages or Ages()

    def sweep(self) -> int:
        """One round; returns how many went."""
        count, seen = 0, set()
        for path in sorted(self._folder.rglob("*"), reverse=True):
            with contextlib.suppress(OSError):
                key = path, path.lstat().st_ino
                if self._ages.of(key, path.lstat().st_mtime) > self._keep_s:
                    path.rmdir() if path.is_dir() else path.unlink()
                    count += 1
                else:
                    seen.add(key)
        self._ages.keep(seen)
        return count
