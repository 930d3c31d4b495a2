"""Video and voice in, H.264 and AAC out, through PyAV.

What visitors give is never opened in this process: `probe`, `FrameReader`, `SoundReader`, `read_sound` and
`read_waveform` start the child in decoder.py, read its pipe, and turn its crash, its silence or its complaint into one
InputError sentence. Frames are counted at one constant rate, whatever the container's clock does; sound
starts at the moment of the first frame. Only writer.py, which gets our own frames, works in place.
Set LIPSYNC_DEBUG to see what the child prints.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from .child import child_process
from .errors import InputError
from .writer import SOUND_RATE, VideoWriter

__all__ = [
    "Frame", "FrameReader", "SoundReader", "VideoInfo", "VideoWriter", "ahead", "probe", "read_sound", "read_waveform",
]  # fmt: skip

Frame = np.ndarray  # (H, W, 3) uint8 RGB

PROBE_S = 30.0  # a probe that takes longer is given up
STALL_S = 60.0  # a decoder that gives nothing for so long is given up
PIPE_BYTES = 1 << 20
AHEAD_BYTES = 64 << 20  # frames read before they are asked for
CHILD_SETTINGS = {
    "OPENBLAS_NUM_THREADS": "1",
    # glibc maps every picture-sized buffer anew; kept instead, they save 300 page faults and 0.8 ms a frame.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 28),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
}


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
    with _Child(path, "probe", time.monotonic() + PROBE_S) as child:
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
            raise InputError(f"{info.path.name} has no picture track; give a video or an image.")
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
        self._child = _Child(path, "sound", sample_rate=sample_rate, channels=channels, track=track)

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


class _Child:
    """One run of decoder.py: its data pipe, its report, and its end."""

    def __init__(self, path: str | Path, job: str, deadline: float | None = None, **request: Any):
        self.path = Path(path)
        self.deadline = deadline
        self.closed = False
        self._lock = threading.Lock()
        _check(self.path)
        data, data_end = os.pipe()
        report, report_end = os.pipe()
        with contextlib.suppress(OSError, AttributeError):  # a user's pipes share a limit
            fcntl.fcntl(data, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        request = {"job": job, "path": str(self.path.resolve()), "report": report_end, **request}
        debug = os.environ.get("LIPSYNC_DEBUG")
        try:
            self._process = subprocess.Popen(
                **child_process("decoder", CHILD_SETTINGS),
                stdin=subprocess.PIPE,
                stdout=data_end,
                stderr=None if debug else subprocess.DEVNULL,
                pass_fds=(report_end,),
            )
        except BaseException:
            os.close(data)
            os.close(report)
            raise
        finally:
            os.close(data_end)
            os.close(report_end)
        self._data, self._report = data, report
        self._end = weakref.finalize(self, _end, self._process, data, report)
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(json.dumps(request).encode())

    def fill(self, view: memoryview) -> int:
        """Bytes read into `view`: all of it, fewer at the end of the data, 0 after it."""
        done = 0
        with self._lock:
            while done < len(view) and not self.closed:
                self._wait(self._data)
                count = os.readv(self._data, [view[done:]])
                if not count:
                    break
                done += count
        return done

    def finish(self) -> dict[str, Any]:
        """The report, once the data has ended."""
        said = b""
        with self._lock:
            while not self.closed:
                self._wait(self._report)
                part = os.read(self._report, 1 << 16)
                if not part:
                    break
                said += part
            if self.closed:  # by another thread, which wants no more of it
                return {"notes": []}
        self.close()
        if not said:
            code = self._process.returncode
            cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise InputError(f"{self.path.name} is damaged: the decoder broke down on it ({cause}).")
        answer = json.loads(said)
        if "error" in answer:
            raise InputError(answer["error"].replace("{file}", self.path.name))
        return answer

    def _wait(self, descriptor: int) -> None:
        left = STALL_S if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(left * 1000):
            self._process.kill()
            raise InputError(f"{self.path.name} keeps the decoder busy without a result; it is damaged or too large.")

    def close(self) -> None:
        self.closed = True
        self._process.kill()  # a reader in another thread now sees the end of its pipe
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(process: subprocess.Popen, *descriptors: int) -> None:
    process.kill()
    process.wait()
    for descriptor in descriptors:
        os.close(descriptor)


def _check(path: Path) -> None:
    """Say plainly what needs no decoder to see."""
    try:
        if path.is_dir():
            raise InputError(f"{path.name} is a folder; give a file.")
        if not path.exists():
            numbered = re.search(r"%\d*d|[*?]", path.name)
            hint = ": the numbered frames of a film have to be joined into a video first" if numbered else ""
            raise InputError(f"{path} does not exist{hint}.")
        if not path.is_file():
            raise InputError(f"{path.name} is not an ordinary file.")
        if not path.stat().st_size:
            raise InputError(f"{path.name} is empty.")
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{path.name} cannot be opened ({error.strerror}).") from error
