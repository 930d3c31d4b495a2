"""What is looked at of a clip: its frames at 25 a second, the faces that can be scored, the deciding one's crops."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lipsync.errors import InputError
from lipsync.faces.base import shrink
from lipsync.faces.detectors import DETECTORS, ShotFinder
from lipsync.faces.tracking import FaceMap, find_faces, runs
from lipsync.media.reader import FrameReader, VideoInfo, ahead, probe
from lipsync.messages import Message
from lipsync.progress import Monitor

from .crops import track_crops, whole
from .metrics.base import MeasureError
from .protocols import FPS, SAMPLES, Protocol
from .syncnet import Evaluator, audio_features
from .tracks import MIN_SCENE, FaceTrack, shot_tracks


def at_25(path: Path, protocol: Protocol, other_sound: bool) -> tuple[VideoInfo, list[str]]:
    """What a file is when read at 25 frames a second. Raises InputError or MeasureError where it cannot be scored."""
    info = probe(path)
    if not info.has_video or info.is_still:
        if info.has_video:
            raise InputError("{file} holds a still picture: give a video.", file=path.name)
        raise InputError("{file} holds no picture: give a video.", file=path.name)
    if not info.has_audio and not other_sound:
        raise InputError("{file} holds no sound: sync is between a mouth and its sound.", file=path.name)
    remarks = list(info.notes)
    if info.fps != FPS or info.varies:
        if protocol.faces == "whole":
            rate = Message("{fps:.5g} frames a second", fps=float(info.fps))
            rate = Message("a frame rate that varies") if info.varies else rate
            raise MeasureError(
                "{file} has {rate}; the protocol lrs is for face crops at 25 alone: use real-video or short.",
                file=path.name,
                rate=rate,
            )
        if info.fps != FPS:
            remarks.append(Message("{fps:.5g} frames a second were read as 25.", fps=float(info.fps)))
    elif protocol.faces == "whole" and not 0.8 < info.width / info.height < 1.25:
        remarks.append(
            Message(
                "{width} × {height} is no face crop, for which the protocol lrs is meant.",
                width=info.width,
                height=info.height,
            )
        )
    return replace(info, fps=FPS, frames=max(round(info.duration_s * FPS), 1)), remarks


def too_short(path: Path, frames: int, protocol: Protocol) -> Message:
    return Message(
        "{file} has {frames} frames at 25 a second; the protocol {protocol} needs {fewest}.",
        file=path.name,
        frames=frames,
        protocol=protocol.name,
        fewest=protocol.min_frames,
    )


def find_tracks(info: VideoInfo, protocol: Protocol, detector: str, monitor: Monitor) -> tuple[list[FaceTrack], int]:
    """Face tracks that can be scored, the deciding one (most picture over time) first; frames read."""
    if detector not in DETECTORS:
        raise InputError(
            "There is no face detector named {detector!r}: choose one of {choices}.",
            detector=detector,
            choices=", ".join(DETECTORS),
        )
    step: Callable[[int], None] = lambda n: monitor.step("faces", min(n, info.frames), info.frames)  # noqa: E731
    if protocol.faces == "steady":
        tracks, frames = _steady_tracks(face_map(info, detector, monitor), protocol)
    else:
        with FrameReader(info) as reader:
            tracks, frames = _published_tracks(ahead(reader), detector, step)
    if frames < protocol.min_frames:
        raise MeasureError(too_short(info.path, frames, protocol))
    if not tracks:
        rule = Message("20 frames")
        if protocol.faces == "published":
            rule = Message("more than 100 frames in a shot and more than 100 px")
        raise MeasureError(
            "{file} shows no face for {rule}, which the protocol {protocol} needs.",
            file=info.path.name,
            rule=rule,
            protocol=protocol.name,
        )
    tracks.sort(key=lambda t: (-len(t.boxes) * float(t.crops[0].mean()) ** 2, t.first))
    return tracks if protocol.faces == "published" else tracks[:1], frames


def face_map(info: VideoInfo, detector: str, monitor: Monitor) -> FaceMap:
    """The engine's own face tracks of a video at the rate of `info`, found once for a file: a row asks for them more
    than once, and a reference is asked for by every system."""
    stat = info.path.stat()
    key = (str(info.path.resolve()), stat.st_size, stat.st_mtime_ns, info.fps, info.frames, detector)
    with _FOUND_LOCK:
        if key in _FOUND:
            _FOUND.move_to_end(key)
            return _FOUND[key]
    with FrameReader(info) as reader:
        step = lambda n: monitor.step("faces", min(n, info.frames), info.frames)  # noqa: E731
        faces = find_faces(ahead(reader), info.fps, detector, step)
    without = tuple(replace(t, reference_frames=()) for t in faces.tracks)  # pictures are not needed
    faces = replace(faces, tracks=without)
    with _FOUND_LOCK:
        _FOUND[key] = faces
        while len(_FOUND) > MOST_FOUND:
            _FOUND.popitem(last=False)
    return faces


MOST_FOUND = 64  # videos whose tracks are remembered: a minute of one face is 400 kB
_FOUND: OrderedDict[tuple, FaceMap] = OrderedDict()
_FOUND_LOCK = threading.Lock()


def _steady_tracks(faces: FaceMap, protocol: Protocol) -> tuple[list[FaceTrack], int]:
    """The engine's own tracks, cut where the face was lost."""
    out = []
    for track in faces.tracks:
        for a, b in runs(track.seen):
            if b - a >= protocol.min_frames:
                boxes = track.boxes[a:b].astype(np.float64)
                half = (boxes[:, 3] - boxes[:, 1]) / 2
                out.append(FaceTrack(track.start + a, boxes, np.stack([half, *((boxes[:, :2] + boxes[:, 2:]) / 2).T])))
    return out, faces.frames


