"""The second pass: make the mouths and write the result, three workers deep.

The calling thread reads and crops, a second runs the network, a third pastes, stamps and encodes; at most three batches
of frames are in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .crop import cut, match_colour, mouth_mask, paste
from .detail import DetailTransfer
from .engines import BATCH
from .errors import InputError
from .faces.references import Resting, Roles
from .faces.tracking import Track
from .label import manifest as label
from .label.watermark import Watermark
from .media.reader import Frame, FrameReader, VideoInfo, VideoWriter
from .media.timeline import SOUND_RATE, Timeline, sound
from .models.base import Wav2LipModel
from .progress import Monitor
from .records import Options

BATCH_BYTES = 64 << 20  # the frames of one batch
IN_FLIGHT = 2  # batches behind the one being read


@dataclass(frozen=True)
class Job:
    """Everything the second pass needs.

    heard  what each chosen track hears (Wav2LipModel.hear); boxes: (N, 4) of all faces, which the stamp keeps clear of
    shots  first, stop of each, frames of the source
    """

    info: VideoInfo
    voices: tuple[Path, ...]
    options: Options
    model: Wav2LipModel
    chosen: tuple[Track, ...]
    heard: dict[int, np.ndarray]
    timeline: Timeline
    boxes: np.ndarray
    shots: list[tuple[int, int]]


@dataclass
class Mouth:
    """One face of one frame on its way through the network."""

    at: int  # which frame of the batch
    source: int  # which frame of the video
    box: np.ndarray
    region: np.ndarray
    mask: np.ndarray
    crop: Frame
    reference: Frame
    window: np.ndarray
    detail: DetailTransfer | None


@dataclass
class Batch:
    frames: list[Frame]
    mouths: list[Mouth]


class Speaker:
    """One chosen track with what its mouths need: reference crops and the sound of its voice."""

    def __init__(self, track: Track, model: Wav2LipModel, mel: np.ndarray, info: VideoInfo, options: Options) -> None:
        self.track = track
        self._model, self._mel, self._fps, self._options = model, mel, info.fps, options
        self._reference = Resting(track.portraits, model.rule, options.pad)
        if model.references > 1:
            self._reference = Roles(self._reference, track.exemplars, model.rule, options.pad, info.fps)
        self._detail = None
        large = tuple(e for e in track.exemplars if e.luma.size)
        if options.detail and large:
            self._detail = DetailTransfer(large, model.rule, options.pad, info.fps)

    def mouth(self, frame: Frame, at: int, source: int, spoken: int) -> Mouth:
        """Cut what the network needs for frame `source` of the video and frame `spoken` of the voice."""
        i = source - self.track.start
        box = self.track.boxes[i]
        region = self._model.rule.region(box, self._options.pad)
        mask = mouth_mask(self.track.points[i], region, self._options.softness)
        crop = cut(frame, region)
        window = self._model.windows(self._mel, spoken, 1, self._fps)[0]
        return Mouth(at, source, box, region, mask, crop, self._reference(crop, source), window, self._detail)


def render(job: Job, out: Path, monitor: Monitor) -> np.ndarray:
    """Write the unsigned result to `out`; returns (N,) bool, the frames in which a mouth was made.

    Raises InputError where the video cannot be read again, Cancelled.
    """
    timeline, info, options = job.timeline, job.info, job.options
    speakers = [Speaker(t, job.model, job.heard[t.number], info, options) for t in job.chosen]
    stamp = label.Stamp(info.width, info.height) if options.visible_label else None
    if stamp is not None:
        stamp.place(job.boxes)
    mark = Watermark(info.width, info.height) if options.watermark else None
    shots = np.searchsorted([stop for _, stop in job.shots], timeline.indices, "right").tolist()
    own = info.path if info.has_audio else None
    pieces = sound(timeline, info.fps, list(job.voices), own, options)
    synced, total = np.zeros(len(timeline.indices), bool), len(timeline.indices)
    with (
        closing(pieces),
        VideoWriter(
            out, info.width, info.height, info.fps, SOUND_RATE, quality=options.quality, tags=label.tags(options.model)
        ) as writer,
        ThreadPoolExecutor(1) as network,
        ThreadPoolExecutor(1) as last,
    ):
        finish = _Finisher(writer, pieces, stamp, mark, shots, float(info.fps), monitor)
        waiting: deque[Future] = deque()
        try:
            for batch in _batches(job, speakers, synced, monitor):
                made = network.submit(_generate, batch, job.model, monitor)
                waiting.append(last.submit(finish.write, batch, made))
                while len(waiting) > IN_FLIGHT or waiting and waiting[0].done():
                    waiting.popleft().result()
                monitor.step("sync", finish.frames, total)
            while waiting:
                waiting.popleft().result()
                monitor.step("sync", finish.frames, total)
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
        with monitor.timed("encode"):
            finish.rest()
    return synced


def _batches(job: Job, speakers: list[Speaker], synced: np.ndarray, monitor: Monitor) -> Iterator[Batch]:
    """Read the frames of the result in order and cut the crops of those whose mouth is to move."""
    info, timeline = job.info, job.timeline
    size = int(np.clip(BATCH_BYTES // (info.width * info.height * 3), 4, BATCH))
    batch, shown, source = Batch([], []), None, -1
    with FrameReader(info, timeline.segments()) as reader:
        frames = iter(reader)
        for out, wanted in enumerate(timeline.indices.tolist()):
            with monitor.timed("read"):
                if wanted != source:
                    shown, source = next(frames, None), wanted
                if shown is None:
                    raise InputError(f"{info.path.name} gave no frame {wanted} when it was read again: is it damaged?")
                frame = shown.copy()
            with monitor.timed("crop"):
                for speaker in speakers if timeline.first <= out < timeline.stop else []:
                    if speaker.track.has(wanted):
                        batch.mouths.append(speaker.mouth(frame, len(batch.frames), wanted, out - timeline.first))
                        synced[out] = True
                batch.frames.append(frame)
            if len(batch.frames) >= size or len(batch.mouths) >= BATCH:
                yield batch
                batch = Batch([], [])
    if batch.frames:
        yield batch


def _generate(batch: Batch, model: Wav2LipModel, monitor: Monitor) -> np.ndarray:
    """New faces for the mouths of a batch, (B, 96, 96, 3) uint8 RGB."""
    with monitor.timed("generate"):
        if not batch.mouths:
            return np.zeros((0, 96, 96, 3), np.uint8)
        crops, references, windows = (
            np.stack([getattr(mouth, part) for mouth in batch.mouths]) for part in ("crop", "reference", "window")
        )
        return model.generate(crops, references, windows)


class _Finisher:
    """Pastes, stamps, marks and encodes; keeps the sound just ahead of the picture."""

    def __init__(
        self,
        writer: VideoWriter,
        pieces: Iterator[np.ndarray],
        stamp: label.Stamp | None,
        mark: Watermark | None,
        shots: list[int],
        fps: float,
        monitor: Monitor,
    ) -> None:
        self._writer, self._pieces, self._stamp, self._fps, self._monitor = writer, pieces, stamp, fps, monitor
        self._mark, self._shots = mark, shots
        self._sounded = 0
        self.frames = 0

    def write(self, batch: Batch, made: Future[np.ndarray]) -> None:
        generated = made.result()
        with self._monitor.timed("paste"):
            for mouth, new in zip(batch.mouths, generated, strict=True):
                new = match_colour(new, mouth.crop, mouth.mask)
                frame, detail = batch.frames[mouth.at], None
                if mouth.detail is not None:
                    with self._monitor.timed("detail"):
                        new, detail = mouth.detail(new, mouth.crop, mouth.mask, frame, mouth.box, mouth.source)
                paste(frame, mouth.region, new, mouth.mask, detail)
            if self._stamp is not None:
                for frame in batch.frames:
                    self._stamp.apply(frame)
            if self._mark is not None:
                for number, frame in enumerate(batch.frames, self.frames):
                    self._mark.apply(frame, self._shots[number])
        with self._monitor.timed("encode"):
            for frame in batch.frames:
                self._writer.write(frame)
                self.frames += 1
                while self._sounded < self.frames / self._fps * SOUND_RATE and self._sound():
                    pass

    def rest(self) -> None:
        """Write what is left of the sound."""
        while self._sound():
            pass

    def _sound(self) -> bool:
        piece = next(self._pieces, None)
        if piece is not None:
            self._writer.write_sound(piece)
            self._sounded += len(piece)
        return piece is not None
