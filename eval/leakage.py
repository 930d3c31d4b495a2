"""Leakage: does a re-voiced mouth still follow the voice it had before?

A system that looks at the frame's own mouth, or at a reference too near in time, copies it. So a clip is re-voiced with
silence, and with foreign speech, and its new picture is scored against its own old sound: nothing should be found.
"""

from __future__ import annotations

import tempfile
import wave
from pathlib import Path

import lipsync
from lipsync.media import probe

from .catalogue import Measure, MeasureError
from .judge import Judge
from .protocols import Protocol
from .score import score_file

_SOURCE = "ours: docs/metrics.md"
MEASURES = (
    Measure("own_lse_c", "LSE-C ({judge}), untouched", "", 0, float("inf"), "", _SOURCE),
    Measure("leak_silence", "LSE-C ({judge}) with the old voice, re-voiced with silence", "", 0, float("inf"), "lower",
            _SOURCE),
    Measure("leak_foreign", "LSE-C ({judge}) with the old voice, re-voiced with foreign speech", "", 0, float("inf"),
            "lower", _SOURCE),
    Measure("leaks", "old offset found again", "", 0, 1, "lower", _SOURCE),
)  # fmt: skip


def validate(video: Path, foreign: Path | None) -> None:
    """Raise InputError where a file cannot be read, MeasureError where the video has no sound of its own."""
    info = probe(video)
    if not info.has_video or not info.has_audio:
        raise MeasureError(f"{video.name} has no {'sound' if info.has_video else 'picture'} of its own to leak.")
    if foreign is not None and not probe(foreign).has_audio:
        raise MeasureError(f"{foreign.name} holds no sound: a foreign voice is needed.")


def evaluate(video: Path, judge: Judge, protocol: Protocol, foreign: Path | None = None, model: str = "",
             engine: str = "auto") -> dict[str, float | None]:  # fmt: skip
    """Re-voice a clip with a model of ours and score the new mouth against the old sound.

    foreign  another voice; None: silence alone is tried, and leak_foreign is None
    returns  every name of MEASURES; `leaks` is 1 where, with any of these voices, the judge is sure of the offset it
             found in the untouched clip, within a frame; None where it is not sure of that one
    Raises what lipsync.sync raises, and MeasureError where the untouched clip cannot be scored.
    """
    validate(video, foreign)
    own = score_file(video, judge, protocol)
    if own.error:
        raise MeasureError(own.error)
    values: dict[str, float | None] = {
        "own_lse_c": own.lse_c,
        "leak_silence": None,
        "leak_foreign": None,
        "leaks": None,
    }
    found = []
    with tempfile.TemporaryDirectory(prefix="lipsync-leak-") as folder:
        voices = {"leak_silence": silence(Path(folder, "silence.wav"), probe(video).duration_s)}
        if foreign is not None:
            voices["leak_foreign"] = foreign
        for name, voice in voices.items():
            out = Path(folder, f"{name}.mp4")
            options = lipsync.Options(engine=engine, shorter="keep", **({"model": model} if model else {}))
            lipsync.sync(video, voice, out, options)
            row = score_file(out, judge, protocol, sound=video)
            if row.error:
                raise MeasureError(row.error)
            values[name] = row.lse_c
            found.append(row.offset is not None and own.offset is not None and abs(row.offset - own.offset) <= 1)
    if own.offset is not None:
        values["leaks"] = float(any(found))
    return values


def silence(path: Path, seconds: float) -> Path:
    """Write a silent WAV file of some seconds."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * round(16_000 * seconds)))
    return path
