"""Small media for tests, made with PyAV: numbered pictures, clicks, and whatever container and codec is asked for."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 8


def numbered(number: int, width: int = 128, height: int = 96) -> np.ndarray:
    """(height, width, 3) uint8 RGB that shows a number as eight black or white bars; `number_of` reads it."""
    bars = np.array([255 * (number >> bit & 1) for bit in range(BITS)], np.uint8)
    return np.broadcast_to(np.repeat(bars, -(-width // BITS))[:width, None], (height, width, 3)).copy()


def number_of(frame: np.ndarray) -> int:
    """The number that `numbered` drew, also after scaling and strong compression."""
    centres = ((np.arange(BITS) + 0.5) * frame.shape[1] / BITS).astype(int)
    row = frame[frame.shape[0] // 2, centres].astype(int).mean(1)
    return sum(int(value > 127) << bit for bit, value in enumerate(row))


def count_up(n: int, width: int = 128, height: int = 96) -> list[np.ndarray]:
    """n numbered pictures."""
    return [numbered(k % 2**BITS, width, height) for k in range(n)]


def write_media(
    path: Path,
    frames: Sequence[np.ndarray | av.VideoFrame] = (),
    fps: Fraction | int = 25,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    stamps_ms: Sequence[int] | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    context: dict[str, object] | None = None,
    sound: np.ndarray | None = None,
    sound_rate: int = 48_000,
    sound_codec: str = "aac",
    sound_start_s: float = 0.0,
    container_options: dict[str, str] | None = None,
    form: str | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write frames (RGB arrays or ready VideoFrames) and sound ((S,) or (S, C) float32) into a file.

    stamps_ms  presentation times where the rate varies; rotation, aspect: display matrix and sample aspect ratio;
    context    attributes set on the video codec context, such as colour tags; tags: metadata of the video stream
    """
    with ordinary_priority(), av.open(str(path), "w", format=form, container_options=container_options or {}) as out:
        video = voice = None
        if len(frames):
            first = frames[0]
            height, width = first.shape[:2] if isinstance(first, np.ndarray) else (first.height, first.width)
            video = out.add_stream(codec, rate=Fraction(fps), options=options or {})
            video.width, video.height, video.pix_fmt = width, height, pixels
            video.codec_context.time_base = Fraction(1, 1000) if stamps_ms else 1 / Fraction(fps)
            video.metadata.update(tags or {})
            if rotation:
                video.set_display_rotation(rotation)
            if aspect:
                video.codec_context.sample_aspect_ratio = aspect
            for name, value in (context or {}).items():
                setattr(video.codec_context, name, value)
        if sound is not None:
            sound = sound[:, None] if sound.ndim == 1 else sound
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[sound.shape[1]]
            voice = out.add_stream(sound_codec, rate=sound_rate, layout=layout)
        out.start_encoding()
        if voice is not None:
            start = round(sound_start_s * sound_rate)
            for at in range(0, len(sound), 4096):
                part = np.ascontiguousarray(sound[at : at + 4096].T.astype(np.float32))
                block = av.AudioFrame.from_ndarray(part, "fltp", layout)
                block.sample_rate, block.time_base, block.pts = sound_rate, Fraction(1, sound_rate), start + at
                resampler = voice_format(voice, layout, sound_rate)
                for piece in resampler.resample(block):
                    out.mux(voice.encode(piece))
        for place, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24") if isinstance(picture, np.ndarray) else picture
            frame.pts = stamps_ms[place] if stamps_ms else place
            frame.time_base = video.codec_context.time_base
            out.mux(video.encode(frame))
        for stream in filter(None, (video, voice)):
            out.mux(stream.encode(None))
    return path


@contextlib.contextmanager
def ordinary_priority() -> Iterator[None]:
    """SVT-AV1 makes the thread that opens it a real-time one where it may; every process started later would be one."""
    try:
        yield
    finally:
        if hasattr(os, "sched_setscheduler"):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def voice_format(voice: av.AudioStream, layout: str, rate: int) -> av.AudioResampler:
    return av.AudioResampler(voice.codec_context.format, layout, rate)


def clicks(seconds: float, at_s: Sequence[float], rate: int = 48_000) -> np.ndarray:
    """(S,) float32 silence with a short loud burst, 2 ms of 3 kHz, at each moment."""
    sound = np.zeros(round(seconds * rate), np.float32)
    burst = 0.9 * np.sin(2 * np.pi * min(3000, rate / 4) * np.arange(round(0.002 * rate)) / rate)
    for moment in at_s:
        first = round(moment * rate)
        sound[first : first + len(burst)] = burst[: len(sound) - first]
    return sound


def click_times(sound: np.ndarray, rate: int) -> list[float]:
    """Moments, in seconds, at which a burst begins: the first sample above a third of the loudest, per burst."""
    loud = np.flatnonzero(np.abs(sound) > np.abs(sound).max() / 3)
    firsts = loud[np.flatnonzero(np.diff(loud, prepend=-rate) > rate // 20)]
    return [first / rate for first in firsts]
