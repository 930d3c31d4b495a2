"""The steps of the second pass: read, crop, generate, paste, write, each an iterator over what the one before gives.

`ahead` lets a step work in a thread of its own: reading and cropping, the network, pasting, and encoding go side by
side, and at most four batches of frames are in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import TypeVar, cast

import numpy as np

from .blending import crop_mask, match_colour, mouth_mask, natural_red, paste, paste_poisson, widened
from .detail import SIZE_PX, THUMB, DetailTransfer
from .engines import BATCH
from .errors import InputError
from .faces.references import Roles, references_of
from .faces.tracking import Track
from .geometry import crop_face
from .label.stamp import Stamp
from .label.watermark import Watermark
from .media.reader import Frame, FrameReader, VideoInfo, VideoWriter
from .media.timeline import SOUND_RATE, Timeline
from .models.base import LipSyncModel
from .occlusion import RULE as FACE_RULE
from .occlusion import SIZE_PX as FACE_PX
from .occlusion import Covers, Place, hides
from .options import Options
from .progress import Monitor

EVERY = 2  # frames of which one is asked what the sound does to its mouth: `response` is two passes of the network
BATCH_BYTES = 64 << 20  # the frames of one batch
T = TypeVar("T")
_END = object()


@dataclass
class Mouth:
    """One face of one frame on its way through the network."""

    track: int
    at: int  # which frame of the batch
    source: int  # which frame of the video
    spoken: int  # which frame of the voice
    box: np.ndarray
    alignment: np.ndarray
    mask: np.ndarray
    crop: Frame
    reference: Frame | None  # None until it is found, where it is of a mouth that is not asked
    window: np.ndarray
    detail: DetailTransfer | None
    opening: float = 1.0
    fitting: Callable[[np.ndarray], Frame] | None = None  # what the sound does to the mouth -> references that show it
    face: Frame | None = None  # what is asked whether something lies before it, and its alignment
    seen_by: np.ndarray | None = None
    cover: np.ndarray | None = None  # (S, S) float32 0..1, how far the mask is covered by something before the face
    made: Frame | None = None


@dataclass
class Batch:
    """Consecutive frames of the result, and the mouths that are to be made in them; frames in which something lies
    before a face, and in which it hides the mouth, which then is not made."""

    first: int
    frames: list[Frame] = field(default_factory=list)
    mouths: list[Mouth] = field(default_factory=list)
    covered: set[int] = field(default_factory=set)
    hidden: set[int] = field(default_factory=set)


class Speaker:
    """One chosen track with what its mouths need: reference crops, the sound of its voice, and when it is heard.

    first, stop  frames of the result in which it speaks: first .. stop - 1
    """

    def __init__(
        self,
        track: Track,
        model: LipSyncModel,
        features: np.ndarray,
        fps: Fraction,
        options: Options,
        first: int = 0,
        stop: int = sys.maxsize,
    ) -> None:
        self.track, self.model, self.features, self.first, self.stop = track, model, features, first, stop
        self.fps, self.options = fps, options
        self._reference = references_of(track, model, options.pad, fps)
        self.opening = 1.0 if options.mouth_opening is None else options.mouth_opening
        self._fits = self._reference if isinstance(self._reference, Roles) and track.exemplars else None
        self._detail = None
        large = tuple(e for e in track.exemplars if e.luma.size)
        if options.detail and large and model.blend == "mask" and model.size_px == SIZE_PX:
            self._detail = DetailTransfer(large, model.rule, options.pad, fps)

    def mouth(self, frame: Frame, at: int, source: int, spoken: int) -> Mouth:
        """What the network needs for frame `source` of the video and frame `spoken` of the voice."""
        i = source - self.track.start
        return self.cut(frame, self.track.boxes[i], self.track.landmarks[i], at, source, spoken)

    def cut(self, frame: Frame, box: np.ndarray, landmarks: np.ndarray, at: int, source: int, spoken: int) -> Mouth:
        """The same of any picture of the speaker, whose box and landmarks are in its own pixels."""
        model, size = self.model, self.model.size_px
        alignment = model.rule.alignment(box, landmarks, self.options.pad)
        if model.blend == "replace":
            mask = crop_mask(size, self.options.feather)
        else:
            mask = mouth_mask(landmarks, alignment, self.options.feather, size)
        crop = crop_face(frame, alignment, size)
        window = model.windows(self.features, spoken, 1, self.fps)[0]
        fitting = reference = None
        if self._fits is not None and self._fits.serves(source):
            fitting = partial(self._fits.fitting, crop, source, alignment, landmarks, mask)
        if fitting is None or at == 0 or spoken % EVERY == 0:
            reference = self._reference(crop, source, alignment, landmarks)
        face = seen_by = None
        if self.options.occlusion:
            same = model.rule == FACE_RULE and size == FACE_PX and not self.options.pad
            seen_by = alignment if same else FACE_RULE.alignment(box, landmarks)
            face = crop if same else crop_face(frame, seen_by, FACE_PX)
        return Mouth(
            self.track.number,
            at,
            source,
            spoken,
            box,
            alignment,
            mask,
            crop,
            reference,
            window,
            self._detail,
            self.opening,
            fitting,
            face,
            seen_by,
        )


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one made in another thread while this one is used; closing it closes `items`."""
    try:
        with ThreadPoolExecutor(1) as other:
            coming = other.submit(next, items, _END)
            while (item := coming.result()) is not _END:
                coming = other.submit(next, items, _END)
                yield cast(T, item)
    finally:
        items.close()


