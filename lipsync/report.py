"""The report of a sync: what was done to which frames, how long it took, and warnings."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .media.timeline import MEETINGS
from .messages import Message


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
    hidden_ranges: list[tuple[int, int]] = field(default_factory=list)  # of passed_ranges, where something hides it
    covered_ranges: list[tuple[int, int]] = field(default_factory=list)  # frames of a new mouth behind something
    frames_bridged: int = 0  # of frames_synced, those in which the face was not found but taken from its neighbours

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8", "backslashreplace")

    def words(self) -> Message:
        """The report in a few sentences."""
        one_face, one_shot = Message("1 face"), Message("1 shot")
        said = [
            Message(
                "{frames} frames at {fps:g} a second, {width} × {height}; the mouth was made anew in {synced} of them "
                "({faces} seen in {shots}). It took {seconds:.1f} s, {speed:.0f} frames a second, with {model} on "
                "{engine}.",
                frames=self.frames,
                fps=self.fps,
                width=self.width,
                height=self.height,
                synced=self.frames_synced,
                faces=one_face if self.faces == 1 else Message("{n} faces", n=self.faces),
                shots=one_shot if self.shots == 1 else Message("{n} shots", n=self.shots),
                seconds=self.total_seconds,
                speed=self.frames / self.total_seconds if self.total_seconds else 0.0,
                model=self.model,
                engine=self.engine,
            )
        ]
        if self.meeting:
            said.append(
                Message(
                    "Voice {voice:.1f} s, video {video:.1f} s: {what}.",
                    voice=self.voice_seconds,
                    video=self.video_seconds,
                    what=MEETINGS[self.meeting],
                )
            )
        if self.frames_passed:
            passed = frames(self.frames_passed)
            said.append(Message("{frames} passed through untouched: {why}.", frames=passed, why=self._passed()))
        if self.frames_bridged:
            said.append(
                Message(
                    "In {frames} the face was not found, but taken from the frames around.",
                    frames=frames(self.frames_bridged),
                )
            )
        if self.covered_ranges:
            said.append(
                Message(
                    "In {frames} something lies before the face ({where}): it stays, the mouth was made behind it.",
                    frames=frames(sum(b - a for a, b in self.covered_ranges)),
                    where=self._where(self.covered_ranges),
                )
            )
        return Message.join(" ", [*said, *self.warnings])

    def _passed(self) -> Message:
        """Why and where frames were left alone."""
        missed, hidden = (sum(b - a for a, b in spans) for spans in (self.missed_ranges, self.hidden_ranges))
        why = []
        if missed:
            why.append(Message("{n} without the face ({where})", n=missed, where=self._where(self.missed_ranges)))
        if hidden:
            why.append(
                Message("{n} whose mouth something hides ({where})", n=hidden, where=self._where(self.hidden_ranges))
            )
        if outside := self.frames_passed - missed - hidden:
            why.append(Message("{n} outside the part that has the voice", n=outside))
        if len(why) == 1:
            return why[0]
        return Message("{some} and {last}", some=Message.join(", ", why[:-1]), last=why[-1])

    def _where(self, ranges: list[tuple[int, int]]) -> Message:
        """Ranges of frames as seconds, three of them at most."""
        spans = [seconds_span(a, b, self.fps) for a, b in ranges]
        where = Message.join(", ", spans[:3])
        return where if len(spans) <= 3 else Message("{spans} and {n} more times", spans=where, n=len(spans) - 3)


def frames(count: int) -> Message:
    """So many frames, in words."""
    return Message("1 frame") if count == 1 else Message("{n} frames", n=count)


def seconds_span(first: int, stop: int, fps: float) -> Message:
    """A run of frames as seconds."""
    return Message("{start:.2f} to {end:.2f} s", start=first / fps, end=stop / fps)
