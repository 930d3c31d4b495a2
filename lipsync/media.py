"""Video and voice in, H.264 and AAC out, through PyAV.

What visitors give is never opened in this process: `probe`, `FrameReader`, `SoundReader` and `read_waveform`
start the child in decoder.py, read its pipe, and turn its crash, its silence or its complaint into one
InputError sentence. Frames are counted at one constant rate, whatever the container's clock does; sound
starts at the moment of the first frame. Only `VideoWriter`, which gets our own frames, works in place.
"""

import contextlib
import fcntl
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from .errors import InputError, LipsyncError

Frame = np.ndarray  # (H, W, 3) uint8 RGB

PROBE_S = 10.0  # a probe that takes longer is given up
STALL_S = 60.0  # a decoder that gives nothing for so long is given up
PIPE_BYTES = 1 << 20
SOUND_RATE = 48_000
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}


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


class FrameReader:
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
        facts = {**asdict(info), "path": None, "fps": str(info.fps)}
        self._child = _Child(info.path, "frames", info=facts, segments=None if whole else list(segments))

    def __iter__(self) -> Iterator[Frame]:
        return self

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

    def close(self) -> None:
        """End the child. May be called at any time, from any thread, more than once."""
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SoundReader:
    """The sound of a file in chunks of about a second, from a child that is gone once this is closed.

    sample_rate  Hz
    channels     1 or 2; what the file has is mixed to it
    yields       (S, C) float32, -1..1, starting at the first video frame where there is one (late sound is
                 preceded by silence, early sound cut), else at the first sample. Gaps are silence.
    raises       InputError when there is no sound or it cannot be decoded
    """

    def __init__(self, path: str | Path, sample_rate: int = SOUND_RATE, channels: int = 2):
        self.sample_rate, self.channels = sample_rate, channels
        self.notes: tuple[str, ...] = ()
        self._child = _Child(path, "sound", sample_rate=sample_rate, channels=channels)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        samples = np.empty((self.sample_rate, self.channels), np.float32)
        count = self._child.fill(memoryview(samples).cast("B")) // (4 * self.channels)
        if not count:
            if not self._child.closed:
                self.notes = tuple(self._child.finish()["notes"])
                self.close()
            raise StopIteration
        return samples[:count]

    def close(self) -> None:
        """End the child. May be called at any time, from any thread, more than once."""
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_waveform(path: str | Path, sample_rate: int = 16_000) -> np.ndarray:
    """The whole sound of a file, mixed to one channel; alignment and errors as in SoundReader.

    returns  (S,) float32, -1..1
    """
    with SoundReader(path, sample_rate, channels=1) as reader:
        return np.concatenate(list(reader))[:, 0]


