"""Context of the page: what every tab and the API share."""

from __future__ import annotations

from dataclasses import dataclass, field

from .jobs import JobQueue
from .lanes import Lane
from .settings import Settings


@dataclass(frozen=True)
class Context:
    """Settings, job queue, and the lanes of short work outside it."""

    settings: Settings
    jobs: JobQueue
    labels: Lane = field(default_factory=lambda: Lane("having labels checked", at_once=1))
    voices: Lane = field(default_factory=lambda: Lane("making voices"))
