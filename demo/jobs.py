"""The job store: each visitor's files in a folder with an unguessable name, one queue, and an end for every file.

A job is a folder `<work>/jobs/<id>/` with `job.json` beside the files. The id is the only key to it: whoever has the
link finds the job again, also while it runs and after a restart of the server; nobody else can name it.
Work runs on a few threads (`at_once`), first come first served. Nothing here knows what the work is.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lipsync.errors import Cancelled, LipsyncError
from lipsync.records import Progress

_ID = re.compile(r"[A-Za-z0-9_-]{32}")
_log = logging.getLogger(__name__)

BUSY = ("waiting", "running")
BROKEN = "Something broke on our side; the operator's log says what."


@dataclass
class Job:
    """One visitor's clip and what became of it.

    state   new | waiting | running | done | failed | cancelled | interrupted (the server was restarted meanwhile)
    task    what the state is about; a name that the caller of `Store.submit` chose
    error   one sentence, where the state is failed
    facts   what the work wrote down, as JSON values
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


Work = Callable[[Job, Callable[[Progress], None], Callable[[], bool]], None]


class Store:
    """All jobs of one server.

    folder   where jobs live; made if needed
    keep_s   seconds after its last change for which a job is kept
    at_once  how many run at a time; the others wait
    clock    unix time; tests give their own
    """

    def __init__(self, folder: Path, keep_s: float = 3600, at_once: int = 1, clock: Callable[[], float] = time.time):
        self.folder_of_all, self.keep_s, self._clock = folder, keep_s, clock
        folder.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="job")
        self._closing = False
        self._queue: list[str] = []  # waiting jobs in their order
        self._stop: dict[str, threading.Event] = {}  # of busy jobs
        self._progress: dict[str, Progress] = {}
        self.memory: dict[str, Any] = {}  # what is costly to find again and too large for JSON; gone with its job
        self._jobs = self._read_all()

    # -- finding ------------------------------------------------------------------------------------------------------

    def create(self) -> Job:
        """A new job with its empty folder."""
        now = self._clock()
        job = Job(secrets.token_urlsafe(24), now, now)
        self.folder(job.id).mkdir(mode=0o700)
        with self._lock:
            self._jobs[job.id] = job
            self._write(job)
        return job

    def get(self, job_id: object) -> Job | None:
        """The job of this id; None for one that is unknown, deleted or expired."""
        with self._lock:
            job = self._jobs.get(job_id) if isinstance(job_id, str) else None
            return None if job is None or self._expired(job) else job

    def folder(self, job_id: str) -> Path:
        """The folder of a job's files."""
        if not _ID.fullmatch(job_id):
            raise ValueError(f"no job id: {job_id!r}")
        return self.folder_of_all / job_id

    def progress(self, job_id: str) -> Progress | None:
        """How far the running work is."""
        return self._progress.get(job_id)

    def ahead(self, job_id: str) -> int:
        """How many jobs wait or run before this waiting one."""
        with self._lock:
            running = sum(job.state == "running" for job in self._jobs.values())
            return self._queue.index(job_id) + running if job_id in self._queue else 0

    # -- working ------------------------------------------------------------------------------------------------------

    def update(self, job_id: str, **facts: Any) -> None:
        """Write facts of a job down."""
        with self._lock:
            if job := self._jobs.get(job_id):
                job.facts.update(facts)
                self._write(job)

    def submit(self, job_id: str, task: str, work: Work) -> None:
        """Put work on a job into the queue; work(job, progress, cancelled). A busy job is left as it is."""
        with self._lock:
            job = self.get(job_id)
            if job is None or job.busy:
                return
            self._stop[job.id] = threading.Event()
            self._queue.append(job.id)
            job.task, job.error = task, ""
            self._set(job, "waiting")
            self._pool.submit(self._run, job, work, self._stop[job.id])

    def _run(self, job: Job, work: Work, stop: threading.Event) -> None:
        with self._lock:
            if stop.is_set():
                return
            self._queue.remove(job.id)
            self._set(job, "running")
        state, error = "done", ""
        try:
            work(job, lambda p: self._progress.__setitem__(job.id, p), stop.is_set)
        except Cancelled:
            state = "cancelled"
        except LipsyncError as known:
            state, error = "failed", str(known)
        except Exception:
            if not stop.is_set():  # a deleted job's files are gone under its work
                _log.exception("a job failed at %s", job.task)
            state, error = "failed", BROKEN
        if self._closing and state != "done":
            state, error = "interrupted", ""
        with self._lock:
            self._progress.pop(job.id, None)
            if self._stop.get(job.id) is stop:
                del self._stop[job.id]
            if job.id not in self._jobs:  # deleted meanwhile
                self._remove(job.id)
                return
            job.error = error
            self._set(job, state)

    def cancel(self, job_id: str) -> None:
        """Stop the work on a job, at once if it still waits. Its files stay."""
        with self._lock:
            job, stop = self._jobs.get(job_id), self._stop.get(job_id)
            if stop is not None:
                stop.set()
            if job is not None and job.state == "waiting":
                self._queue.remove(job.id)
                self._stop.pop(job.id, None)
                self._set(job, "cancelled")

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
            if self._jobs.pop(job_id, None) is not None:
                self._remove(job_id)

    def sweep(self) -> int:
        """Delete jobs whose time is over, and folders that belong to none; returns how many."""
        with self._lock:
            over = [job.id for job in self._jobs.values() if self._expired(job)]
            for job_id in over:
                self.delete(job_id)
            stray = [p for p in self.folder_of_all.iterdir() if p.name not in self._jobs and p.name not in self._stop]
            for path in stray:
                shutil.rmtree(path, ignore_errors=True)
        return len(over) + len(stray)

    def close(self) -> None:
        """Stop everything; the state of jobs stays on disk for the next start."""
        with self._lock:
            self._closing = True
            for stop in self._stop.values():
                stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _expired(self, job: Job) -> bool:
        return not job.busy and self._clock() - job.touched > self.keep_s

    def _set(self, job: Job, state: str) -> None:
        job.state, job.touched = state, self._clock()
        self._write(job)

    def _write(self, job: Job) -> None:
        """Write job.json whole or not at all; a folder that was deleted is not made again."""
        path = self.folder(job.id) / "job.json"
        with contextlib.suppress(FileNotFoundError):
            temporary = path.with_suffix(".part")
            temporary.write_text(json.dumps(asdict(job), ensure_ascii=False), encoding="utf-8")
            temporary.replace(path)

    def _remove(self, job_id: str) -> None:
        self.memory.pop(job_id, None)
        self._progress.pop(job_id, None)
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    def _read_all(self) -> dict[str, Job]:
        """The jobs of the last run of the server; those that were being worked on are interrupted."""
        found = {}
        for path in self.folder_of_all.glob("*/job.json"):
            try:
                job = Job(**json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                _log.warning("the job %s cannot be read and is dropped: %r", path, error)
                continue
            if job.id != path.parent.name or not _ID.fullmatch(job.id):
                continue
            if job.busy:
                job.state = "interrupted"
                self._write(job)
            found[job.id] = job
        return found


def sweep_folder(folder: Path, keep_s: float, now: float) -> int:
    """Remove files not changed for `keep_s` seconds, and folders empty for as long (gradio's cache of uploads)."""
    count = 0
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > keep_s:
                path.rmdir() if path.is_dir() else path.unlink()
                count += 1
    return count
