"""What the decoding child does (sandbox.py), started by reader.py and by nothing else.

A broken file can kill or stall the process that decodes it, so visitors' files are opened only here. Frames (raw RGB)
or samples (float32) leave on standard output. Imports stay at av and numpy, which the fork server keeps in memory.
"""

import contextlib
import math
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from ..errors import InputError
from ..messages import Message
from .color import FrameConverter, srgb_from
from .demux import Pictures, heard_stream, is_protected, moment, open_input, packets, picture_stream, words
from .probe import LONGEST_S, probe
from .stills import is_picture

HELD_BYTES = 128 << 20  # decoded pictures kept at once while a run is given backwards
MIX = {"rematrix_maxval": "1"}  # mixed channels are averaged, not summed past full scale
CANCELLED_DB = 10  # a mix so far below the loudest channel has lost it; one of two stereo channels alone loses 6
OVERSHOOT = 4.0  # no codec's own ringing goes higher, times full scale
LOUD = 1.01  # a file's own samples above this, times full scale, are worth a sentence
JUMP_S = 10  # a leap back in a sound track's timestamps, or one ahead past its end: a new clock, not a gap

# --- frames --------------------------------------------------------------------------------------------------


class ConstantRateReader:
    """Pictures at a constant rate: tick k shows the last picture whose time, in ticks, rounds to k or less."""

    def __init__(self, path: str, fps: Fraction, start_s: float, timed: bool):
        self.path, self.fps, self.start_s, self.timed = path, fps, start_s, timed
        self.damaged = False
        self.pictures: Pictures | None = None
        self.rewind()

    def rewind(self) -> None:
        """Go to the start of the file."""
        if self.pictures:
            self.damaged = self.damaged or self.pictures.broken > 0
            self.source = self.shown = self.ahead = None
            self.pictures.container.close()
        self.pictures = Pictures(self.path)
        self.unit = self.pictures.stream.time_base
        self.start = round(Fraction(self.start_s) / self.unit)
        self.read()

    def read(self) -> None:
        """Begin to decode where the container stands."""
        self.source = self.numbered()
        self.shown: tuple[int, int, av.VideoFrame] | None = None
        self.ahead = next(self.source, None)

    def numbered(self) -> Iterator[tuple[int, int, av.VideoFrame]]:
        """(first tick, the tick after its last if none follows, picture)"""
        rate = self.pictures.stream.average_rate or self.fps
        for place, frame in enumerate(self.pictures):
            if self.timed:
                if frame.pts is None or frame.pts < self.start:
                    continue
                begin = (frame.pts - self.start) * self.unit
                end = begin + max((frame.duration or 0) * self.unit, 1 / rate)
            else:
                begin, end = place / rate, (place + 1) / rate
            yield math.floor(begin * self.fps + Fraction(1, 2)), max(1, round(end * self.fps)), frame

    def go(self, tick: int) -> None:
        """Make ready to show a tick, whatever was shown before."""
        here = self.shown or self.ahead
        if here and here[0] <= tick and (tick - here[0] < 2 * self.fps or not self.timed):
            return
        # A key frame may be shown later than it is decoded, so the nearest one may lie past the tick.
        for back_s in (0, 1, 10) if self.timed else ():
            target = self.start + (tick / self.fps - back_s) / self.unit
            with contextlib.suppress(FFmpegError):
                self.pictures.container.seek(round(target), stream=self.pictures.stream)
                self.read()
                if self.ahead and self.ahead[0] <= tick:
                    return
        self.rewind()

    def run(self, first: int, stop: int) -> Iterator[av.VideoFrame]:
        """Pictures of ticks first .. stop-1; ends early where the file does."""
        self.go(first)
        for tick in range(first, stop):
            while self.ahead and (self.ahead[0] <= tick or self.shown is None):
                self.shown, self.ahead = self.ahead, next(self.source, None)
            if self.shown is None or not self.ahead and tick >= self.shown[1]:
                return
            yield self.shown[2]

    def backwards(self, first: int, stop: int) -> Iterator[av.VideoFrame]:
        """Pictures of ticks first-1 .. stop: runs as long as memory allows, each turned round."""
        frame = (self.shown or self.ahead or (0, 0, None))[2]
        size = sum(plane.buffer_size for plane in frame.planes) if frame else 1
        chunk = max(8, HELD_BYTES // size)
        for top in range(first, stop, -chunk):
            held = deque(self.run(max(stop, top - chunk), top))
            while held:
                yield held.pop()


def frames(
    path: str,
    width: int,
    height: int,
    fps: str,
    start_s: float,
    timed: bool,
    segments: list[tuple[int, int]] | None,
) -> dict[str, Any]:
    """Write the pictures of the segments (None: all there are) to standard output."""
    reader = ConstantRateReader(path, Fraction(fps), start_s, timed)
    convert = FrameConverter(width, height, srgb_from(path) if is_picture(reader.pictures.container) else None)
    longest = int(LONGEST_S * Fraction(fps))
    for first, stop in segments if segments is not None else [(0, longest + 1)]:
        for count, frame in enumerate(reader.run(first, stop) if first <= stop else reader.backwards(first, stop)):
            if count >= longest:
                raise InputError("The picture of {file} lasts longer than {hours} hours.", hours=LONGEST_S // 3600)
            send(convert(frame))
    damaged = reader.damaged or reader.pictures.broken > 0
    return {"notes": [Message("Some pictures of the video are damaged; what could be decoded was taken.")] * damaged}


# --- sound ---------------------------------------------------------------------------------------------------


class PcmWriter:
    """Samples at the file's rate in, (S, C) float32 at the wanted rate out."""

    def __init__(self, sample_rate: int, channels: int):
        self.sample_rate, self.layout = sample_rate, "mono" if channels == 1 else "stereo"
        self.rate = sample_rate
        self.resample: av.AudioResampler | None = None
        self.sent = 0

    def set_rate(self, rate: int) -> None:
        """Samples have this rate from now on."""
        if rate != self.rate:
            self.flush()
            self.rate = rate
            self.resample = (
                av.AudioResampler("fltp", self.layout, self.sample_rate) if rate != self.sample_rate else None
            )

    def __call__(self, samples: np.ndarray) -> None:
        """(C, S) float32"""
        if self.resample is None:
            return self.write(samples)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", self.layout)
        frame.sample_rate = self.rate
        for part in self.resample.resample(frame):
            self.write(part.to_ndarray())

    def flush(self) -> None:
        for part in self.resample.resample(None) if self.resample else ():
            self.write(part.to_ndarray())
        self.resample = None

    def write(self, samples: np.ndarray) -> None:
        send(np.ascontiguousarray(samples.T, np.float32))
        self.sent += samples.shape[1]
        if self.sent > LONGEST_S * self.sample_rate:
            raise InputError("The sound of {file} lasts longer than {hours} hours.", hours=LONGEST_S // 3600)


@dataclass
class Tally:
    """What was mended in the samples of a file."""

    bad: int = 0  # moments with samples that are no numbers
    peak: float = 0.0  # of those that were cut off, times full scale


class Mixer:
    """Frames of one kind in; their mix and, below it, each channel by itself out: (channels + C, S) float32.

    What is no number, as float files may hold, becomes silence, and what is too loud is cut off, before anything is
    computed from it, and is counted.
    """

    def __init__(self, frame: av.AudioFrame, channels: int, stored: str, tally: Tally):
        rate, self.layout, self.channels = frame.sample_rate, frame.layout, channels
        self.one = frame.layout.nb_channels == 1
        self.apart = av.AudioResampler("flt", frame.layout, rate)  # packed: PyAV 18.1 crashes on eight planes
        target = "mono" if self.one or channels == 1 else "stereo"
        self.mix = av.AudioResampler("fltp", target, rate, options=MIX)
        # Lossy codecs overshoot a little by their nature; that is for the end of the chain to cut off.
        self.most = 1.0 if stored.startswith("pcm_f") else OVERSHOOT
        self.floats = "fl" in frame.format.name or "db" in frame.format.name
        self.tally = tally

    def __call__(self, frame: av.AudioFrame) -> np.ndarray:
        parts = [self._clean(part) for part in self.apart.resample(frame)]
        apart = np.concatenate([part.to_ndarray() for part in parts], 1).reshape(-1, self.layout.nb_channels).T
        mixed = np.concatenate([one.to_ndarray() for part in parts for one in self.mix.resample(part)], 1)
        mixed = np.broadcast_to(mixed, (self.channels, mixed.shape[1]))  # one channel serves both ears
        return mixed if self.one else np.concatenate([mixed, apart])

    def _clean(self, frame: av.AudioFrame) -> av.AudioFrame:
        """The frame, or one like it of numbers within bounds."""
        samples = frame.to_ndarray()
        if not self.floats or np.abs(samples).max(initial=0) <= self.most:  # false, too, for what is no number
            return frame
        fine = np.isfinite(samples)
        self.tally.bad += int((~fine.reshape(-1, self.layout.nb_channels)).any(1).sum())
        self.tally.peak = max(self.tally.peak, float(np.abs(samples[fine]).max(initial=0)))
        clean = np.where(fine, samples, 0).clip(-self.most, self.most).astype(np.float32)
        made = av.AudioFrame.from_ndarray(clean, "flt", self.layout)
        made.sample_rate, made.pts, made.time_base = frame.sample_rate, frame.pts, frame.time_base
        return made


class Ear:
    """What `Mixer` gives in; the mix out, or the loudest channel where mixing would lose it: (channels, S).

    One channel turned round against the other, or speech in one of six, all but vanishes in a mix. Which is heard is
    settled second by second, from all the power so far.
    """

    def __init__(self, pcm: PcmWriter, channels: int):
        self.pcm, self.channels = pcm, channels
        self.held: list[np.ndarray] = []
        self.mix_power, self.powers = 0.0, np.zeros(0)
        self.heard: int | None = None  # the channel that is heard, None: the mix
        self.lost_db = 0.0  # how far, at most, the mix lay below the channel that was heard instead

    def __call__(self, rows: np.ndarray) -> None:
        self.held.append(rows)
        if sum(part.shape[1] for part in self.held) >= self.pcm.rate:
            self.flush()

    def flush(self) -> None:
        """Settle and hand on what is held."""
        if not self.held:
            return
        rows, self.held = np.concatenate(self.held, 1), []
        mixed, apart = rows[: self.channels], rows[self.channels :]
        if not len(apart):
            return self.pcm(mixed)
        if len(self.powers) != len(apart):
            self.mix_power, self.powers, self.heard = 0.0, np.zeros(len(apart)), None
        first = not self.powers.any()
        self.mix_power += float(np.square(mixed, dtype=np.float64).sum(1).max())
        self.powers += np.square(apart, dtype=np.float64).sum(1)
        before, loudest = self._row(mixed, apart), int(self.powers.argmax())
        lost_db = 10 * np.log10(max(self.powers[loudest], 1e-9) / max(self.mix_power, 1e-9))
        if self.heard is not None and 2 * self.powers[self.heard] > self.powers[loudest]:
            loudest = self.heard  # of two alike the first stays
        self.heard = loudest if lost_db > CANCELLED_DB else None
        now = self._row(mixed, apart)
        if self.heard is not None:
            self.lost_db = max(self.lost_db, lost_db)
        if not first and now is not before:  # 10 ms from one to the other, so that nothing clicks
            fade = np.minimum(np.arange(rows.shape[1]) / (self.pcm.rate / 100), 1).astype(np.float32)
            now = before + (now - before) * fade
        self.pcm(now)

    def _row(self, mixed: np.ndarray, apart: np.ndarray) -> np.ndarray:
        return mixed if self.heard is None else np.broadcast_to(apart[self.heard], mixed.shape)


def sound(path: str, sample_rate: int, channels: int, track: int | None = None) -> dict[str, Any]:
    """Write the sound, from the moment of the first picture on where there is one, to standard output."""
    container = open_input(path)
    stream, notes = heard_stream(container, path, track)
    if stream is None:
        raise InputError("{file} has no sound track: give a file that has sound.")
    now = first_moment(path) if picture_stream(container) else None  # when the next sample is due
    end = Fraction((container.duration or 0) + (container.start_time or 0), av.time_base)
    pcm, mix, kind = PcmWriter(sample_rate, channels), None, ()
    ear, tally = Ear(pcm, channels), Tally()
    started, broken, shift = False, 0, Fraction(0)
    for packet in packets(container, stream):
        try:
            decoded = packet.decode()
        except FFmpegError:
            broken += 1
            continue
        for frame in decoded:
            rate = frame.sample_rate
            if (rate, frame.format.name, frame.layout.name) != kind:
                kind = (rate, frame.format.name, frame.layout.name)
                ear.flush()
                mix = Mixer(frame, channels, stream.codec_context.name, tally)
                pcm.set_rate(rate)
            samples = mix(frame)
            at = now if frame.pts is None else frame.pts * frame.time_base + shift
            at = at or Fraction(0)
            now = at if now is None else now
            if (started and now - at > JUMP_S) or (at - now > JUMP_S and at > end + JUMP_S):
                shift, at = shift + now - at, now
            gap = round((at - now) * rate)
            if started and abs(gap) <= rate // 50:  # rounded timestamps; only the start is taken to the sample
                gap = 0
            for done in range(0, gap, rate):
                ear(np.zeros((len(samples), min(rate, gap - done)), np.float32))
            samples = samples[:, max(0, -gap) :]
            if samples.shape[1]:
                ear(samples)
                started = True
            now += Fraction(max(0, gap) + samples.shape[1], rate)
    ear.flush()
    pcm.flush()
    if not pcm.sent:
        if is_protected(path):
            raise InputError("No sound in {file} could be decoded: it is protected against copying (DRM).")
        raise InputError("No sound in {file} could be decoded.")
    if broken:
        notes.append(Message("{count} pieces of the sound are damaged.", count=broken))
    if tally.bad:
        notes.append(
            Message("{count} samples of its sound are no numbers; they were taken as silence.", count=tally.bad)
        )
    if tally.peak > LOUD:
        notes.append(
            Message("Its sound goes up to {x:.3g} times full scale; what is above that was cut off.", x=tally.peak)
        )
    if ear.lost_db:
        notes.append(
            Message(
                "A mix of its channels lies {lost:.0f} dB below the loudest of them, which was heard alone.",
                lost=min(ear.lost_db, 99),
            )
        )
    return {"notes": notes}


def first_moment(path: str) -> Fraction:
    """Presentation time of the first picture that decodes."""
    pictures = Pictures(path)
    return Fraction(moment(pictures.stream, next(iter(pictures), None)) * pictures.stream.time_base)


# --- the process -----------------------------------------------------------------------------------------------


def send(array: np.ndarray) -> None:
    """Write an array's bytes to standard output."""
    view = memoryview(array).cast("B")
    while view:
        view = view[os.write(1, view) :]


def run(job: str, **request: Any) -> dict[str, Any]:
    """The job that reader.py asks for. Raises InputError; MemoryError is for the sandbox to tell."""
    try:
        return {"probe": probe, "frames": frames, "sound": sound}[job](**request)
    except MemoryError:
        raise
    except FFmpegError as error:
        raise InputError("{file} cannot be decoded ({error}).", error=words(error)) from error
