"""The report of a sync: what was done to which frames, how long it took, and warnings."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .media.timeline import MEETINGS


@dataclass(frozen=True)
class Report:
    """What a sync did. Frames count those of the result; seconds are wall time a stage (stages overlap)."""

    out: str
    frames: int
    fps: float
    frames_synced: int
    frames_passed: int
    passed_ranges: list[tuple[int, int]]  # first, stop; frames of the result left untouched
    faces: int
    shots: int
    width: int
    height: int
    seconds: dict[str, float]
    total_seconds: float
    peak_rss_mb: float
    model: str
    checkpoint_sha256: str
    engine: str
    label: str
    warnings: list[str] = field(default_factory=list)
    missed_ranges: list[tuple[int, int]] = field(default_factory=list)  # of passed_ranges, those that have the voice
    voice_seconds: float = 0.0
    video_seconds: float = 0.0  # of the source
    meeting: str = ""  # how their lengths met: a key of media.timeline.MEETINGS, "" where they are the same
    frames_bridged: int = 0  # of frames_synced, those in which the face was not found but taken from its neighbours

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8", "backslashreplace")

    def words(self) -> str:
        """The report in a few sentences."""
        speed = self.frames / self.total_seconds if self.total_seconds else 0.0
        text = (
            f"{self.frames} frames at {self.fps:g} a second, {self.width} × {self.height}; the mouth was made anew in "
            f"{self.frames_synced} of them ({self.faces} face{'s' if self.faces != 1 else ''} seen in "
            f"{self.shots} shot{'s' if self.shots != 1 else ''}). It took {self.total_seconds:.1f} s, "
            f"{speed:.0f} frames a second, with {self.model} on {self.engine}."
        )
        if self.meeting:
            text += f" Voice {self.voice_seconds:.1f} s, video {self.video_seconds:.1f} s: {MEETINGS[self.meeting]}."
        if self.frames_passed:
            text += f" {self.frames_passed} frames passed through untouched: {self._passed()}."
        if self.frames_bridged:
            text += f" In {self.frames_bridged} frames the face was not found, but taken from the frames around them."
        return " ".join([text, *self.warnings])

    def _passed(self) -> str:
        """Why and where frames were left alone."""
        missed = sum(b - a for a, b in self.missed_ranges)
        said = []
        if missed:
            spans = [f"{a / self.fps:.2f} to {b / self.fps:.2f} s" for a, b in self.missed_ranges]
            where = ", ".join(spans[:3]) + (f" and {len(spans) - 3} more times" if len(spans) > 3 else "")
            said.append(f"{missed} without the face ({where})")
        if self.frames_passed > missed:
            said.append(f"{self.frames_passed - missed} outside the part that has the voice")
        return " and ".join(said)
