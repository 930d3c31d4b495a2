"""Which frame of the video is shown when, and what is heard: the meeting of a video with a voice of another length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..messages import Message
from ..options import Options
from .reader import SoundReader

SOUND_RATE = 48_000
LONGEST_PICTURE_S = 4 * 3600
FADE = SOUND_RATE // 100  # 10 ms


@dataclass(frozen=True)
class Timeline:
    """The plan of a result.

    indices      (N,) int64, the source frame that each frame of the result shows
    first, stop  frames of the result that have the voice: first .. stop - 1
    """

    indices: np.ndarray
    first: int
    stop: int

    def segments(self) -> list[tuple[int, int]]:
        """The runs in which the source must be read, repeats left out: (0, 10) forward, (10, 0) backward."""
        if not len(self.indices):
            return []
        once = self.indices[np.concatenate([[True], np.diff(self.indices) != 0])]
        steps = np.diff(once)
        found, at = [], 0
        while at < len(once):
            step = int(np.clip(steps[at], -1, 1)) if at < len(steps) and abs(steps[at]) == 1 else 1
            end = at
            while end < len(steps) and steps[end] == step:
                end += 1
            a, b = int(once[at]), int(once[end])
            found.append((a, b + 1) if step > 0 else (a + 1, b))
            at = end + 1
        return found


def plan(source_frames: int, fps: Fraction, voice_seconds: float, options: Options) -> Timeline:
    """Lay a voice of `voice_seconds` over `source_frames` frames, as if_audio_longer, if_audio_shorter, start, end say.

    Without a part (start, end) the result is as long as the longer of the two, but for "cut".
    With a part the rest of the video stays around it; an `end` also ends the voice. Raises InputError where the part is
    no part.
    """
    a = round(options.start * fps)
    b = source_frames if options.end is None else min(round(options.end * fps), source_frames)
    if a >= source_frames or b <= a:
        raise InputError(
            "The part to sync, from {start:g} s, lies outside the video, which is {seconds:.2f} s long.",
            start=options.start,
            seconds=float(source_frames / fps),
        )
    part = b - a
    spoken = max(math.ceil(round(voice_seconds * fps, 3)), 1)
    if spoken > part and options.end is None and options.if_audio_longer != "cut":
        middle = a + _longer(part, spoken, options.if_audio_longer)
    else:
        middle = np.arange(a, b)
    stop = a + min(spoken, len(middle))
    whole = options.start == 0 and options.end is None
    if whole and spoken < part and options.if_audio_shorter == "cut":
        middle = middle[:spoken]
    indices = np.concatenate([np.arange(a), middle, np.arange(b, source_frames)])
    return Timeline(indices.astype(np.int64), a, stop)


def plan_picture(fps: Fraction, spans: Sequence[tuple[float, float]]) -> list[Timeline]:
    """Timelines of a picture that some voices share, each from one second to another; it stands until the last ends.

    Raises InputError where that is later than LONGEST_PICTURE_S.
    """
    if (last := max(stop for _, stop in spans)) > LONGEST_PICTURE_S:
        raise InputError(
            "The last voice ends at {seconds:.0f} s; a picture can be shown for {most} s.",
            seconds=last,
            most=LONGEST_PICTURE_S,
        )
    edges = []
    for start, stop in spans:
        first = round(start * fps)
        edges.append((first, max(math.ceil(round(stop * fps, 3)), first + 1)))
    frames = np.zeros(max(stop for _, stop in edges), np.int64)
    return [Timeline(frames, first, stop) for first, stop in edges]


MEETINGS = {
    "pingpong": Message("the video plays back and forth"),
    "loop": Message("the video is repeated"),
    "hold": Message("the last frame is held"),
    "cut": Message("the voice is cut"),
    "stretch": Message("the video is slowed down"),
    "cut_video": Message("the video is cut"),
    "keep": Message("the rest of the video stays as it is"),
}


def meeting(voice_s: float, video_s: float, options: Options) -> str:
    """What `plan` does where a voice and a video differ in length: a key of MEETINGS, "" where they do not.

    Differences of under a tenth of a second are not worth a word.
    """
    stop = video_s if options.end is None else min(options.end, video_s)
    over = voice_s - max(stop - options.start, 0)
    if abs(over) < 0.1:
        return ""
    if over > 0:
        return options.if_audio_longer if options.end is None else "cut"
    whole = options.start == 0 and options.end is None
    return "cut_video" if whole and options.if_audio_shorter == "cut" else "keep"


def _longer(have: int, need: int, how: str) -> np.ndarray:
    at = np.arange(need)
    if how == "pingpong" and have > 1:
        at = at % (2 * have - 2)
        return np.where(at < have, at, 2 * have - 2 - at)
    if how == "loop":
        return at % have
    if how == "stretch":
        return at * have // need
    return np.minimum(at, have - 1)


class AudioCursor:
    """Reads a file's sound in pieces of any length, silence after its end."""

    def __init__(self, path: Path, skip: int = 0, track: int | None = None) -> None:
        self._reader = SoundReader(path, SOUND_RATE, 2, track)
        self._held = np.zeros((0, 2), np.float32)
        for at in range(0, skip, SOUND_RATE):  # in pieces: what is skipped may be long
            self.read(min(SOUND_RATE, skip - at))

    def read(self, count: int) -> np.ndarray:
        pieces, have = [self._held], len(self._held)
        while have < count:
            piece = next(self._reader, None)
            if piece is None:
                pieces.append(np.zeros((count - have, 2), np.float32))
                break
            pieces.append(piece)
            have += len(piece)
        joined = np.concatenate(pieces)
        self._held = joined[count:].copy()
        return joined[:count]

    def close(self) -> None:
        self._reader.close()


