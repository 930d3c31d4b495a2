"""The records that pass between the pipeline and whoever calls it: options in, progress during, a report after."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .errors import InputError

ENGINES = ("auto", "torch", "openvino")
LONGER = ("pingpong", "loop", "hold", "cut", "stretch")
SHORTER = ("cut", "keep")
SMOOTHING = ("steady", "published")
MOST_NUDGE = 1000  # frames either way; sound that is so far off belongs to another part of the video
MOST_TRACKS = 99  # of sound in one file
_NUMBER = r"\d{1,9}(?:\.\d{0,9})?"
FACE = re.compile(
    rf"largest|all|(?P<numbers>\d{{1,9}}(?:,\d{{1,9}})*)|(?P<x>{_NUMBER}),(?P<y>{_NUMBER})@(?P<second>{_NUMBER})"
)


@dataclass(frozen=True)
class Options:
    """How to sync. Every value has a default that suits a talking head."""

    model: str = "wav2lip-gan-lab"  # a name from `python -m lipsync models`
    engine: str = "auto"  # auto: the fastest that agrees with float32 within 40 dB; torch; openvino; or a full name
    detector: str = "mediapipe"  # or s3fd, where its file was fetched
    # largest (of each shot), all, "X,Y@SECOND" in pixels, or track numbers "0,2", which a preview shows: they count
    # from 0 in order of appearance, and a person has a new one after each cut
    face: str = "largest"
    longer: str = (
        "pingpong"  # voice longer than the video: pingpong, loop, hold, cut (the voice) or stretch (the video)
    )
    shorter: str = "cut"  # voice shorter than the video: cut the video, or keep it to its end
    smoothing: str = "steady"  # of the face box over time; or published, the paper's code's
    pad: float = 0.0  # face box enlarged by this share on each side, -0.2..0.5
    softness: float = 0.04  # feather of the mask, share of the box height, 0..0.2
    detail: bool = True  # skin, lip line and teeth from the speaker's own frames; off: what the network makes alone
    quality: int = 18  # x264 constant rate factor, 1 (best) .. 51; 0 is a profile that few players know
    start: float = 0.0  # seconds: where the part to sync begins
    end: float | None = None  # seconds: where it ends; None: the end
    nudge: int = 0  # frames by which the new sound is delayed in the result (negative: earlier), -1000..1000
    track: int | None = None  # of the voice's file, its sound track from 1 on; None: the usual one, if not silent
    background: float = 0.0  # level of the clip's own sound under the voice, 0..1
    visible_label: bool = True  # the stamp; the signature is always made
    watermark: bool = True  # the invisible mark in the picture

    def __post_init__(self) -> None:
        def need(ok: bool, sentence: str) -> None:
            if not ok:
                raise InputError(sentence)

        kind = self.engine.partition(" ")[0]
        need(kind in ENGINES, f"There is no engine {self.engine!r}: choose one of {', '.join(ENGINES)}.")
        need(
            FACE.fullmatch(self.face) is not None,
            f"A face is chosen by largest, all, numbers like 0,2, or a point like 320,180@1.5; not by {self.face!r}.",
        )
        need(
            self.longer in LONGER,
            f"A longer voice can be met by {', '.join(LONGER)}, not by {self.longer!r}.",
        )
        need(
            self.shorter in SHORTER,
            f"A shorter voice can be met by {', '.join(SHORTER)}, not by {self.shorter!r}.",
        )
        need(self.smoothing in SMOOTHING, f"Boxes are smoothed {' or '.join(SMOOTHING)}, not {self.smoothing!r}.")
        need(-0.2 <= self.pad <= 0.5, f"The face padding must lie between -0.2 and 0.5, not {self.pad}.")
        need(0 <= self.softness <= 0.2, f"The mask softness must lie between 0 and 0.2, not {self.softness}.")
        need(1 <= self.quality <= 51, f"The quality (x264 crf) must lie between 1 and 51, not {self.quality}.")
        need(
            0 <= self.start < math.inf,
            f"The part to sync starts at a second of the video, 0 or later, not at {self.start}.",
        )
        need(
            self.end is None or math.isfinite(self.end),
            f"The part to sync ends at a second of the video, not at {self.end} (none means its end).",
        )
        need(
            self.end is None or self.end > self.start,
            f"The part to sync ends at {self.end} s, before it starts at {self.start} s.",
        )
        need(
            abs(self.nudge) <= MOST_NUDGE,
            f"The sound can be nudged by {MOST_NUDGE} frames at most, either way, not by {self.nudge}.",
        )
        need(
            self.track is None or 1 <= self.track <= MOST_TRACKS,
            f"The sound track of the voice is a number from 1 to {MOST_TRACKS}, not {self.track}.",
        )
        need(
            0 <= self.background <= 1,
            f"The background level must lie between 0 and 1, not {self.background}.",
        )


@dataclass(frozen=True)
class Progress:
    """One step of progress: which stage, how many frames of it are done, of how many; seconds left by our guess."""

    stage: str
    done: int
    total: int
    seconds_left: float | None = None


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
