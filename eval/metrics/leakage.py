"""Leakage: does a re-voiced mouth still follow the voice it had before?

A system that looks at the frame's own mouth, or at a reference too near in time, copies it. So a clip is re-voiced with
silence, and with foreign speech, and its new picture is scored against its own old sound: nothing should be found.

`evaluate` works on the scores of such clips, `measured` makes and scores them.
"""

from __future__ import annotations

import tempfile
import wave
from pathlib import Path

import numpy as np

import lipsync
from lipsync.audio import SAMPLE_RATE
from lipsync.media.reader import probe, read_waveform

from ..protocols import Protocol
from ..score import clip_sync
from ..syncnet import Evaluator
from .base import Measure, MeasureError
from .sync import SyncScore

_SOURCE = "ours: docs/metrics.md"
MEASURES = (
    Measure("own_lse_c", "LSE-C ({evaluator}), untouched", "", 0, float("inf"), "", _SOURCE),
    Measure(
        "leak_silence",
        "LSE-C ({evaluator}) with the old voice, re-voiced with silence",
        "",
        0,
        float("inf"),
        "lower",
        _SOURCE,
    ),
    Measure(
        "leak_foreign",
        "LSE-C ({evaluator}) with the old voice, re-voiced with foreign speech",
        "",
        0,
        float("inf"),
        "lower",
        _SOURCE,
    ),
    Measure("leaks", "old offset found again", "", 0, 1, "lower", _SOURCE),
)


def validate(own: SyncScore, silence: SyncScore, foreign: SyncScore | None = None) -> None:
    """Raise MeasureError where these were not scored alike: at another number of shifts."""
    lengths = {len(score.curve) for score in (own, silence, foreign) if score is not None}
    if len(lengths) > 1:
        raise MeasureError(f"Scores at {sorted(n // 2 for n in lengths)} shifts to each side cannot be compared.")


def found_again(own: SyncScore, again: SyncScore) -> bool:
    """Is the evaluator sure, in the re-voiced clip, of the offset it found in the untouched one, within a frame?"""
    return own.sure and again.sure and abs(again.offset - own.offset) <= 1


def evaluate(own: SyncScore, silence: SyncScore, foreign: SyncScore | None = None) -> dict[str, float | None]:
    """Every name of MEASURES, from the scores against a clip's own sound: untouched, re-voiced with each voice.

    `leaks` is 1 where the old offset is found again with any of these voices, and None where the evaluator is not sure
    of it in the untouched clip; `leak_foreign` is None where no foreign voice was tried. Raises MeasureError.
    """
    validate(own, silence, foreign)
    voices = [score for score in (silence, foreign) if score is not None]
    return {
        "own_lse_c": own.lse_c,
        "leak_silence": silence.lse_c,
        "leak_foreign": None if foreign is None else foreign.lse_c,
        "leaks": float(any(found_again(own, score) for score in voices)) if own.sure else None,
    }


def measured(
    video: Path,
    evaluator: Evaluator,
    protocol: Protocol,
    foreign: Path | None = None,
    model: str = "",
    engine: str = "auto",
) -> dict[str, float | None]:
    """Re-voice a clip with a model of ours and evaluate the new mouth, of its deciding track, against the old sound.

    foreign  another voice; None: silence alone is tried
    Raises what lipsync.sync raises, and MeasureError where a clip cannot be scored.
    """
    info = probe(video)
    if not info.has_video or not info.has_audio:
        raise MeasureError(f"{video.name} has no {'sound' if info.has_video else 'picture'} of its own to leak.")
    if foreign is not None and not probe(foreign).has_audio:
        raise MeasureError(f"{foreign.name} holds no sound: a foreign voice is needed.")
    scores = [clip_sync(video, evaluator, protocol, evaluator.detector).scores[0]]
    with tempfile.TemporaryDirectory(prefix="lipsync-leak-") as folder:
        silence = np.zeros(round(SAMPLE_RATE * info.duration_s), np.float32)
        voices = {"silence": voice_file(Path(folder, "silence.wav"), silence)}
        if foreign is not None:
            heard = np.resize(read_waveform(foreign), round(SAMPLE_RATE * info.duration_s))  # said again to the end
            voices["foreign"] = voice_file(Path(folder, "foreign.wav"), heard)
        for name, voice in voices.items():
            out = Path(folder, f"{name}.mp4")
            # every face: the evaluator's may be another than the largest
            options = lipsync.Options(
                engine=engine, face="all", if_audio_shorter="keep", **({"model": model} if model else {})
            )
            lipsync.sync(video, voice, out, options)
            scores.append(clip_sync(out, evaluator, protocol, evaluator.detector, sound=video).scores[0])
    return evaluate(*scores)


def voice_file(path: Path, waveform: np.ndarray) -> Path:
    """Write (S,) float32, -1..1, 16 kHz, as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((waveform.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return path
