"""Video and voice in, H.264 and AAC out, through PyAV.

What visitors give is never opened in this process: `probe`, `FrameReader`, `SoundReader`, `read_sound` and
`read_waveform` start a child that runs decoder.py (sandbox.py), read its pipe, and turn its crash, its silence or its
complaint into one InputError sentence. Frames are counted at one constant rate, whatever the container's clock does;
sound starts at the moment of the first frame. Only writer.py, which gets our own frames, works in place.
Set LIPSYNC_DEBUG to see what the child prints.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from .. import sandbox
from ..errors import InputError, LipsyncError
from ..messages import Message, from_json
from .writer import SOUND_RATE, VideoWriter

__all__ = [
    "Frame",
    "FrameReader",
    "SoundReader",
    "VideoInfo",
    "VideoWriter",
    "ahead",
    "probe",
    "read_sound",
    "read_waveform",
]

Frame = np.ndarray  # (H, W, 3) uint8 RGB

MEMORY_BYTES = 4 << 30  # address space of a decoder; an 8K 10-bit film needs about half of it
PROBE_CPU_S, PROBE_S = 30, 120.0  # a probe that takes more processor time, or wall time, is given up
STALL_CPU_S, STALL_S = 45, 180.0  # a decoder that gives nothing for so long is given up
SOUND_CPU_S = 1800  # four hours of sound in a large video
MOST_SAID = 2000  # letters of a sentence of the child, which a file may have taken over
AHEAD_BYTES = 64 << 20  # frames read before they are asked for


@dataclass(frozen=True)
class VideoInfo:
    """What a file is, as it will be read."""

    path: Path
    width: int  # as shown: after rotation and, where pixels are not square, sample aspect ratio
    height: int
    fps: Fraction  # the constant rate at which frames are given (the average where it varies)
    varies: bool  # the file's own rate varies: frames are picked by timestamp
    frames: int  # how many frames at `fps` the container promises
    duration_s: float
    start_s: float  # presentation time of the first frame, in the container's clock
    has_video: bool
    has_audio: bool
    is_still: bool
    codec: str
    rotation: int  # degrees clockwise by which the stored pictures are turned
    hdr: bool
    alpha: bool
    notes: tuple[str, ...] = ()  # sentences worth a place in a report
    timed: bool = True  # False: timestamps are missing or broken, so frames are counted


def probe(path: str | Path) -> VideoInfo:
    """Say what a file is, in a child process, in bounded time and memory.

    path     any video, picture or sound file
    returns  VideoInfo; `has_video` is False for a sound file
    raises   InputError when it is not there, not readable, or none of these
    """
    with _Child(path, "probe", sandbox.Limits(MEMORY_BYTES, PROBE_CPU_S, PROBE_S), data=False) as child:
        found = child.finish()
    found["fps"], found["notes"] = Fraction(found["fps"]), tuple(found["notes"])
    return VideoInfo(path=Path(path), **found)


class _Reader:
    """What both readers share: they are iterated once, and end their child when closed."""

    _child: "_Child"

    def __iter__(self) -> Self:
        return self

    def close(self) -> None:
        """End the child. May be called at any time, from any thread, more than once."""
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FrameReader(_Reader):
    """Frames of a video, one after the other, from a child that is gone once this is closed.

    info      from `probe`
    segments  runs (first, stop) over frame indices at `info.fps`: first < stop gives first .. stop-1,
              first > stop gives first-1 .. stop, so (0, n), (n, 0) goes there and back. None: the whole file.
    yields    (height, width, 3) uint8 RGB, each its own array. A still gives its picture for any index.
    raises    InputError when the file breaks the decoder or stalls it

    `missing` counts, at the end, how many frames fewer than promised there were; `notes` says what was damaged.
    """

    def __init__(self, info: VideoInfo, segments: Sequence[tuple[int, int]] | None = None):
        if not info.has_video:
            raise InputError("{file} has no picture track; give a video or an image.", file=info.path.name)
        self.info = info
        self.missing = 0
        self.notes: tuple[str, ...] = ()
        wanted = [(0, info.frames)] if segments is None else segments
        self._left = sum(abs(stop - first) for first, stop in wanted)
        self._still: Frame | None = None
        whole = segments is None or info.is_still
        self._child = _Child(
            info.path,
            "frames",
            _frames_limits(info, info.frames if whole else self._left),
            width=info.width,
            height=info.height,
            fps=str(info.fps),
            start_s=info.start_s,
            timed=info.timed,
            segments=None if whole else list(segments),
        )

    def __next__(self) -> Frame:
        if self._still is not None:
            if self._left <= 0:
                raise StopIteration
            self._left -= 1
            return self._still.copy()
        frame = np.empty((self.info.height, self.info.width, 3), np.uint8)
        if not self._child.fill(memoryview(frame).cast("B")):
            if not self._child.closed:
                self.notes = tuple(self._child.finish()["notes"])
                self.missing = max(0, self._left)
                self.close()
            raise StopIteration
        self._left -= 1
        if self.info.is_still:
            self._still = frame.copy()
            self.close()
        return frame


def ahead(reader: FrameReader) -> Iterator[Frame]:
    """The frames of a reader, read in another thread while those before them are used.

    The pipe holds less than one frame of an ordinary video, so that without this the child decodes only while its
    reader waits. Up to 64 MB of frames, or two, are held. Close the reader to end it early.
    """
    most = int(np.clip(AHEAD_BYTES // 2 // (reader.info.width * reader.info.height * 3), 1, 16))
    with ThreadPoolExecutor(1) as other:
        coming = other.submit(lambda: list(islice(reader, most)))
        while frames := coming.result():
            coming = other.submit(lambda: list(islice(reader, most)))
            yield from frames


class SoundReader(_Reader):
    """The sound of a file in chunks of about a second, from a child that is gone once this is closed.

    sample_rate  Hz
    channels     1 or 2; what the file has is mixed to it, or its loudest channel taken where the mix would cancel
    track        number of the sound track, from 1; None: the usual one, or the first that is not silent
    yields       (S, C) float32, -1..1, starting at the first video frame where there is one (late sound is
                 preceded by silence, early sound cut), else at the first sample. Gaps are silence.
    raises       InputError when there is no sound or it cannot be decoded
    """

    def __init__(self, path: str | Path, sample_rate: int = SOUND_RATE, channels: int = 2, track: int | None = None):
        self.sample_rate, self.channels = sample_rate, channels
        self.notes: tuple[str, ...] = ()
        limits = sandbox.Limits(MEMORY_BYTES, SOUND_CPU_S, STALL_S, STALL_CPU_S)
        self._child = _Child(path, "sound", limits, sample_rate=sample_rate, channels=channels, track=track)

    def __next__(self) -> np.ndarray:
        samples = np.empty((self.sample_rate, self.channels), np.float32)
        count = self._child.fill(memoryview(samples).cast("B")) // (4 * self.channels)
        if not count:
            if not self._child.closed:
                self.notes = tuple(self._child.finish()["notes"])
                self.close()
            raise StopIteration
        return samples[:count]


def read_waveform(path: str | Path, sample_rate: int = 16_000) -> np.ndarray:
    """The whole sound of a file, mixed to one channel; alignment and errors as in SoundReader.

    returns  (S,) float32, -1..1
    """
    return read_sound(path, sample_rate)[0]


def read_sound(
    path: str | Path, sample_rate: int = 16_000, track: int | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """As read_waveform, with the sentences on what was damaged or chosen; track as in SoundReader."""
    with SoundReader(path, sample_rate, 1, track) as reader:
        return np.concatenate(list(reader))[:, 0], reader.notes


def sound_notes(path: str | Path) -> tuple[str, ...]:
    """The sentences of read_sound on a sound that is not needed in memory."""
    with SoundReader(path) as reader:
        for _ in reader:
            pass
        return reader.notes


class _Child(sandbox.Child):
    """One run of decoder.py, whose end is told in the words of this module."""

    def __init__(self, path: str | Path, job: str, limits: sandbox.Limits, data: bool = True, **request: Any):
        self.path = Path(path)
        _check(self.path)
        there = str(self.path.resolve())
        super().__init__(
            "lipsync.media.decoder:run", {"job": job, "path": there, **request}, limits, [there], data=data
        )

    def fill(self, view: memoryview) -> int:
        with self._sentences():
            return super().fill(view)

    def finish(self) -> dict[str, Any]:
        with self._sentences():
            answer = super().finish() or {"notes": []}  # closed by another thread, which wants no more of it
        if "error" in answer:
            raise InputError(Message(from_json(answer["error"], MOST_SAID), file=self.path.name))
        return answer | {"notes": from_json(answer["notes"], MOST_SAID)}

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except sandbox.Ended as ended:
            name = self.path.name
            if ended.cause == "stopped":
                raise LipsyncError(
                    "{name} could not be read to its end: the reading process {ended}.", name=name, ended=ended
                ) from ended
            if ended.cause == "crash":
                raise InputError(
                    "{name} is damaged: the decoder broke down on it ({detail}).", name=name, detail=ended.detail
                ) from ended
            raise InputError("{name} {ended}.", name=name, ended=ended) from ended


def _frames_limits(info: VideoInfo, frames: int) -> sandbox.Limits:
    """About ten times what decoding and painting take, so that only a file that works against us meets them."""
    each_s = 0.02 + 0.15e-6 * info.width * info.height
    return sandbox.Limits(MEMORY_BYTES, round(STALL_CPU_S + 2 * each_s * frames), STALL_S, STALL_CPU_S)


def _check(path: Path) -> None:
    """Say plainly what needs no decoder to see."""
    try:
        if path.is_dir():
            raise InputError("{file} is a folder; give a file.", file=path.name)
        if not path.exists():
            if re.search(r"%\d*d|[*?]", path.name):
                raise InputError(
                    "{path} does not exist: the numbered frames of a film have to be joined into a video first.",
                    path=path,
                )
            raise InputError("{path} does not exist.", path=path)
        if not path.is_file():
            raise InputError("{file} is not an ordinary file.", file=path.name)
        if not path.stat().st_size:
            raise InputError("{file} is empty.", file=path.name)
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError("{file} cannot be opened ({error}).", file=path.name, error=error.strerror) from error
