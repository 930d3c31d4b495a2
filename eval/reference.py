"""One video, or a video beside its reference: motion, image and identity measures of its main face, streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import repeat
from pathlib import Path

import numpy as np

from lipsync import audio
from lipsync.faces.selection import main_track
from lipsync.faces.tracking import FaceMap, Track
from lipsync.geometry import CropRule, crop_face
from lipsync.media.reader import FrameReader, SoundReader, VideoInfo, probe
from lipsync.progress import Monitor

from .clips import face_map
from .crops import aligned_face
from .landmarks import LipWatcher
from .metrics import identity, image, motion
from .metrics.base import MeasureError

FAMILIES = {"motion": motion.MEASURES, "image": image.MEASURES, "identity": identity.MEASURES}
BATCH = 50  # frames compared at once
RULE, SIZE_PX = CropRule(), 96
DETECTOR = "mediapipe"


def names(families: list[str]) -> list[str]:
    """The values that these families give, in order."""
    return [measure.name for family in families for measure in FAMILIES[family]]


def compared(
    path: Path, reference: Path | None, families: list[str], monitor: Monitor | None = None
) -> tuple[dict[str, float | None], list[str]]:
    """Every value of some families, None where it cannot be had, and sentences that say why.

    reference  the video that `path` should look like, frame by frame: its face boxes are used for both
    Raises InputError, MeasureError (no face, another size or rate than the reference), Cancelled.
    """
    monitor = monitor or Monitor()
    values: dict[str, float | None] = dict.fromkeys(names(families))
    remarks: list[str] = []
    info = probe(path)
    track, other = _main(face_map(info, DETECTOR, monitor), path), None
    if reference is not None:
        other = _beside(info, reference, monitor)
        track = _same(face_map(info, DETECTOR, monitor), other[1]) or track
    wants_pictures = "image" in families or "identity" in families
    if wants_pictures and other is None:
        remarks.append("Image and identity measures compare with a reference: give one with --reference.")
    lips = "motion" in families
    pictures = _Pictures(other[1], "identity" in families) if wants_pictures and other is not None else None
    if lips or pictures is not None:
        mine, theirs = _watch(info, track, other, lips, pictures, monitor)
        if lips:
            values |= _motion(info, mine, other, theirs)
        if pictures is not None:
            pictures.finish()
            if not pictures.sums.frames:
                raise MeasureError(f"{info.path.name} and {other[0].path.name} share no frame with a face.")
            if "image" in families:
                values |= pictures.sums.result()
            if "identity" in families:
                values |= identity.evaluate(*pictures.embeddings())
                remarks += [] if pictures.embed else [identity.REASON]
    return values, remarks


def _told(frames: Iterable[np.ndarray], stage: str, total: int, monitor: Monitor) -> Iterator[np.ndarray]:
    """The same frames; each is a step of the work, at which it may be stopped."""
    for done, frame in enumerate(frames, 1):
        monitor.step(stage, min(done, total), total)
        yield frame


def _main(faces: FaceMap, path: Path) -> Track:
    """The main face."""
    if not faces.tracks:
        raise MeasureError(f"{path.name} shows no face.")
    return main_track(faces.tracks)


def _same(faces: FaceMap, track: Track) -> Track | None:
    """The face that lies most where a track of the other video lies: of two alike in size, the same person."""

    def shared(mine: Track) -> float:
        start, stop = max(mine.start, track.start), min(mine.stop, track.stop)
        if stop <= start:
            return 0.0
        a, b = mine.boxes[start - mine.start : stop - mine.start], track.boxes[start - track.start : stop - track.start]
        sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
        return float(sides.clip(0).prod(1).sum())

    best = max(faces.tracks, key=shared)
    return best if shared(best) else None


def _beside(info: VideoInfo, reference: Path, monitor: Monitor) -> tuple[VideoInfo, Track]:
    """The reference, found to be comparable frame by frame."""
    other = probe(reference)
    if (other.width, other.height) != (info.width, info.height) or other.fps != info.fps:
        raise MeasureError(
            f"{info.path.name} ({info.width} × {info.height}, {float(info.fps):.5g} frames a second) cannot be laid "
            f"over {reference.name} ({other.width} × {other.height}, {float(other.fps):.5g}): both must be the same."
        )
    return other, _main(face_map(other, DETECTOR, monitor), reference)


def _watch(
    info: VideoInfo,
    track: Track,
    other: tuple[VideoInfo, Track] | None,
    lips: bool,
    pictures: _Pictures | None,
    monitor: Monitor,
) -> tuple[LipWatcher, LipWatcher | None]:
    """One pass over the video, and over its reference beside it, for all measures that look at frames."""
    mine, theirs = LipWatcher(track), LipWatcher(other[1]) if other else None
    try:
        with FrameReader(info) as frames, FrameReader(other[0]) if other else nullcontext(repeat(None)) as references:
            for index, (frame, truth) in enumerate(
                zip(_told(frames, "measures", info.frames, monitor), references, strict=False)
            ):
                if lips:
                    mine.look(index, frame)
                seen = theirs.look(index, truth) if theirs is not None else None
                if pictures is not None:
                    pictures.add(index, frame, truth, seen)
    finally:
        mine.close()
        if theirs is not None:
            theirs.close()
    return mine, theirs


def _motion(
    info: VideoInfo, watched: LipWatcher, other: tuple[VideoInfo, Track] | None, beside: LipWatcher | None
) -> dict:
    lips, speech = watched.result(), None
    if info.has_audio:
        with SoundReader(info.path, audio.SAMPLE_RATE, channels=1) as sound:
            levels = np.concatenate([audio.levels_db(chunk[:, 0]) for chunk in sound])
        speech = audio.loud_by_levels(levels, info.fps, lips.start + len(lips.lips))[lips.start :]
    if other is None or beside is None:
        return motion.evaluate(lips.lips, lips.boxes, speech, info.fps)
    truth = beside.result()
    start, stop = max(lips.start, truth.start), min(lips.start + len(lips.lips), truth.start + len(truth.lips))
    if stop <= start:
        raise MeasureError(f"The faces of {info.path.name} and {other[0].path.name} are never seen at the same time.")
    a, b = slice(start - lips.start, stop - lips.start), slice(start - truth.start, stop - truth.start)
    speech = None if speech is None else speech[a]
    return motion.evaluate(lips.lips[a], lips.boxes[a], speech, info.fps, truth.lips[b], truth.boxes[b])


class _Pictures:
    """Image measures over the frames that both have and in which the reference's face is seen, and embeddings of every
    fifth of them, as `identity.evaluate` wants them; both faces are aligned by the reference's points."""

    def __init__(self, track: Track, with_identity: bool) -> None:
        self._track = track
        self.sums = image.ImageSums()
        self.embed: Callable[[np.ndarray], np.ndarray] | None = identity.embedder() if with_identity else None
        self._ours: list[np.ndarray] = []
        self._theirs: list[np.ndarray] = []
        self._faces: list[tuple[np.ndarray, np.ndarray]] = []  # before, after
        self._embeddings: list[list[np.ndarray]] = []

    def add(self, index: int, frame: np.ndarray, truth: np.ndarray, points: np.ndarray | None) -> None:
        """A frame and the reference's, with the landmarks of the reference's face where it was found."""
        if not self._track.has(index):
            return
        at = index - self._track.start
        if self.embed is not None and points is not None and at % identity.EVERY == 0:
            self._faces.append((aligned_face(truth, points), aligned_face(frame, points)))
        place = RULE.alignment(self._track.boxes[at])
        self._ours.append(crop_face(frame, place, SIZE_PX))
        self._theirs.append(crop_face(truth, place, SIZE_PX))
        if len(self._ours) == BATCH:
            self.finish()

    def finish(self) -> None:
        if self._ours:
            self.sums.add(np.stack(self._theirs), np.stack(self._ours))
            self._ours.clear()
            self._theirs.clear()
        if self._faces and self.embed is not None:
            before, after = (np.stack(pictures) for pictures in zip(*self._faces, strict=True))
            halves = identity.lower_half(before), identity.lower_half(after)
            self._embeddings.append([self.embed(pictures) for pictures in (before, after, *halves)])
            self._faces.clear()

    def embeddings(self) -> list[np.ndarray | None]:
        """Before, after, and the same of the lower halves; None each where there are none."""
        if not self._embeddings:
            return [None] * 4
        return [np.concatenate(parts) for parts in zip(*self._embeddings, strict=True)]
