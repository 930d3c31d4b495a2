"""One video, or a video beside its reference: motion, image and identity measures of its main face, streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lipsync import audio
from lipsync.crop import CropRule, cut
from lipsync.faces.selection import choose
from lipsync.faces.tracking import FaceMap, Track
from lipsync.media.reader import FrameReader, SoundReader, VideoInfo, probe
from lipsync.pipeline import find
from lipsync.progress import Monitor

from .landmarks import lips_of
from .metrics import identity, image, motion
from .metrics.base import MeasureError

FAMILIES = {"motion": motion.MEASURES, "image": image.MEASURES, "identity": identity.MEASURES}
BATCH = 50  # frames compared at once
RULE, SIZE_PX = CropRule(), 96


def names(families: list[str]) -> list[str]:
    """The values that these families give, in order."""
    return [measure.name for family in families for measure in FAMILIES[family]]


def compared(path: Path, reference: Path | None, families: list[str],
             monitor: Monitor | None = None) -> tuple[dict[str, float | None], list[str]]:  # fmt: skip
    """Every value of some families, None where it cannot be had, and sentences that say why.

    reference  the video that `path` should look like, frame by frame: its face boxes are used for both
    Raises InputError, MeasureError (no face, another size or rate than the reference), Cancelled.
    """
    monitor = monitor or Monitor()
    values: dict[str, float | None] = dict.fromkeys(names(families))
    remarks: list[str] = []
    info = probe(path)
    faces = _found(path, monitor)
    track = _main(faces, path)
    other = None
    if reference is not None:
        other = _beside(info, reference, monitor)
        track = _same(faces, other[1]) or track
    if "motion" in families:
        values |= _motion(info, faces, track, other, monitor)
    if "image" in families or "identity" in families:
        if other is None:
            remarks.append("Image and identity measures compare with a reference: give one with --reference.")
        else:
            embed = identity.embedder() if "identity" in families else None
            found, before, after = _pictures(info, other[0], other[1], embed, monitor)
            if "image" in families:
                values |= found
            if "identity" in families:
                values |= identity.evaluate(before, after)
                remarks += [] if embed else [identity.REASON]
    return values, remarks


def _found(path: Path, monitor: Monitor) -> FaceMap:
    """The faces of a video, which may be stopped while they are looked for."""
    return find(path, progress=lambda p: monitor.step(f"faces of {path.name}", p.done, p.total))


def _told(frames: Iterable[np.ndarray], stage: str, total: int, monitor: Monitor) -> Iterator[np.ndarray]:
    """The same frames; each is a step of the work, at which it may be stopped."""
    for done, frame in enumerate(frames, 1):
        monitor.step(stage, min(done, total), total)
        yield frame


def _main(faces: FaceMap, path: Path) -> Track:
    """The track with the most picture over time."""
    if not faces.tracks:
        raise MeasureError(f"{path.name} shows no face.")
    return max(choose(faces, "largest", None, faces.fps), key=lambda t: len(t.boxes) * t.size_px**2)


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


def _beside(info: VideoInfo, reference: Path, monitor: Monitor) -> tuple[VideoInfo, Track, FaceMap]:
    """The reference, found to be comparable frame by frame."""
    other = probe(reference)
    if (other.width, other.height) != (info.width, info.height) or other.fps != info.fps:
        raise MeasureError(
            f"{info.path.name} ({info.width} × {info.height}, {float(info.fps):.5g} frames a second) cannot be laid "
            f"over {reference.name} ({other.width} × {other.height}, {float(other.fps):.5g}): both must be the same."
        )
    faces = _found(reference, monitor)
    return other, _main(faces, reference), faces


def _motion(info: VideoInfo, faces: FaceMap, track: Track, other: tuple[VideoInfo, Track, FaceMap] | None,
            monitor: Monitor) -> dict:  # fmt: skip
    with FrameReader(info) as reader:
        lips = lips_of(_told(reader, "lips", info.frames, monitor), faces, track.number)
    speech = None
    if info.has_audio:
        with SoundReader(info.path, audio.SAMPLE_RATE, channels=1) as sound:
            levels = np.concatenate([audio.levels_db(chunk[:, 0]) for chunk in sound])
        speech = audio.loud_by_levels(levels, info.fps, faces.frames)[lips.start :][: len(lips.lips)]
    if other is None:
        return motion.evaluate(lips.lips, lips.boxes, speech, info.fps)
    with FrameReader(other[0]) as reader:
        truth = lips_of(_told(reader, "lips of reference", other[0].frames, monitor), other[2], other[1].number)
    start, stop = max(lips.start, truth.start), min(lips.start + len(lips.lips), truth.start + len(truth.lips))
    if stop <= start:
        raise MeasureError(f"The faces of {info.path.name} and {other[0].path.name} are never seen at the same time.")
    a, b = slice(start - lips.start, stop - lips.start), slice(start - truth.start, stop - truth.start)
    speech = None if speech is None else speech[a]
    return motion.evaluate(lips.lips[a], lips.boxes[a], speech, info.fps, truth.lips[b], truth.boxes[b])


def _pictures(
    info: VideoInfo, other: VideoInfo, track: Track, embed, monitor: Monitor
) -> tuple[dict, np.ndarray | None, np.ndarray | None]:
    """Image measures over the frames that both have and in which the reference's face is seen."""
    sums, before, after = image.ImageSums(), [], []
    ours: list[np.ndarray] = []
    theirs: list[np.ndarray] = []

    def add() -> None:
        if ours:
            a, b = np.stack(theirs), np.stack(ours)
            sums.add(a, b)
            if embed is not None:
                before.append(embed(a))
                after.append(embed(b))
            ours.clear()
            theirs.clear()

    with FrameReader(info) as frames, FrameReader(other) as references:
        for index, (frame, truth) in enumerate(
            zip(_told(frames, "pictures", info.frames, monitor), references, strict=False)
        ):
            if not track.has(index):
                continue
            region = RULE.region(track.boxes[index - track.start])
            ours.append(cut(frame, region, SIZE_PX))
            theirs.append(cut(truth, region, SIZE_PX))
            if len(ours) == BATCH:
                add()
    add()
    if not sums.frames:
        raise MeasureError(f"{info.path.name} and {other.path.name} share no frame with a face.")
    if embed is None:
        return sums.result(), None, None
    return sums.result(), np.concatenate(before), np.concatenate(after)
