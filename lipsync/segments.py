"""Segments: parts of a video, each with a voice, a face and options of its own; the rest stays as it is.

    [{"voice": "anna.wav", "start": 0, "end": 2.5, "face": "0"},
     {"voice": "ben.wav", "start": 3.1, "face": "1", "background": 0.2}]

`start` and `end` are seconds of the video. A voice that is longer than its segment is cut; after a shorter one the
video goes on as it was. Segments may overlap where they move different faces.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from .errors import InputError, LipsyncError
from .faces.tracking import Track
from .media.timeline import Timeline
from .messages import Message
from .options import Options, current_options

MOST = 100  # segments of one video
LARGEST_BYTES = 1 << 20  # of a list of segments
# What a segment may set; all else is the same in the whole result.
OWN = (
    "face",
    "start",
    "end",
    "audio_delay_frames",
    "track",
    "background",
    "pad",
    "feather",
    "detail",
    "mouth_opening",
    "occlusion",
)

KINDS = {
    "float": Message("a number"),
    "int": Message("a whole number"),
    "str": Message("a text"),
    "bool": Message("true or false"),
}


@dataclass(frozen=True)
class Segment:
    """A voice, or one for each of some faces ({track number: file}), and the options of its part."""

    voices: Mapping[int | None, Path]
    options: Options


def segment(voice: str | os.PathLike, common: Options | None = None, /, **own: Any) -> Segment:
    """A segment of a video: segment("anna.wav", start=0, end=2.5, face="0").

    common  options of the whole result
    own     those of this part, by the names in OWN
    Raises InputError for another name or a value out of its bounds.
    """
    own = current_options(own)
    if unknown := sorted(set(own) - set(OWN)):
        raise InputError(
            "A segment has no option {name!r}: {choices}.", name=unknown[0], choices=", ".join(("voice", *OWN))
        )
    kinds = {f.name: str(f.type) for f in fields(Options)}
    for name, value in own.items():
        if not _fits(value, kinds[name]):
            raise InputError(
                "{name} of a segment takes {kind}, not {value!r}.",
                name=name,
                kind=KINDS[kinds[name].partition(" ")[0]],
                value=value,
            )
    whole = replace(common or Options(), start=0.0, end=None, if_audio_longer="cut", if_audio_shorter="keep")
    return Segment({None: Path(voice)}, replace(whole, **own))


def read_segments(path: Path, common: Options) -> list[Segment]:
    """The segments of a JSON file; their voices are named relative to it.

    Raises InputError, which says which segment is wrong.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES + 1)
        rows = json.loads(text) if len(text) <= LARGEST_BYTES else None
    except OSError as error:
        raise InputError("{file} cannot be read: {error}.", file=path.name, error=error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise InputError("{file} is no JSON: {error}.", file=path.name, error=error) from error
    if not isinstance(rows, list) or not 0 < len(rows) <= MOST:
        raise InputError(
            '{file} is no list of 1 to {most} segments, like [{{"voice": "anna.wav", "start": 0, "end": 2.5}}].',
            file=path.name,
            most=MOST,
        )
    return [_row(path, number, row, common) for number, row in enumerate(rows, 1)]


def _row(path: Path, number: int, row: Any, common: Options) -> Segment:
    try:
        if not isinstance(row, dict) or not isinstance(row.get("voice"), str) or not row["voice"]:
            raise InputError("it names no voice.")
        own = {name: value for name, value in row.items() if name != "voice"}
        return segment(path.parent / row["voice"], common, **own)
    except LipsyncError as error:
        raise InputError(
            "Segment {number} of {file}: {why}", number=number, file=path.name, why=error.message
        ) from error


def _fits(value: Any, kind: str) -> bool:
    """May an option of that annotation be this JSON value?"""
    if value is None:
        return "None" in kind
    if isinstance(value, bool) or kind.startswith("bool"):
        return isinstance(value, bool) and kind.startswith("bool")
    if kind.startswith("float"):
        return isinstance(value, int | float) and value == value
    return isinstance(value, int if kind.startswith("int") else str)


def refuse_overlaps(parts: Sequence[tuple[Timeline, Sequence[Track]]], fps: float) -> None:
    """Raises InputError where two segments move one face at the same time."""
    for k, (later, tracks) in enumerate(parts):
        mine = {t.number for t in tracks}
        for earlier, others in parts[:k]:
            first, stop = max(later.first, earlier.first), min(later.stop, earlier.stop)
            shown = later.indices[first:stop]
            if len(shown) and mine & {t.number for t in others if t.start <= shown.max() and shown.min() < t.stop}:
                raise InputError(
                    "Two segments move one face at the same time, from {start:.2f} to {end:.2f} s: give one of them "
                    "another face or another time.",
                    start=first / fps,
                    end=stop / fps,
                )
