"""Where pairs are made: in this process, in others on this machine, or on a Ray cluster. One contract for all three.

A worker is a class that is told once how to work (`Setup`) and then takes jobs. A pool takes a job and gives a future.
A worker that ends by itself (killed for memory, say) makes the futures of its jobs raise Lost.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any

from lipsync.compiled import share_cores

from .records import BenchmarkError

GRACE_S = 20.0  # for a worker to stop what it does; a system's own children are ended by the system

Job = Any
Setup = Callable[[Callable[[], bool]], Callable[[Job], Any]]  # (is it cancelled?) -> work; picklable


class Lost(Exception):
    """The worker ended before the job did."""


class Here:
    """In this process, one at a time: `submit` returns when the job is done."""

    size = 1

    def __init__(self, setup: Setup, cancelled: Callable[[], bool]) -> None:
        self._work = setup(cancelled)

    def submit(self, job: Job) -> Future:
        """Do a job; what it raises is the future's."""
        future: Future = Future()
        try:
            future.set_result(self._work(job))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing is left running."""
        closing = getattr(self._work, "close", None)
        if closing is not None:
            closing()


class Processes:
    """`size` processes of this machine, begun anew after one ended by itself; they end with this one, even killed."""

    def __init__(self, setup: Setup, size: int) -> None:
        self.size = size
        self._setup = setup
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._pool = self._begun()

    def _begun(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.size, mp_context=self._context, initializer=_begin, initargs=(self._setup, self._stop, self.size)
        )

    def submit(self, job: Job) -> Future:
        """Hand a job to the next free process."""
        outer: Future = Future()

        def finished(inner: Future) -> None:
            error = inner.exception()
            if isinstance(error, BrokenProcessPool):
                outer.set_exception(Lost())
            elif error is not None:
                outer.set_exception(error)
            else:
                outer.set_result(inner.result())

        try:
            inner = self._pool.submit(_do, job)
        except (BrokenProcessPool, OSError):  # OSError: it broke while a process was begun for this job
            self._end(self._pool)
            self._pool = self._begun()
            inner = self._pool.submit(_do, job)
        inner.add_done_callback(finished)
        return outer

    def close(self) -> None:
        """Ask all to stop, and end those that do not."""
        self._stop.set()
        self._end(self._pool, GRACE_S)

    @staticmethod
    def _end(pool: ProcessPoolExecutor, grace_s: float = 0.0) -> None:
        running = list((pool._processes or {}).values())  # noqa: SLF001 - there is no public way to them
        pool.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + grace_s
        for process in running:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


_work: Callable[[Job], Any] | None = None


def _begin(setup: Setup, stop: Any, size: int) -> None:
    """In a new process, one of `size`: watch the parent, then get ready."""
    global _work
    share_cores(size)
    gone = threading.Event()
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        gone.set()
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _work = setup(lambda: gone.is_set() or stop.is_set())
    if hasattr(_work, "close"):
        Finalize(None, _work.close, exitpriority=10)


def _do(job: Job) -> Any:
    return _work(job)


class Cluster:
    """Actors on a Ray cluster, one CPU each; files must be reachable from every machine under the same paths."""

    def __init__(self, setup: Setup, size: int, address: str) -> None:
        try:
            import ray
        except ImportError as error:
            raise BenchmarkError(
                "--ray needs Ray: pip install 'ray>=2.60' beside the rest, or leave --ray out."
            ) from error
        self._ray = ray
        self._mine = not ray.is_initialized()
        if self._mine:
            local = address in ("", "local")
            ray.init(
                **({"num_cpus": size} if local else {"address": address}),
                log_to_driver=False,
                include_dashboard=False if local else None,
            )
        self.size = size
        self._actor = ray.remote(num_cpus=1)(_Actor)
        self._setup = setup
        self._free = [self._actor.remote(setup) for _ in range(size)]

    def submit(self, job: Job) -> Future:
        """Hand a job to a free actor; no more than `size` at once."""
        actor = self._free.pop()
        outer: Future = Future()

        def finished(inner: Future) -> None:
            error = inner.exception()
            if isinstance(error, self._ray.exceptions.RayActorError):
                self._free.append(self._actor.remote(self._setup))
                outer.set_exception(Lost())
                return
            self._free.append(actor)
            if isinstance(error, self._ray.exceptions.RayTaskError):
                outer.set_exception(error.cause or error)
            elif error is not None:
                outer.set_exception(error)
            else:
                outer.set_result(inner.result())

        actor.do.remote(job).future().add_done_callback(finished)
        return outer

    def close(self) -> None:
        """Let go of the actors, and of Ray where it was begun here."""
        for actor in self._free:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
        if self._mine:
            self._ray.shutdown()


class _Actor:
    def __init__(self, setup: Setup) -> None:
        self._work = setup(lambda: False)

    def do(self, job: Job) -> Any:
        return self._work(job)


def open_pool(setup: Setup, workers: int, ray: str | None, cancelled: Callable[[], bool]) -> Here | Processes | Cluster:
    """A pool of so many workers. Raises BenchmarkError below one, or where Ray is asked for and is not here."""
    if not 1 <= workers <= 1024:
        raise BenchmarkError("Workers must be 1 to 1024, not {workers}.", workers=workers)
    if ray is not None:
        return Cluster(setup, workers, ray)
    return Here(setup, cancelled) if workers == 1 else Processes(setup, workers)