def _published_tracks(frames: Iterable[np.ndarray], detector: str, step) -> tuple[list[FaceTrack], int]:
    """The published pipeline's: the detector on every frame, shots, greedy tracks."""
    look, shots = DETECTORS[detector](), ShotFinder(FPS, MIN_SCENE)
    found: list[list[np.ndarray]] = []
    cuts: list[int] = []
    try:
        for index, frame in enumerate(frames):
            if shots.is_cut(index, frame):
                cuts.append(index)
            small = shrink(frame, look.longest_px)
            found.append([hit.box * (frame.shape[1] / small.shape[1]) for hit in look.detect(small)])
            step(index + 1)
    finally:
        look.close()
    return shot_tracks(found, cuts), len(found)


def lacks(reader: FrameReader, info: VideoInfo) -> list[str]:
    """After the last frame: sentences about what the file said it has and could not give."""
    if reader.missing <= 1:  # may be rounding
        return list(reader.notes)
    missing = Message(
        "{missing} of {frames} frames are missing from the file.", missing=reader.missing, frames=info.frames
    )
    return [*reader.notes, missing]


@dataclass(frozen=True)
class MainFace:
    """The crops of a clip's deciding face, and the sound that belongs to them.

    crops  (T, S, S, 3) uint8 RGB; first: the frame of the first, at 25 a second
    mfcc   (K, 13) float32, from that frame on; frames_heard: how many frames have sound
    """

    crops: np.ndarray
    first: int
    mfcc: np.ndarray
    frames_heard: int


def main_face(
    path: Path, evaluator: Evaluator, protocol: Protocol, detector: str | None = None, most: int = 250
) -> MainFace:
    """The deciding face of a clip, its first `most` frames at most. Raises InputError or MeasureError."""
    info, _ = at_25(path, protocol, False)
    mfcc, samples, _ = audio_features(path)
    if protocol.faces == "whole":
        first, stop = 0, most
        tracks = []
    else:
        tracks = find_tracks(info, protocol, detector or evaluator.detector, Monitor())[0][:1]
        first, stop = tracks[0].first, min(tracks[0].stop, tracks[0].first + most)
    with FrameReader(info, [(0, min(stop, info.frames))]) as reader:
        cuts = (
            track_crops(reader, tracks, evaluator.size_px)
            if tracks
            else ((0, whole(f, evaluator.size_px)) for f in reader)
        )
        crops = [crop for _, crop in cuts]
    for crop in crops:
        if isinstance(crop, MeasureError):
            raise crop
    if not crops:
        raise MeasureError("{file} has no frame that could be read.", file=path.name)
    return MainFace(np.stack(crops[:most]), first, mfcc[4 * first :], samples // SAMPLES - first)
