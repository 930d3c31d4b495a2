"""Score clips: a file in, a ScoreRow out; whatever is wrong with the file is the row's reason, never a crash.

Two passes over the video at 25 frames a second, neither of which holds it: the first finds the faces (none for `lrs`),
the second cuts the evaluator's crops and embeds them while they pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lipsync.checkpoints.download import file_sha256
from lipsync.errors import Cancelled
from lipsync.media.reader import FrameReader
from lipsync.messages import Message
from lipsync.progress import Monitor

from .clips import MainFace, at_25, find_tracks, lacks, too_short
from .crops import track_crops, whole
from .inputs import Item
from .metrics import sync
from .metrics.base import MeasureError, reason
from .protocols import FRAMES, SAMPLES, SILENT, Protocol, windows
from .reference import compared, names
from .results import CsvRows, ScoreRow
from .syncnet import BATCH, Evaluator, audio_features, planes, sound_windows
from .tracks import FaceTrack


@dataclass(frozen=True)
class ClipSync:
    """What the evaluator found in a clip: one SyncScore a track, the deciding one first."""

    scores: list[sync.SyncScore]
    tracks: list[FaceTrack]
    frames: int
    remarks: list[str] = field(default_factory=list)

    @property
    def coverage(self) -> float:
        """Share of the clip's frames that lie in a scored track."""
        inside = np.zeros(max(self.frames, 1), bool)
        for track in self.tracks:
            inside[track.first : track.stop] = True
        return float(inside.mean())


def score_clip(
    item: Item,
    evaluator: Evaluator,
    protocol: Protocol,
    families: Sequence[str] = (),
    detector: str | None = None,
    monitor: Monitor | None = None,
    known: CsvRows | None = None,
) -> ScoreRow:
    """One whole row of one clip: sync, and beside it the measures of some families (reference.FAMILIES).

    item      the clip, its reference, and what the row is named by (set, pair, system, identity)
    detector  default: the evaluator's own
    known     rows that are kept: a clip that is in them by content and settings is not scored again, a new row is added
    returns   a row; what could not be measured is None with a reason in `error` or `remarks`
    Raises Cancelled alone.
    """
    named = {
        "identity": item.identity,
        "system": item.system,
        "pair": item.pair,
        "set": item.set,
        "reference": str(item.reference or ""),
        "reference_sha256": _sha256(item.reference) if families else "",
    }
    values: dict = dict.fromkeys(names(families))
    if known is not None:
        wanted = replace(unscored(item.path, evaluator, protocol, detector), **named, values=values)
        row = known.known.get(replace(wanted, file_sha256=_sha256(item.path)).key())
        if row is not None:
            return replace(row, **named)
    row = replace(score_file(item.path, evaluator, protocol, detector, monitor), **named, values=values)
    if families:
        remarks = list(row.remarks)
        try:
            values, said = compared(item.path, item.reference, families, monitor)
            remarks += said
        except Cancelled:
            raise
        except Exception as error:  # the sync of this clip is known, and others are to come
            remarks.append(reason(error))
        row = replace(row, values=values, remarks=remarks)
    if known is not None:
        known.add(row)
    return row


def _sha256(path: Path | None) -> str:
    try:
        return file_sha256(path) if path is not None and path.is_file() else ""
    except OSError:  # what is wrong with it is said where it is read
        return ""


def score_file(
    path: str | Path,
    evaluator: Evaluator,
    protocol: Protocol,
    detector: str | None = None,
    monitor: Monitor | None = None,
    sound: str | Path | None = None,
) -> ScoreRow:
    """Score one video's sync; a video that cannot be scored gives a row whose `error` says why. Raises Cancelled.

    sound  a file whose sound is heard in place of the video's own, from its beginning
    """
    path = Path(path)
    detector = detector or evaluator.detector
    empty = unscored(path, evaluator, protocol, detector)
    try:
        empty = replace(empty, file_sha256=file_sha256(path) if path.is_file() else "")
        found = clip_sync(path, evaluator, protocol, detector, monitor, sound)
    except Cancelled:
        raise
    except Exception as error:  # whatever it is, the other clips of a folder are scored
        return replace(empty, error=reason(error))
    best, remarks = found.scores[0], list(found.remarks)
    if not best.sure:
        why = sync.doubt(best.certainty, protocol.shifts)
        remarks.append(Message("The evaluator cannot tell the offset: {why}", why=why))
    return replace(
        empty,
        offset=best.offset if best.sure else None,
        lse_d=float(np.mean([s.lse_d for s in found.scores])),
        lse_c=float(np.mean([s.lse_c for s in found.scores])),
        certainty=best.certainty,
        coverage=found.coverage,
        frames=found.frames,
        tracks=len(found.tracks),
        curve=[round(float(v), 5) for v in best.curve],
        confidence=[round(float(np.mean(best.confidence[k : k + 25])), 5) for k in range(0, len(best.confidence), 25)],
        per_track=[_of_track(t, s) for t, s in zip(found.tracks, found.scores, strict=True)],
        remarks=remarks,
    )


