"""Our own frames and sound into a file that plays everywhere: H.264 in BT.709 4:2:0, AAC, index at the front."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

from ..errors import InputError, LipsyncError

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
SOUND_RATE = 48_000
SOUND_BITS_S = 192_000
# Four pixels to one chroma sample by their mean: the exact way back from color.py's repeated chroma.
EXACT = Interpolation.AREA | Interpolation.ACCURATE_RND


class VideoWriter:
    """Frames and sound in, one file out; it appears whole at `close`, or not at all.

    path           .mp4, .m4v, .mov or .mkv
    width, height  of the frames; an odd one gets one repeated column or row, and `padded` says so
    fps            exact, constant
    sample_rate    Hz of the samples that will come, None for no sound; the file has 48 kHz
    channels       1 or 2
    crf            x264's constant rate factor, 0 (lossless) .. 51
    tags           container metadata, kept under these names
    threads        of the encoder; 0: as many as it likes
    matrix         of the colours; BT.601 for a reader that asks no file which it has (opencv)
    reproducible   the same frames give the same bytes, on every processor; needs threads=1. The faster arithmetic of
                   x264's look-ahead gives others from run to run
    raises         InputError for another ending, LipsyncError when the place is full or cannot be written
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: Fraction,
        sample_rate: int | None = None,
        channels: int = 2,
        crf: int = 18,
        tags: Mapping[str, str] | None = None,
        preset: str = "veryfast",
        threads: int = 0,
        matrix: Colorspace = Colorspace.ITU709,
        reproducible: bool = False,
    ):
        self.path = Path(path)
        self.padded = bool(width % 2 or height % 2)
        self.shape = (height, width, 3)
        self.sample_rate, self.channels, self.matrix = sample_rate, channels, matrix
        self.frames = self.samples = 0
        self._layout = "mono" if channels == 1 else "stereo"
        form = CONTAINERS.get(self.path.suffix.lower())
        if form is None:
            raise InputError(
                "{file} cannot be written: use one of {choices}.", file=self.path.name, choices=", ".join(CONTAINERS)
            )
        self._temp = self.path.with_name(f".{secrets.token_hex(8)}.part")
        self._container: av.container.OutputContainer | None = None
        self._scaler = VideoReformatter()
        with self._sentences():
            flags = {} if form == "matroska" else {"movflags": "+faststart+use_metadata_tags"}
            self._container = av.open(str(self._temp), "w", format=form, container_options=flags)
            self._container.metadata.update(tags or {})
            options = {"crf": str(crf), "preset": preset}
            if preset == "veryfast":  # finer motion costs a quarter of its time, and wins 0.05 dB and 9 % in size
                options["subq"] = "1"
            if reproducible:
                options["x264-params"] = "cpu-independent=1"
            self._video = self._video_stream(fps, options, threads)
            self._sound = self._sound_stream() if sample_rate else None
            self._container.start_encoding()

    def _video_stream(self, fps: Fraction, options: dict[str, str], threads: int) -> av.VideoStream:
        height, width = (side + side % 2 for side in self.shape[:2])
        stream = self._container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        stream.time_base = context.time_base = 1 / fps
        context.thread_count = threads
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        context.colorspace, context.color_range = self.matrix, ColorRange.MPEG
        self._canvas = np.empty((height, width, 3), np.uint8)
        return stream

    def _sound_stream(self) -> av.AudioStream:
        stream = self._container.add_stream("aac", rate=SOUND_RATE, layout=self._layout, options={"aac_coder": "fast"})
        stream.bit_rate = SOUND_BITS_S
        self._resample = av.AudioResampler("fltp", self._layout, SOUND_RATE)
        return stream

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, (height, width, 3) uint8 RGB."""
        if frame.shape != self.shape or frame.dtype != np.uint8:
            raise ValueError(f"a frame of {frame.shape} {frame.dtype} for a video of {self.shape} uint8")
        if self.padded:
            height, width, _ = self.shape
            self._canvas[:height, :width] = frame
            self._canvas[:height, width:] = frame[:, -1:]
            self._canvas[height:] = self._canvas[height - 1]
            frame = self._canvas
        with self._sentences():
            picture = self._scaler.reformat(
                av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), "rgb24"),
                format="yuv420p",
                dst_colorspace=self.matrix,
                dst_color_range=ColorRange.MPEG,
                interpolation=EXACT,
                threads=1,
            )
            picture.pts, picture.time_base = self.frames, self._video.codec_context.time_base
            self._container.mux(self._video.encode(picture))
        self.frames += 1

    def write_sound(self, samples: np.ndarray) -> None:
        """Append samples, (S, channels) float32, -1..1, at `sample_rate`; before, between or after frames."""
        if not self.sample_rate or samples.ndim != 2 or samples.shape[1] != self.channels:
            raise ValueError(f"samples of {samples.shape} for {self.channels if self.sample_rate else 0} channels")
        for first in range(0, len(samples), self.sample_rate):
            part = samples[first : first + self.sample_rate]
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(part.T, np.float32), "fltp", self._layout)
            block.sample_rate, block.time_base, block.pts = (
                self.sample_rate,
                Fraction(1, self.sample_rate),
                self.samples,
            )
            self.samples += len(part)
            self._encode_sound(block)

    def _encode_sound(self, block: av.AudioFrame | None) -> None:
        with self._sentences():
            for part in self._resample.resample(block):
                self._container.mux(self._sound.encode(part))

    def close(self) -> None:
        """Finish the file and put it in its place."""
        if self._container is None:
            return
        with self._sentences():
            if self.samples:
                self._encode_sound(None)
            for stream in filter(None, (self._video, self._sound)):
                self._container.mux(stream.encode(None))
            self._container.close()
            self._container = None
            os.replace(self._temp, self.path)

    def abort(self) -> None:
        """Leave nothing behind. Does nothing after `close`."""
        container, self._container = self._container, None
        with contextlib.suppress(FFmpegError, OSError):
            if container is not None:
                container.close()
        with contextlib.suppress(OSError):
            self._temp.unlink()

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except (FFmpegError, OSError) as error:
            self.abort()
            said = (error.strerror or str(error)).strip(". ")
            raise LipsyncError("{file} could not be written ({said}).", file=self.path.name, said=said) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
