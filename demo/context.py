"""Context of the page: what every tab and the API share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from lipsync.messages import Message

from .callbacks import Callbacks
from .jobs import JobQueue
from .lanes import Lane
from .operator import Operator
from .settings import Settings
from .studies import Studies

if TYPE_CHECKING:
    from resynced.store import Store


@dataclass(frozen=True)
class Context:
    """Settings, job queue, who may change things, and the lanes of short work outside the queue."""

    settings: Settings
    jobs: JobQueue
    operator: Operator = field(default_factory=Operator)
    labels: Lane = field(default_factory=lambda: Lane(Message("having labels checked"), at_once=1))
    pictures: Lane = field(default_factory=lambda: Lane(Message("asking for pictures"), at_once=1))
    voices: Lane = field(default_factory=lambda: Lane(Message("making voices")))

    @cached_property
    def callbacks(self) -> Callbacks:
        """Who may be told that a video is made."""
        return Callbacks(self.settings.callback_host_names, self.settings.callback_secret.get_secret_value())

    @cached_property
    def store(self) -> Store:
        """The benchmark's store, opened when it is first asked for. Raises BenchmarkError where it cannot be."""
        from resynced.store import Store

        return Store()

    @cached_property
    def studies(self) -> Studies:
        """The studies of that store."""
        return Studies(lambda: self.store)