def read(info: VideoInfo, timeline: Timeline, monitor: Monitor) -> Iterator[tuple[int, Frame]]:
    """The frames of the result in order, each with its place in the video; a copy each, to be painted on."""
    shown, source = None, -1
    with FrameReader(info, timeline.segments()) as reader:
        frames = iter(reader)
        for wanted in timeline.indices.tolist():
            with monitor.timed("read"):
                if wanted != source:
                    shown, source = next(frames, None), wanted
                if shown is None:
                    raise InputError(
                        "{file} gave no frame {wanted} when it was read again: is it damaged?",
                        file=info.path.name,
                        wanted=wanted,
                    )
                frame = shown.copy()
            yield wanted, frame


def crop(frames: Iterator[tuple[int, Frame]], speakers: list[Speaker], monitor: Monitor) -> Iterator[Batch]:
    """Batches of frames with the crops of those mouths that are to move."""
    try:
        batch = Batch(0)
        for out, (source, frame) in enumerate(frames):
            with monitor.timed("crop"):
                for speaker in speakers:
                    if speaker.first <= out < speaker.stop and speaker.track.has(source):
                        batch.mouths.append(speaker.mouth(frame, len(batch.frames), source, out - speaker.first))
                batch.frames.append(frame)
            size = int(np.clip(BATCH_BYTES // frame.nbytes, 4, BATCH))
            if len(batch.frames) >= size or len(batch.mouths) >= BATCH:
                yield batch
                batch = Batch(out + 1)
        if batch.frames:
            yield batch
    finally:
        frames.close()


def uncover(batches: Iterator[Batch], covers: Covers | None, monitor: Monitor) -> Iterator[Batch]:
    """The same batches; what lies before a mouth is known, and mouths that it hides are not to be made."""
    try:
        for batch in batches:
            if covers is not None and batch.mouths:
                with monitor.timed("occlusion"):
                    _uncover(batch, covers)
            yield batch
    finally:
        batches.close()


def _uncover(batch: Batch, covers: Covers) -> None:
    """Ask of the mouths of one batch whose part wants it."""
    asked = [m for m in batch.mouths if m.face is not None]
    if not asked:
        return
    where = [Place(m.track, batch.first + m.at, m.alignment, m.mask, m.seen_by) for m in asked]
    for mouth, found in zip(asked, covers(np.stack([m.face for m in asked]), where), strict=True):
        mouth.cover = found
        if found is not None:
            (batch.hidden if hides(found) else batch.covered).add(mouth.at)
    batch.mouths = [m for m in batch.mouths if m.cover is None or not hides(m.cover)]


def generate(batches: Iterator[Batch], model: LipSyncModel, monitor: Monitor) -> Iterator[Batch]:
    """The same batches, a new picture made for each mouth."""
    try:
        for batch in batches:
            with monitor.timed("generate"):
                if batch.mouths:
                    for mouth, picture in zip(batch.mouths, _pictures(batch.mouths, model), strict=True):
                        mouth.made = picture
            yield batch
    finally:
        batches.close()


def network_inputs(mouths: list[Mouth]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops, references and windows, stacked, as `LipSyncModel.generate` takes them."""
    return (
        np.stack([m.crop for m in mouths]),
        np.stack([m.reference for m in mouths]),
        np.stack([m.window for m in mouths]),
    )


def _pictures(mouths: list[Mouth], model: LipSyncModel) -> np.ndarray:
    """What the network makes, (B, S, S, 3) uint8 RGB, opened as far as each mouth is to be."""
    found = np.array([m.fitting is not None for m in mouths])
    _find([m for m in mouths if m.fitting is not None], model)
    inputs = network_inputs(mouths)
    made = np.empty_like(inputs[0])
    for chosen, make in ((found, model.refit), (~found, model.generate)):
        if chosen.any():
            made[chosen] = make(*(each[chosen] for each in inputs))
    wide = np.array([m.opening != 1 for m in mouths]) & ~found
    if wide.any():
        crops, references, _ = (each[wide] for each in inputs)
        rest = model.generate(crops, references, model.silent_windows(len(crops)))
        made[wide] = widened(made[wide], rest, np.array([m.opening for m in mouths])[wide])
    return made


def _find(mouths: list[Mouth], model: LipSyncModel) -> None:
    """Give mouths references that show what the sound does to them: from four by role, lips and teeth are mixed to a
    blur. What it does is asked of those that have the references by role; between them it is taken to be between."""
    for track in dict.fromkeys(m.track for m in mouths):
        own = [m for m in mouths if m.track == track]
        asked = [m for m in own if m.reference is not None]
        if asked:
            moved = model.response(*network_inputs(asked))
        else:  # the ones that were have something before them: at rest, for a frame
            asked, moved = own[:1], np.zeros((1, 3, THUMB[0] * THUMB[1]), np.float32)
        at = np.interp([m.spoken for m in own], [m.spoken for m in asked], np.arange(len(asked)))
        before = at.astype(int)
        after = np.minimum(before + 1, len(asked) - 1)
        between = moved[before] + (at - before)[:, None, None] * (moved[after] - moved[before])
        for mouth, each in zip(own, between, strict=True):
            mouth.reference = mouth.fitting(mouth.opening * each)


def blend(
    batches: Iterator[Batch],
    how: str,
    stamp: Stamp | None,
    mark: Watermark | None,
    shots: list[int],
    monitor: Monitor,
) -> Iterator[Batch]:
    """The same batches, the new mouths in their frames, stamped and watermarked.

    how    the model's way (models.base.BLENDS); shots: the shot of each frame of the result
    """
    try:
        for batch in batches:
            with monitor.timed("paste"):
                for mouth in batch.mouths:
                    blend_one(batch.frames[mouth.at], mouth, how, monitor)
                for number, frame in enumerate(batch.frames, batch.first):
                    if stamp is not None:
                        stamp.apply(frame)
                    if mark is not None:
                        mark.apply(frame, shots[number])
            yield batch
    finally:
        batches.close()


def blend_one(frame: Frame, mouth: Mouth, how: str, monitor: Monitor) -> None:
    """Put one made mouth into its frame, behind what covers it."""
    bare = mouth.mask if mouth.cover is None else mouth.mask * (1 - mouth.cover)
    if how == "poisson":
        paste_poisson(frame, mouth.alignment, mouth.made, bare)
        return
    made, detail = mouth.made, None
    if how == "mask":
        made = match_colour(natural_red(made, mouth.reference, mouth.mask), mouth.crop, mouth.mask)
    if mouth.detail is not None:
        with monitor.timed("detail"):
            made, detail = mouth.detail(made, mouth.crop, mouth.mask, frame, mouth.box, mouth.source)
    paste(frame, mouth.alignment, made, bare, detail)


def write(
    batches: Iterable[Batch],
    writer: VideoWriter,
    sound: Iterator[np.ndarray],
    total: int,
    fps: float,
    monitor: Monitor,
) -> np.ndarray:
    """Encode the frames, the sound just ahead of the picture; returns (3, total) bool: in which a mouth was made, in
    which something lies before a face, and in which it hides a mouth."""
    marks, sounded, done, piece = np.zeros((3, total), bool), 0, 0, None
    for batch in batches:
        with monitor.timed("encode"):
            for frame in batch.frames:
                writer.write(frame)
                done += 1
                monitor.step("sync", done, total)
                while sounded < done / fps * SOUND_RATE and (piece := next(sound, None)) is not None:
                    writer.write_sound(piece)
                    sounded += len(piece)
        for mark, at in zip(marks, ({m.at for m in batch.mouths}, batch.covered, batch.hidden), strict=True):
            mark[[batch.first + k for k in at]] = True
    with monitor.timed("encode"):
        for piece in sound:
            writer.write_sound(piece)
    return marks