class VideoWriter:
    """Frames and sound in, a playable file out: H.264 in BT.709 4:2:0, AAC, index at the front.

    path         .mp4, .m4v, .mov or .mkv; it appears whole at `close`, or not at all
    width height of the frames; an odd one gets one repeated column or row, and `padded` says so
    fps          exact
    sample_rate  Hz of the samples, None for no sound; the file has 48 kHz
    quality      x264's constant rate factor, 0 (lossless) .. 51
    tags         kept in the container as they are
    raises       LipsyncError when the disk is full or the place cannot be written
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: Fraction,
        sample_rate: int | None = None,
        channels: int = 2,
        quality: int = 18,
        tags: Mapping[str, str] | None = None,
        preset: str = "veryfast",
        threads: int = 0,
    ):
        self.path = Path(path)
        self.padded = bool(width % 2 or height % 2)
        self._shape = (height, width, 3)
        self._frames = 0
        self._samples = 0
        self._rate, self._layout, self._channels = sample_rate, "mono" if channels == 1 else "stereo", channels
        if self.path.suffix.lower() not in CONTAINERS:
            raise InputError(f"{self.path.name} must end in one of {', '.join(CONTAINERS)}.")
        form = CONTAINERS[self.path.suffix.lower()]
        self._temp = self.path.with_name(f".{self.path.stem[:80]}.{secrets.token_hex(4)}.part")
        options = {"movflags": "+faststart+use_metadata_tags"} if form in ("mp4", "mov") else {}
        with self._sentences():
            self._container = av.open(str(self._temp), "w", format=form, container_options=options)
            self._container.metadata.update(tags or {})
            video = self._container.add_stream("libx264", rate=fps, options={"crf": str(quality), "preset": preset})
            video.width, video.height, video.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
            video.time_base = video.codec_context.time_base = 1 / fps
            context = video.codec_context
            context.thread_count = threads
            context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
            context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
            self._video, self._sound = video, None
            if sample_rate:
                self._sound = self._container.add_stream("aac", rate=SOUND_RATE, layout=self._layout)
                self._sound.bit_rate = 192_000
                self._convert = av.AudioResampler("fltp", self._layout, SOUND_RATE)
            self._container.start_encoding()
        self._canvas = np.empty((video.height, video.width, 3), np.uint8) if self.padded else None

    def write(self, frame: Frame) -> None:
        """Append one frame, (height, width, 3) uint8 RGB."""
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"a frame of shape {frame.shape} {frame.dtype}, not {self._shape} uint8")
        if self._canvas is not None:
            height, width = self._shape[:2]
            self._canvas[:height, :width] = frame
            self._canvas[:height, width:] = frame[:, -1:]
            self._canvas[height:] = self._canvas[height - 1]
            frame = self._canvas
        with self._sentences():
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
            )
            picture.pts, picture.time_base = self._frames, self._video.codec_context.time_base
            self._frames += 1
            self._container.mux(self._video.encode(picture))

    def write_sound(self, samples: np.ndarray) -> None:
        """Append samples, (S, C) float32, -1..1, at `sample_rate`."""
        if self._sound is None or samples.ndim != 2 or samples.shape[1] != self._channels:
            raise ValueError(f"samples of shape {samples.shape} for {self._channels if self._sound else 'no'} channels")
        for part in np.array_split(samples, range(self._rate, len(samples), self._rate)):
            if not len(part):
                continue
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(part.T, np.float32), "fltp", self._layout)
            block.sample_rate, block.time_base, block.pts = self._rate, Fraction(1, self._rate), self._samples
            self._samples += len(part)
            self._encode_sound(block)

    def _encode_sound(self, block: av.AudioFrame | None) -> None:
        with self._sentences():
            for part in self._convert.resample(block):
                self._container.mux(self._sound.encode(part))

    def close(self) -> None:
        """Finish the file and put it in its place."""
        if self._container is None:
            return
        with self._sentences():
            if self._sound is not None:
                if self._samples:
                    self._encode_sound(None)
                self._container.mux(self._sound.encode(None))
            self._container.mux(self._video.encode(None))
            self._container.close()
            self._container = None
            os.replace(self._temp, self.path)

    def abort(self) -> None:
        """Leave nothing behind. Does nothing after `close`."""
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(FFmpegError, OSError):
                container.close()
        self._temp.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except (FFmpegError, OSError) as error:
            self.abort()
            said = (error.strerror or str(error)).strip(". ")
            raise LipsyncError(f"{self.path.name} could not be written in {self.path.parent} ({said}).") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


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
        root = str(Path(__file__).resolve().parent.parent)
        search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lipsync.decoder", json.dumps(request)],
                stdin=subprocess.DEVNULL,
                stdout=data_end,
                stderr=subprocess.DEVNULL,
                pass_fds=(report_end,),
                process_group=0,  # Ctrl-C is for the parent to handle
                env={**os.environ, "PYTHONPATH": search, "OPENBLAS_NUM_THREADS": "1"},
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
            raise InputError(f"{path} does not exist.")
        if not path.is_file():
            raise InputError(f"{path.name} is not an ordinary file.")
        if not path.stat().st_size:
            raise InputError(f"{path.name} is empty.")
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{path.name} cannot be opened ({error.strerror}).") from error
