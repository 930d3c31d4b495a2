"""Tells the caller how far the work is, stops it when asked to, and keeps the seconds of each stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import Cancelled
from .records import Progress


class Monitor:
    """Progress, cancelling and stage times of one job; safe to use from the job's threads."""

    def __init__(
        self,
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._progress, self._cancelled = progress, cancelled
        self._began: dict[str, float] = {}
        self._last = 0.0
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}

    def step(self, stage: str, done: int, total: int) -> None:
        """Report progress, ten times a second at most. Raises Cancelled."""
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("The work was stopped; nothing was left behind.")
        now = time.monotonic()
        began = self._began.setdefault(stage, now)
        if self._progress is not None and (now - self._last > 0.1 or done >= total):
            self._last = now
            left = (now - began) / done * (total - done) if done and now > began else None
            self._progress(Progress(stage, done, total, left))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall seconds of a block to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
