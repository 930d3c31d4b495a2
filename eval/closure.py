"""The lip gaps of a video's main face at the moments of p, b and m: the loader of metrics/closure.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lipsync.faces.selection import main_track
from lipsync.media.reader import FrameReader, probe
from lipsync.progress import Monitor

from .clips import face_map
from .landmarks import lips_of
from .metrics.base import MeasureError
from .metrics.closure import moments, shut
from .metrics.motion import opening


def spoken_at(path: Path) -> np.ndarray:
    """The moments (N,) of p, b and m, seconds, from a file of phoneme times as `lipsync.tts` writes it.

    Raises MeasureError where it is none.
    """
    try:
        return moments([(str(s), float(a), float(b)) for s, a, b in json.loads(path.read_text("utf-8"))["phonemes"]])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MeasureError(
            '{file} holds no phoneme times: JSON with "phonemes": [[symbol, start, end], …], seconds.', file=path.name
        ) from error


def closures(video: Path, at_s: np.ndarray) -> np.ndarray:
    """`metrics.closure.shut` of a video's main face at some moments, seconds. Raises InputError or MeasureError."""
    info = probe(video)
    faces = face_map(info, "mediapipe", Monitor())
    if not faces.tracks:
        raise MeasureError("No face was found in {file}.", file=video.name)
    track = main_track(faces.tracks)
    with FrameReader(info) as reader:
        seen = lips_of(reader, faces, track.number)
    gap = np.full(max(info.frames, seen.start + len(seen.lips)), np.nan)
    gap[seen.start : seen.start + len(seen.lips)] = opening(seen.lips, seen.boxes)
    return shut(gap, info.fps, at_s)
