"""Records of the benchmark: set, pair, system. Everything else is computed from these and from rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from lipsync.errors import LipsyncError
from lipsync.progress import Monitor

CATEGORIES = ("dubbed", "random", "tts")


class BenchmarkError(LipsyncError):
    """A set, a submission, a run or the store is not as it must be; the sentence says what to do."""


@dataclass(frozen=True)
class Media:
    """One file of a set: a clip, or a voice.

    sha256   of the file's bytes
    speaker  who is seen or heard: speakers are never shared with a training split
    """

    id: str
    path: Path
    sha256: str
    language: str = ""
    speaker: str = ""
    consent: str = ""
    licence: str = ""
    source: str = ""


@dataclass(frozen=True)
class Pair:
    """A clip and the voice that it is to be given.

    id         stable, unique in its set: outputs of a submission are named by it (ID.mp4)
    category   one of CATEGORIES
    reference  the clip that really says the voice's words, where there is one (the ceiling)
    """

    id: str
    category: str
    video: Media
    voice: Media
    reference: Path | None = None


@dataclass(frozen=True)
class BenchmarkSet:
    """A frozen list of pairs with its version.

    sha256  over ids, categories and every file's sha256, in order: rows name it; of one version it never changes
    footer  the credit line that stands under every table made with it
    """

    name: str
    version: str
    title: str
    pairs: tuple[Pair, ...]
    sha256: str
    licence: str = ""
    footer: str = ""
    notes: tuple[str, ...] = field(default=())


class System(ABC):
    """What is measured: makes the video of a pair. True of every system: the same pair gives the same picture and sound
    again; nothing is written outside the folder of `out`; it keeps no state between pairs.

    name         as the leaderboard shows it, unique
    fingerprint  changes with anything that could change an output (weights, options, the files of a submission)
    tier         ours, reproduced or self-reported
    """

    name: str
    fingerprint: str
    tier: str = "ours"

    @abstractmethod
    def make(self, pair: Pair, out: Path, monitor: Monitor | None = None) -> Path:
        """Write the video of a pair to `out` (an .mp4 that does not exist yet) and return where it is.

        Raises LipsyncError with the reason, which becomes the row's; Cancelled.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of models and scratch folders."""
