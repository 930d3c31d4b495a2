"""Options of a sync: one table from which Python, command line, API and page take names, bounds and help."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from .errors import InputError
from .messages import Message
from .renamed import current_names

ENGINES = ("auto", "torch", "openvino")
IF_AUDIO_LONGER = ("pingpong", "loop", "hold", "cut", "stretch")
IF_AUDIO_SHORTER = ("cut", "keep")
SMOOTHING = ("steady", "published")
MOST_DELAY = 1000  # frames either way; sound that is so far off belongs to another part of the video
MOST_TRACKS = 99  # of sound in one file
LATEST_S = 1e9  # seconds: no video is longer
# Names of before 2026-12, still read: as keywords, flags, in stored jobs and by the API.
OLD_NAMES = {
    "nudge": "audio_delay_frames",
    "softness": "feather",
    "quality": "crf",
    "longer": "if_audio_longer",
    "shorter": "if_audio_shorter",
}
_NUMBER = r"\d{1,9}(?:\.\d{0,9})?"
FACE = re.compile(
    rf"largest|all|(?P<numbers>\d{{1,9}}(?:,\d{{1,9}})*)|(?P<x>{_NUMBER}),(?P<y>{_NUMBER})@(?P<second>{_NUMBER})"
)


def option(
    default: Any,
    help: str,
    group: str,
    *,
    choices: tuple[str, ...] = (),
    bounds: tuple[float, float] | None = None,
    refuse: str = "",
    flag: str = "",
) -> Any:
    """One row of the table.

    choices  what it may be; bounds: lowest and highest value, both allowed
    refuse   the sentence for another value, with {value}, {choices}, {low} and {high}
    flag     the command line's switch that turns a yes into a no
    """
    facts = {"help": help, "group": group, "choices": choices, "bounds": bounds, "refuse": refuse, "flag": flag}
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Options:
    """How to sync. Every value has a default that suits a talking head."""

    model: str = option("wav2lip-warp-lab", "a name from `models`", "model")
    # auto: the fastest that agrees with float32 within 40 dB; or a full name of engines.candidates()
    engine: str = option("auto", ", ".join(ENGINES), "model")
    # Numbers are those of a preview: from 0 in order of appearance; after a cut a person has a new one.
    face: str = option("largest", "largest (of each shot), all, X,Y@SECOND in pixels, or numbers 0,2", "faces")
    detector: str = option(
        "mediapipe",
        "of faces; s3fd where its file was fetched",
        "faces",
        choices=("mediapipe", "s3fd"),
        refuse="There is no face detector named {value!r}: choose one of {choices}.",
    )
    smoothing: str = option(
        "steady",
        "of the face box; published: as the paper's code",
        "faces",
        choices=SMOOTHING,
        refuse="Boxes are smoothed {choices}, not {value!r}.",
    )
    pad: float = option(
        0.0,
        "enlarge the face box, share a side",
        "faces",
        bounds=(-0.2, 0.5),
        refuse="The face padding must lie between {low:g} and {high:g}, not {value}.",
    )
    feather: float = option(
        0.04,
        "soft edge of the mask, share of the box height",
        "faces",
        bounds=(0.0, 0.2),
        refuse="The mask's feather must lie between {low:g} and {high:g}, not {value}.",
    )
    detail: bool = option(
        True, "no detail from the speaker's own frames: what the network makes alone", "faces", flag="--no-detail"
    )
    occlusion: bool = option(
        True, "no look for what lies before a face: hands, microphones, captions", "faces", flag="--no-occlusion"
    )
    mouth_opening: float | None = option(
        None,
        "how far mouths open, times what the network makes; none: fitted where a model opens them too little",
        "faces",
        bounds=(0.5, 2.0),
        refuse="The opening of the mouth must lie between {low:g} and {high:g} times the network's, not {value}.",
    )
    if_audio_longer: str = option(
        "pingpong",
        "voice longer than the video; cut shortens the voice, stretch slows the video",
        "time and sound",
        choices=IF_AUDIO_LONGER,
        refuse="A longer voice can be met by {choices}, not by {value!r}.",
    )
    if_audio_shorter: str = option(
        "keep",
        "voice shorter than the video: cut the video, or keep it to its end",
        "time and sound",
        choices=IF_AUDIO_SHORTER,
        refuse="A shorter voice can be met by {choices}, not by {value!r}.",
    )
    start: float = option(
        0.0,
        "seconds: start of the part to sync",
        "time and sound",
        bounds=(0.0, LATEST_S),
        refuse="The part to sync starts at a second of the video, 0 or later, not at {value}.",
    )
    end: float | None = option(
        None,
        "seconds: end of the part to sync (the video's)",
        "time and sound",
        bounds=(-LATEST_S, LATEST_S),
        refuse="The part to sync ends at a second of the video, not at {value} (none means its end).",
    )
    audio_delay_frames: int = option(
        0,
        "delay the new sound by frames",
        "time and sound",
        bounds=(-MOST_DELAY, MOST_DELAY),
        refuse="The sound can be delayed by {high:g} frames at most, either way, not by {value}.",
    )
    track: int | None = option(
        None,
        "sound track of the voice's file, from 1 (its usual one, if not silent)",
        "time and sound",
        bounds=(1, MOST_TRACKS),
        refuse="The sound track of the voice is a number from {low:g} to {high:g}, not {value}.",
    )
    background: float = option(
        0.0,
        "level of the clip's own sound under the voice",
        "time and sound",
        bounds=(0, 1),
        refuse="The background level must lie between {low:g} and {high:g}, not {value}.",
    )
    # 0 would be a profile that few players know
    crf: int = option(
        18,
        "x264 constant rate factor, 1 is best",
        "result",
        bounds=(1, 51),
        refuse="The rate factor (crf) must lie between {low:g} and {high:g}, not {value}.",
    )
    visible_label: bool = option(True, "no visible stamp (the signature stays)", "result", flag="--no-stamp")
    watermark: bool = option(True, "no invisible mark (the signature stays)", "result", flag="--no-watermark")

    def __post_init__(self) -> None:
        for row in fields(self):
            _check(row, getattr(self, row.name))
        kind = self.engine.partition(" ")[0]
        if kind not in ENGINES:
            raise InputError(
                "There is no engine {engine!r}: choose one of {choices}.",
                engine=self.engine,
                choices=", ".join(ENGINES),
            )
        if FACE.fullmatch(self.face) is None:
            raise InputError(
                "A face is chosen by largest, all, numbers like 0,2, or a point like 320,180@1.5; not by {face!r}.",
                face=self.face,
            )
        if self.end is not None and self.end <= self.start:
            raise InputError(
                "The part to sync ends at {end} s, before it starts at {start} s.", end=self.end, start=self.start
            )


def current_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of options by the names of today; an old name is read with a warning."""
    return current_names(given, OLD_NAMES, "option")


def _with_old_names(made: Any) -> Any:
    @functools.wraps(made)
    def init(self: Options, *values: Any, **named: Any) -> None:
        made(self, *values, **current_options(named))

    return init


Options.__init__ = _with_old_names(Options.__init__)


def _check(row: Field, value: Any) -> None:
    """Raise InputError where a value is none of the row's choices, or out of its bounds."""
    facts = row.metadata
    if value is None and row.default is None:
        return
    bounds = facts["bounds"]
    if facts["choices"] and value not in facts["choices"] or bounds and not bounds[0] <= value <= bounds[1]:
        low, high = bounds or (None, None)
        choices = facts["choices"]
        two = Message("{first} or {second}", first=choices[0], second=choices[1]) if len(choices) == 2 else None
        raise InputError(facts["refuse"], value=value, choices=two or ", ".join(choices), low=low, high=high)


def bounds(name: str) -> tuple[float, float]:
    """The lowest and highest value of an option, for a slider."""
    return next(row.metadata["bounds"] for row in fields(Options) if row.name == name)
