"""Progress and cancelling of a job, with the seconds of each stage and the memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from .errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """One step of progress: which stage, how many frames of it are done, of how many; seconds left by our guess.

    share  of the whole job that is done, 0..1, where a job has several stages and knows them
    """

    stage: str
    done: int
    total: int
    seconds_left: float | None = None
    share: float | None = None


def rss_mb() -> float:
    """Memory held now by this process and those under it, in MB (2^20 bytes); what they share is counted in each."""
    held, own = 0, psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        with suppress(psutil.Error):  # a child may end at any time
            held += process.memory_info().rss
    return held / 2**20


class Monitor:
    """Progress, cancelling and stage times of one job; safe to use from the job's threads."""

    def __init__(
        self,
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._progress, self._cancelled = progress, cancelled
        self._began: dict[str, float] = {}
        self._last = self._weighed = 0.0
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}
        self.peak_rss_mb = rss_mb()

    def check(self) -> None:
        """Raises Cancelled where the work was stopped."""
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("The work was stopped; nothing was left behind.")

    def step(self, stage: str, done: int, total: int) -> None:
        """Report progress, ten times a second at most. Raises Cancelled."""
        self.check()
        now = time.monotonic()
        began = self._began.setdefault(stage, now)
        if now - self._last > 0.1 or done >= total:
            self._last = now
            self._weigh(now)
            left = (now - began) / done * (total - done) if done and now > began else None
            if self._progress is not None:
                self._progress(Progress(stage, done, total, left))

    def _weigh(self, now: float) -> None:
        """Look at the memory, once a second at most: finding the children reads every process of the machine."""
        if now - self._weighed > 1:
            self._weighed = now
            self.peak_rss_mb = max(self.peak_rss_mb, rss_mb())

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall seconds of a block to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