def unscored(path: Path, evaluator: Evaluator, protocol: Protocol, detector: str | None = None) -> ScoreRow:
    """The row of a clip before anything is known of it but what would make its numbers."""
    detector = detector or evaluator.detector
    return ScoreRow(
        file=str(path),
        evaluator=evaluator.name,
        evaluator_sha256=evaluator.sha256,
        protocol=protocol.name,
        shifts=protocol.shifts,
        protocol_hash=protocol.sha(detector, evaluator),
        detector=protocol.detector(detector),
        fast=evaluator.fast,
        engine=evaluator.engine,
    )


def _of_track(track: FaceTrack, score: sync.SyncScore) -> dict:
    return {
        "first": track.first,
        "frames": len(track.boxes),
        "offset": score.offset if score.sure else None,
        "lse_d": score.lse_d,
        "lse_c": score.lse_c,
    }


def clip_sync(
    path: Path,
    evaluator: Evaluator,
    protocol: Protocol,
    detector: str = "mediapipe",
    monitor: Monitor | None = None,
    sound: str | Path | None = None,
) -> ClipSync:
    """The sync of each face track of a video. Raises InputError or MeasureError with the reason; Cancelled."""
    monitor = monitor or Monitor()
    info, remarks = at_25(path, protocol, sound is not None)
    mfcc, samples, peak = audio_features(sound or path, remarks)
    if peak < SILENT:
        raise MeasureError("{file} is silent: there is no sound to compare the mouth with.", file=path.name)
    if protocol.faces == "whole":
        tracks, frames = None, info.frames
    else:
        tracks, frames = find_tracks(info, protocol, detector, monitor)
    firsts = [0] if tracks is None else [t.first for t in tracks]
    scorers = [_Scorer(evaluator, mfcc, samples, first, protocol) for first in firsts]
    found: dict[int, sync.SyncScore | MeasureError] = {}
    with FrameReader(info) as reader:
        if tracks is None:
            crops: Iterable = ((0, whole(frame, evaluator.size_px)) for frame in reader)
        else:
            crops = track_crops(reader, tracks, evaluator.size_px)
        for done, (k, crop) in enumerate(crops):
            scorers[k].add(crop)
            if tracks is not None and scorers[k].frames == len(tracks[k].boxes):  # what it holds is needed no more
                found[k] = scorers[k].finished()
            monitor.step("sync", done + 1, max(frames * len(scorers), done + 1))
    remarks += lacks(reader, info)
    if tracks is None:
        frames = scorers[0].frames
        if frames < protocol.min_frames:
            raise MeasureError(too_short(path, frames, protocol))
        tracks = [FaceTrack(0, np.zeros((frames, 4)), np.zeros((3, frames)))]
    scores, kept, lost = [], [], None
    for k, (track, scorer) in enumerate(zip(tracks, scorers, strict=True)):
        score = found.get(k) or scorer.finished()
        if isinstance(score, MeasureError):
            lost = score
        else:
            scores.append(score)
            kept.append(track)
    if not scores:
        raise MeasureError("{file}: {lost}", file=path.name, lost=lost)
    if lost:
        remarks.append(
            Message(
                "{n} of {tracks} face tracks have no score: {lost}",
                n=len(tracks) - len(kept),
                tracks=len(tracks),
                lost=lost,
            )
        )
    return ClipSync(scores, kept, frames, remarks)