class _Own:
    """The video's own sound, which begins again with the video when the result goes on for longer.

    stop   samples after which it begins again, at sample `again`
    """

    def __init__(self, path: Path, again: int, stop: int) -> None:
        self._path, self._again, self._left = path, again, stop
        self._turn = stop - again
        self._cursor = AudioCursor(path)

    def read(self, count: int) -> np.ndarray:
        pieces = []
        while count:
            if not self._left and self._turn < SOUND_RATE:  # under a second it would stutter, with a reader each time
                pieces.append(np.zeros((count, 2), np.float32))
                break
            if not self._left:
                self._cursor.close()
                self._cursor, self._left = AudioCursor(self._path, self._again), self._turn
            pieces.append(self._cursor.read(min(count, self._left)))
            count -= len(pieces[-1])
            self._left -= len(pieces[-1])
        return np.concatenate(pieces)

    def close(self) -> None:
        self._cursor.close()


@dataclass(frozen=True)
class Spoken:
    """Where some voices are heard in a result, all at once, and how.

    timeline  frames first .. stop - 1 have them
    options   audio_delay_frames, track and background of these frames
    """

    timeline: Timeline
    voices: Sequence[Path]
    options: Options


class _Voices:
    """The voices of one `Spoken`, opened when they begin and closed when they end.

    begin, end  of its part, samples of the result
    """

    def __init__(self, spoken: Spoken, fps: Fraction, whole: bool) -> None:
        self._spoken, self._whole = spoken, whole
        delay = _samples(spoken.options.audio_delay_frames, fps)
        self.begin, self.end = (_samples(k, fps) for k in (spoken.timeline.first, spoken.timeline.stop))
        self._starts, self._skip = self.begin + max(delay, 0), max(-delay, 0)
        self._cursors: list[AudioCursor] | None = None

    def inside(self, t: np.ndarray) -> np.ndarray:
        """(S,) 0..1 of samples t: how far they lie in the part, soft at its edges, so that none clicks."""
        if self._whole:
            return np.ones(len(t))
        return np.clip(np.minimum(t - self.begin, self.end - t) / FADE + 0.5, 0, 1)

    def read(self, t: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """(S, 2) float32, what is heard at samples t, which follow those of the last call."""
        piece = np.zeros((len(t), 2), np.float32)
        lead = min(max(self._starts - int(t[0]), 0), len(t))
        if lead == len(t) or t[0] > self.end + FADE:
            self.close()
            return piece
        if self._cursors is None:
            track = self._spoken.options.track
            self._cursors = [AudioCursor(path, self._skip, track) for path in self._spoken.voices]
        for cursor in self._cursors:
            piece[lead:] += cursor.read(len(t) - lead) * inside[lead:, None].astype(np.float32)
        return piece

    def close(self) -> None:
        for cursor in self._cursors or []:
            cursor.close()


def sound(spoken: Sequence[Spoken], fps: Fraction, own: Path | None) -> Iterator[np.ndarray]:
    """The sound of the result in pieces of a second: (S, 2) float32, 48 kHz, exactly as long as its frames.

    spoken  whose timelines show the same frames
    The voices speak in their parts, delayed by `audio_delay_frames`; the video's own sound (None: it has none) is heard
    outside them, and inside at the level `background`. Where the video goes there and back, is held or is repeated, its
    sound begins again.
    """
    frames = spoken[0].timeline.indices
    total = _samples(len(frames), fps)
    first_part = spoken[0].timeline
    whole = len(spoken) == 1 and first_part.first == 0 and first_part.stop == len(frames)
    over = [_Voices(one, fps, whole) for one in spoken]
    turn = _samples(int(frames.max()) + 1, fps)
    under = None
    if own is not None and (not whole or spoken[0].options.background):
        under = _Own(own, min(v.begin for v in over), turn)
    try:
        for first in range(0, total, SOUND_RATE):
            t = np.arange(first, min(first + SOUND_RATE, total))
            piece, level = np.zeros((len(t), 2), np.float32), np.ones(len(t))
            for one, voices in zip(spoken, over, strict=True):
                inside = voices.inside(t)
                level *= 1 - inside * (1 - one.options.background)
                piece += voices.read(t, inside)
            if under is not None:
                piece += under.read(len(t)) * level.astype(np.float32)[:, None]
            yield np.clip(piece, -1, 1)
    finally:
        for source in [*over, *([under] if under is not None else [])]:
            source.close()


def _samples(frames: int, fps: Fraction) -> int:
    return round(frames * SOUND_RATE / fps)
