"""The whole job: read -> track -> crop -> generate -> paste -> write.

Two passes over the video, neither of which ever holds it: the first finds the faces, the second (render.py) makes the
mouths. Differences from the published inference (protocol.md section 3): steady boxes instead of a moving mean, a soft
jaw-shaped mask instead of a rectangle, a reference picture at rest instead of the frame itself, rest in silence.
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from .audio import is_silent
from .errors import InputError, NoFaceError
from .faces.selection import choose, speakers
from .faces.tracking import FaceMap, Track, find_faces, runs
from .files import cache_warnings, refuse_overwriting, through_links
from .label import manifest as label
from .label.keys import Hand, hand
from .media.reader import Frame, FrameReader, VideoInfo, VideoWriter, ahead, probe, read_sound, sound_notes
from .media.timeline import plan
from .models.base import open_model
from .progress import Monitor
from .records import Options, Progress, Report
from .render import Job, render

Voice = str | os.PathLike | Mapping[int, str | os.PathLike]


def sync(
    video: str | os.PathLike,
    voice: Voice,
    out: str | os.PathLike,
    options: Options | None = None,
    *,
    faces: FaceMap | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Report:
    """Make the mouth of a video follow a voice; write a labelled H.264 + AAC file.

    video     any video or still image that PyAV reads
    voice     any file with sound, or {track number: file} to give several faces a voice each
    out       the MP4 to write, NAME.mp4; nothing is left there if the work fails or is stopped
    faces     the FaceMap of this very video, where it was found before (saves the first pass)
    progress  called with a Progress about ten times a second; cancelled: asked as often whether to stop

    Raises InputError (a file or option), NoFaceError, ModelError, EngineError, LabelError, Cancelled.
    """
    began = time.perf_counter()
    options = options or Options()
    out = Path(out)
    monitor = Monitor(progress, cancelled)
    monitor.step("load", 0, 1)
    with monitor.timed("load"):
        info = _need_video(video)
        voices = _need_voices(voice)
        target = _check_target(out, [Path(video), *voices.values()])
        _check_signing()
        warnings, waveforms = list(info.notes), {}
        for key, path in voices.items():
            waveforms[key], notes = read_sound(path, track=options.track)
            warnings += [f"{path.name}: {note}" for note in notes]
        warnings += _voice_warnings(voices, waveforms)
        seconds = max(len(w) for w in waveforms.values()) / 16_000
        if info.is_still and options.end is not None:  # a picture has no end of its own: the voice's is meant
            seconds, options = min(seconds, options.end), replace(options, end=None)
        model = open_model(options.model, options.engine)
        warnings += cache_warnings()
    if faces is None:
        timeline = plan(max(info.frames, 1), info.fps, seconds, options)
        needed = info.frames if timeline.first else min(int(timeline.indices.max()) + 1, info.frames)
        faces = _find(info, needed, options, monitor)
    if not faces.tracks:
        raise NoFaceError(
            f"No face was found in any of the {faces.frames} frames of {info.path.name}. If it lies on its side or "
            f"upside down, turn it first."
        )
    warnings += faces.notes
    timeline = plan(faces.frames, info.fps, seconds, options)
    own_is_heard = options.background or timeline.first or timeline.stop < len(timeline.indices)
    if info.has_audio and own_is_heard:
        warnings += [f"{info.path.name}: {note}" for note in sound_notes(info.path)]
    chosen = choose(faces, options.face, None if None in voices else list(voices), info.fps)
    mels = {k: model.hear(waveforms.pop(k)) for k in list(waveforms)}  # the waveforms are the largest thing in memory
    lent = None if None in voices else speakers(faces, list(voices))
    heard = {t.number: mels[None if lent is None else lent[t.number]] for t in chosen}
    if options.face not in ("largest", "all") or lent is not None:
        warnings += _other_shots(faces, chosen)

    with tempfile.TemporaryDirectory(prefix=".lipsync-", dir=target.parent) as folder:
        plain, signed = Path(folder, out.name), Path(folder, f"signed{out.suffix}")  # an error names the file made
        boxes = np.concatenate([t.boxes for t in faces.tracks])
        job = Job(info, tuple(voices.values()), options, model, tuple(chosen), heard, timeline, boxes, faces.shots)
        synced = render(job, plain, monitor)
        monitor.step("label", 0, 1)
        with monitor.timed("label"):
            label.sign(
                plain,
                signed,
                source=info.path,
                voices=list(voices.values()),
                model=options.model,
                checkpoint_sha256=model.sha256,
            )
            signed.replace(target)
        monitor.step("label", 1, 1)
    missed = ~synced
    missed[: timeline.first] = missed[timeline.stop :] = False
    if not synced.any():
        warnings.append("The chosen face is not in the part that has the voice: no mouth was changed.")
    if info.width % 2 or info.height % 2:
        warnings.append(
            f"{info.width} × {info.height} is odd, which H.264 cannot hold: the last row or column is repeated once."
        )
    return Report(
        out=str(out),
        frames=len(timeline.indices),
        fps=float(info.fps),
        frames_synced=int(synced.sum()),
        frames_passed=int((~synced).sum()),
        passed_ranges=runs(~synced),
        faces=len(faces.tracks),
        shots=len(faces.shots),
        width=info.width + info.width % 2,
        height=info.height + info.height % 2,
        seconds={k: round(v, 3) for k, v in monitor.seconds.items()},
        total_seconds=round(time.perf_counter() - began, 3),
        peak_rss_mb=round(monitor.peak_rss_mb, 1),
        model=options.model,
        checkpoint_sha256=model.sha256,
        engine=model.engine,
        label="visible stamp, " * options.visible_label + "watermark, " * options.watermark + "signature",
        warnings=warnings,
        missed_ranges=runs(missed),
        frames_bridged=int((synced & _bridged(chosen, faces.frames)[timeline.indices]).sum()),
    )


def _bridged(chosen: list[Track], frames: int) -> np.ndarray:
    """(frames,) bool, the frames of the video in which a chosen face is interpolated, not found."""
    flags = np.zeros(frames, bool)
    for track in chosen:
        if track.bridged is not None:
            flags[track.start : track.stop] |= track.bridged
    return flags


def find(
    video: str | os.PathLike,
    options: Options | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> FaceMap:
    """The first pass alone: shots and face tracks of a whole video, to be shown, chosen from, and given to `sync`."""
    info = _need_video(video)
    return _find(info, info.frames, options or Options(), Monitor(progress, cancelled))


def _find(info: VideoInfo, needed: int, options: Options, monitor: Monitor) -> FaceMap:
    """Track faces over the first `needed` frames."""
    whole = needed >= info.frames and not info.is_still
    with monitor.timed("faces"), FrameReader(info, None if whole else [(0, max(needed, 1))]) as reader:
        total = max(needed, 1)
        most = 2 * total + 60 * info.fps  # a promise may be wrong, but what was not promised was not agreed to either

        def step(count: int) -> None:
            if count > most:
                raise InputError(
                    f"{info.path.name} says that it has {info.frames} frames, and goes on after {count}: its times are "
                    f"damaged. Code it again first."
                )
            monitor.step("faces", min(count, total), total)

        found = find_faces(ahead(reader), info.fps, options.detector, step, options.smoothing, not info.is_still)
    if not found.frames:
        raise InputError(f"No frame of {info.path.name} could be read: the file is damaged or cut short.")
    notes = reader.notes
    if reader.missing:
        notes += (f"The file promises {info.frames} frames, but only {found.frames} could be read.",)
    return replace(found, notes=notes)


def _need_video(video: str | os.PathLike) -> VideoInfo:
    if video is None:
        raise InputError("No video was given: name a video or an image.")
    info = probe(video)
    if not info.has_video:
        raise InputError(f"{info.path.name} holds no picture: a video or an image is needed.")
    return info


def _need_voices(voice: Voice) -> dict[int | None, Path]:
    """Track number -> file; the one voice of all under None."""
    files = dict(voice) if isinstance(voice, Mapping) else {None: voice}
    if not files or any(file is None for file in files.values()):
        raise InputError("No voice was given: name one file, or one for each face.")
    return {number: Path(file) for number, file in files.items()}


def _check_target(out: Path, sources: list[Path]) -> Path:
    """Where the result is written: `out` itself, or what it is a link to."""
    target = through_links(out)
    if not target.parent.is_dir():
        raise InputError(f"The result cannot be written to {out}: there is no folder {target.parent}.")
    if out.is_dir():
        raise InputError(f"The result cannot be written to {out}: that is a folder.")
    if out.suffix.lower() != ".mp4":
        raise InputError(f"The result is an MP4, which {out} does not say: give it a name that ends in .mp4.")
    refuse_overwriting([("result", out)], sources)
    try:
        tempfile.TemporaryDirectory(prefix=".lipsync-", dir=target.parent).cleanup()
    except OSError as error:
        raise InputError(f"The result cannot be written to {out}: {error.strerror}.") from error
    return target


def _check_signing() -> None:
    """Raise LabelError where the result could not be signed: keys, certificates, the clock, a timestamp authority."""
    _signs(hand())


@functools.cache
def _signs(_: Hand) -> None:
    """Sign a film of one frame, once a process for each hand that signs."""
    with tempfile.TemporaryDirectory(prefix="lipsync-") as folder:
        plain, signed = Path(folder, "plain.mp4"), Path(folder, "signed.mp4")
        with VideoWriter(plain, 16, 16, Fraction(25)) as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8))
        label.sign(plain, signed, model="none", checkpoint_sha256="")


def _other_shots(faces: FaceMap, chosen: list[Track]) -> list[str]:
    """A sentence where a face was chosen by number or place, which hold for one shot, and others show faces too."""
    mine = sorted({t.shot for t in chosen})
    if mine == sorted({t.shot for t in faces.tracks}):
        return []
    spans = [f"{float(a / faces.fps):.2f} to {float(b / faces.fps):.2f} s" for a, b in (faces.shots[n] for n in mine)]
    return [
        f"Who was chosen speaks from {', '.join(spans)}: a cut ends that shot, and after it a face has a new number."
    ]


def _voice_warnings(voices: Mapping[int | None, Path], waveforms: Mapping[int | None, np.ndarray]) -> list[str]:
    """Sentences on silent voices. Raises InputError where there is no sound at all."""
    said = []
    for key, waveform in waveforms.items():
        if not len(waveform):
            raise InputError(f"{voices[key].name} holds no sound: a voice is needed.")
        if is_silent(waveform):
            said.append(f"The voice {voices[key].name} is silent, so the mouth rests.")
    return said


def preview(info: VideoInfo, second: float, faces: FaceMap) -> Frame:
    """One frame of a video with its faces framed and numbered, (H, W, 3) uint8 RGB.

    second  clipped to the video's length; numbers are those that `Options.face` and `{number: voice}` take
    """
    if not math.isfinite(second):
        raise InputError(f"A preview shows one second of the video, like 1.5, not {second}.")
    index = int(np.clip(round(second * info.fps), 0, faces.frames - 1))
    with FrameReader(info, [(index, index + 1)]) as reader:
        frame = next(iter(reader), None)
    if frame is None:
        raise InputError(f"Frame {index} of {info.path.name} could not be read.")
    frame = frame.copy()
    line = max(min(frame.shape[:2]) // 160, 1)
    for track in faces.tracks:
        if track.has(index):
            x0, y0, x1, y1 = np.round(track.boxes[index - track.start]).astype(int).tolist()
            cv2.rectangle(frame, (x0, y0), (x1, y1), (255, 196, 0), line, cv2.LINE_AA)
            size = max((y1 - y0) / 120, 0.4)
            cv2.putText(frame, str(track.number), (x0 + 4 * line, y0 + int(24 * size)), cv2.FONT_HERSHEY_SIMPLEX, size,
                        (255, 196, 0), max(int(2 * size), 1), cv2.LINE_AA)  # fmt: skip
    return frame