def embeddings(face: MainFace, evaluator: Evaluator) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of picture and sound of all its windows, (N, 1024) each. Raises MeasureError where there are none."""
    count = windows(len(face.crops), face.frames_heard)
    if not count:
        raise MeasureError(
            "{frames} frames with a face and {heard} with sound give no window.",
            frames=len(face.crops),
            heard=face.frames_heard,
        )
    crops = np.stack([planes(crop) for crop in face.crops[: count + FRAMES - 1]])
    return evaluator.faces(crops), evaluator.sound(sound_windows(face.mfcc, range(count)))


class _Scorer:
    """Crops of one track in, in order; its SyncScore out. Holds one batch of crops and the distances."""

    def __init__(self, evaluator: Evaluator, mfcc: np.ndarray, samples: int, first: int, protocol: Protocol) -> None:
        self._evaluator, self._protocol = evaluator, protocol
        self._mfcc = mfcc[4 * first :]
        self._heard = samples // SAMPLES - first  # frames that have sound
        self.frames = 0
        self._crops: list[np.ndarray] = []  # planes of the last four, and of a batch's own
        self._waiting: list[np.ndarray] = []  # embedded windows whose sound may not be complete
        self._begun = 0  # first of the waiting windows
        self._sound, self._sound_first = np.zeros((0, 1024), np.float32), 0
        self._rows: list[np.ndarray] = []
        self._broken: MeasureError | None = None

    def add(self, crop: np.ndarray | MeasureError) -> None:
        """The next crop, or why there is none; then the track has no score."""
        self.frames += 1
        if isinstance(crop, MeasureError):
            self._broken = crop
        if self._broken or self.frames >= self._heard:  # no window that counts reaches here: its sound is over
            return
        self._crops.append(planes(crop))
        if len(self._crops) == BATCH + FRAMES - 1:
            self._embed()
            self._compare(self.frames - FRAMES - self._protocol.shifts, self._windows())

    def finished(self) -> sync.SyncScore | MeasureError:
        """The score, or why there is none; afterwards nothing is held."""
        try:
            return self.finish()
        except MeasureError as error:
            return error
        finally:
            self._crops, self._waiting, self._rows = [], [], []
            self._sound = self._sound[:0]

    def finish(self) -> sync.SyncScore:
        """The score. Raises MeasureError where there are too few windows, or one of its crops could not be cut."""
        if self._broken:
            raise self._broken
        if len(self._crops) >= FRAMES:
            self._embed()
        count, fewest = self._windows(), sync.fewest_windows(self._protocol.shifts, self._protocol.padded)
        if count < fewest:
            raise MeasureError(
                "{frames} frames with a face and {heard} with sound give {count} windows; the protocol {protocol} "
                "needs {fewest}.",
                frames=self.frames,
                heard=max(self._heard, 0),
                count=count,
                protocol=self._protocol.name,
                fewest=fewest,
            )
        self._compare(count, count)
        return sync.score(np.concatenate(self._rows))

    def _windows(self) -> int:
        return windows(self.frames, self._heard)

    def _embed(self) -> None:
        self._waiting.append(self._evaluator.faces(np.stack(self._crops)))
        del self._crops[: 1 - FRAMES]

    def _compare(self, stop: int, known: int) -> None:
        """Distances of the waiting windows below `stop`, of which so many are known to exist."""
        if stop <= self._begun or not self._waiting:
            return
        video, shifts = np.concatenate(self._waiting), self._protocol.shifts
        count = min(stop - self._begun, len(video))
        first, end = max(self._begun - shifts, 0), max(min(self._begun + count + shifts, known), 0)
        self._sound = self._sound[max(first - self._sound_first, 0) :]
        self._sound_first = max(self._sound_first, first)
        missing = range(self._sound_first + len(self._sound), end)
        if missing:
            self._sound = np.concatenate([self._sound, self._evaluator.sound(sound_windows(self._mfcc, missing))])
        self._rows.append(
            sync.distance_rows(
                video[:count], self._sound, self._begun, self._sound_first, known, shifts, self._protocol.padded
            )
        )
        self._waiting = [video[count:]] if count < len(video) else []
        self._begun += count
