"""The whole job: track, then read -> crop -> generate -> blend -> write.

Two passes over the video, neither of which ever holds it: the first finds the faces (`find`), the second makes the
mouths (`_render` calls its five steps in order; each is an iterator in render.py). Differences from the published
inference (protocol.md section 3): steady boxes instead of a moving mean, a soft jaw-shaped mask instead of a rectangle,
a reference picture at rest instead of the frame itself, rest in silence.
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TypeGuard

import cv2
import numpy as np

from .audio import is_silent
from .clip import Clip
from .errors import InputError, NoFaceError
from .faces.selection import choose, speakers
from .faces.tracking import FaceMap, Track, find_faces, runs
from .files import cache_warnings, refuse_overwriting, through_links
from .label import manifest as label
from .label.keys import Signer, load_signer
from .label.stamp import Stamp
from .label.watermark import Watermark
from .media.reader import Frame, FrameReader, VideoWriter, read_sound, sound_notes
from .media.reader import ahead as frames_ahead
from .media.timeline import SOUND_RATE, Spoken, Timeline, meeting, plan, plan_picture, sound
from .messages import Message
from .models.base import LipSyncModel, open_model
from .occlusion import Covers, OcclusionFinder, without_covered
from .opening import fit as fit_openings
from .options import Options
from .progress import Monitor, Progress
from .render import Speaker, ahead, blend, crop, generate, read, uncover, write
from .report import Report, seconds_span
from .segments import Segment, refuse_overlaps

Voice = str | os.PathLike | Mapping[int, str | os.PathLike] | Sequence[Segment]


def sync(
    video: str | os.PathLike | Clip,
    voice: Voice,
    out: str | os.PathLike,
    options: Options | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Report:
    """Make the mouth of a video follow a voice; write a labelled H.264 + AAC file.

    video     any video or still image that PyAV reads; or the Clip that `find` gave, which saves the first pass
    voice     any file with sound; {track number: file} to give several faces a voice each; or segments, parts of the
              video with a voice each (lipsync.segments)
    out       the MP4 to write, NAME.mp4; nothing is left there if the work fails or is stopped
    progress  called with a Progress about ten times a second; cancelled: asked as often whether to stop

    Raises InputError (a file or option), NoFaceError, ModelError, EngineError, LabelError, Cancelled.
    """
    began = time.perf_counter()
    options, out = options or Options(), Path(out)
    monitor = Monitor(progress, cancelled)
    monitor.step("load", 0, 1)
    with monitor.timed("load"):
        clip, segments, listed = Clip.open(video), _segments(voice, options), _is_list(voice)
        files = [path for one in segments for path in one.voices.values()]
        target = _check_target(out, [clip.path, *files])
        _check_signing()
        model = open_model(options.model, options.engine)
        looked = any(one.options.occlusion for one in segments)
        covers = Covers(OcclusionFinder(options.engine)) if looked else None
        parts, warnings = _hear(segments, clip, model)
        warnings[:0] = clip.info.notes
        warnings += cache_warnings()
    needed = clip.info.frames
    if clip.faces is None:
        plans = _timelines(parts, clip, max(clip.info.frames, 1), listed)
        if not any(p.first for p in plans):
            needed = min(max(int(p.indices.max()) for p in plans) + 1, clip.info.frames)
        clip = _find(clip, needed, options, monitor)
    info, faces = clip.info, clip.faces
    # Frames that nothing needed were not looked at; a file that promised too many has no more than were found.
    video_s = 0.0 if info.is_still else float((info.frames if faces.frames >= needed else faces.frames) / info.fps)
    if not faces.tracks:
        raise NoFaceError(
            "No face was found in any of the {frames} frames of {file}. If it lies on its side or upside down, "
            "turn it first.",
            frames=faces.frames,
            file=info.path.name,
        )
    warnings += faces.notes
    timelines = _timelines(parts, clip, faces.frames, listed)
    spoken = [Spoken(line, p.files, p.options) for line, p in zip(timelines, parts, strict=True)]
    frames = len(spoken[0].timeline.indices)
    has_voice = np.zeros(frames, bool)
    for one in spoken:
        has_voice[one.timeline.first : one.timeline.stop] = True
    if info.has_audio and (not has_voice.all() or any(p.options.background for p in parts)):
        warnings += [Message("{file}: {note}", file=info.path.name, note=note) for note in sound_notes(info.path)]
    chosen = [choose(faces, p.options.face, p.numbers, info.fps) for p in parts]
    refuse_overlaps([(s.timeline, tracks) for s, tracks in zip(spoken, chosen, strict=True)], float(info.fps))
    if len(parts) == 1 and (parts[0].options.face not in ("largest", "all") or parts[0].numbers):
        warnings += _other_shots(faces, chosen[0])
    if covers is not None:
        with monitor.timed("occlusion"):
            chosen = [
                [without_covered(t, covers.finder, monitor) for t in tracks] if p.options.occlusion else tracks
                for p, tracks in zip(parts, chosen, strict=True)
            ]
    heard = [
        Speaker(track, model, features, info.fps, part.options, one.timeline.first, one.timeline.stop)
        for part, one, tracks in zip(parts, spoken, chosen, strict=True)
        for track, features in part.lent(faces, tracks)
    ]
    with monitor.timed("opening"):
        fit_openings([s for s in heard if model.half_open and s.options.mouth_opening is None], monitor)

    with tempfile.TemporaryDirectory(prefix=".lipsync-", dir=target.parent) as folder:
        plain, signed = Path(folder, out.name), Path(folder, f"signed{out.suffix}")  # an error names the file made
        synced, covered, hidden = _render(clip, heard, spoken, model, covers, options, plain, monitor)
        monitor.step("label", 0, 1)
        with monitor.timed("label"):
            label.sign(
                plain,
                signed,
                source=info.path,
                voices=list(dict.fromkeys(files)),
                model=options.model,
                checkpoint_sha256=model.sha256,
            )
            signed.replace(target)
        monitor.step("label", 1, 1)
    moved = list({t.number: t for tracks in chosen for t in tracks}.values())
    if not (synced | hidden).any():
        warnings.append(Message("The chosen face is not in the part that has the voice: no mouth was changed."))
    if info.width % 2 or info.height % 2:
        warnings.append(
            Message(
                "{width} × {height} is odd, which H.264 cannot hold: the last row or column is repeated once.",
                width=info.width,
                height=info.height,
            )
        )
    return Report(
        out=str(out),
        frames=frames,
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
        missed_ranges=runs(has_voice & ~synced & ~hidden),
        hidden_ranges=runs(hidden & ~synced),
        covered_ranges=runs(covered & synced),
        voice_seconds=round(sum(p.seconds for p in parts), 3),
        video_seconds=round(video_s, 3),
        meeting=meeting(parts[0].seconds, video_s, parts[0].options) if len(parts) == 1 and not info.is_still else "",
        frames_bridged=int((synced & _bridged(moved, faces.frames)[spoken[0].timeline.indices]).sum()),
    )


def _render(
    clip: Clip,
    heard: list[Speaker],
    spoken: list[Spoken],
    model: LipSyncModel,
    covers: Covers | None,
    options: Options,
    out: Path,
    monitor: Monitor,
) -> np.ndarray:
    """The second pass: write the unsigned result; returns (3, N) bool: the frames in which a mouth was made, in which
    something lies before a face, and in which it hides a mouth.

    Raises InputError where the video cannot be read again, Cancelled.
    """
    info, timeline = clip.info, spoken[0].timeline
    stamp = Stamp(info.width, info.height) if options.visible_label else None
    if stamp is not None:  # clear of all faces
        stamp.place(np.concatenate([t.boxes for t in clip.faces.tracks]))
    mark = Watermark(info.width, info.height) if options.watermark else None
    shots = np.searchsorted([stop for _, stop in clip.faces.shots], timeline.indices, "right").tolist()
    voice = sound(spoken, info.fps, info.path if info.has_audio else None)
    size, tags = (info.width, info.height), label.tags(options.model)
    with closing(voice), VideoWriter(out, *size, info.fps, SOUND_RATE, crf=options.crf, tags=tags) as writer:
        frames = read(info, timeline, monitor)
        batches = ahead(crop(frames, heard, monitor))
        batches = ahead(generate(uncover(batches, covers, monitor), model, monitor))
        batches = ahead(blend(batches, model.blend, stamp, mark, shots, monitor))
        with closing(batches):
            return write(batches, writer, voice, len(timeline.indices), float(info.fps), monitor)


def _bridged(chosen: list[Track], frames: int) -> np.ndarray:
    """(frames,) bool, the frames of the video in which a chosen face is interpolated, not found."""
    flags = np.zeros(frames, bool)
    for track in chosen:
        if track.bridged is not None:
            flags[track.start : track.stop] |= track.bridged
    return flags


def find(
    video: str | os.PathLike | Clip,
    options: Options | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Clip:
    """The first pass alone: the clip with the shots and face tracks of a whole video (`Clip.faces`), to be shown,
    chosen from, and given to `sync`."""
    clip = Clip.open(video)
    return _find(clip, clip.info.frames, options or Options(), Monitor(progress, cancelled))


def _find(clip: Clip, needed: int, options: Options, monitor: Monitor) -> Clip:
    """Track faces over the first `needed` frames."""
    info = clip.info
    whole = needed >= info.frames and not info.is_still
    with monitor.timed("faces"), FrameReader(info, None if whole else [(0, max(needed, 1))]) as reader:
        total = max(needed, 1)
        most = 2 * total + 60 * info.fps  # a promise may be wrong, but what was not promised was not agreed to either

        def step(count: int) -> None:
            if count > most:
                raise InputError(
                    "{file} says that it has {frames} frames, and goes on after {count}: its times are damaged. "
                    "Code it again first.",
                    file=info.path.name,
                    frames=info.frames,
                    count=count,
                )
            monitor.step("faces", min(count, total), total)

        found = find_faces(frames_ahead(reader), info.fps, options.detector, step, options.smoothing, not info.is_still)
    if not found.frames:
        raise InputError("No frame of {file} could be read: the file is damaged or cut short.", file=info.path.name)
    notes = reader.notes
    if reader.missing:
        promised = Message(
            "The file promises {promised} frames, but only {read} could be read.",
            promised=info.frames,
            read=found.frames,
        )
        notes += (promised,)
    return replace(clip, faces=replace(found, notes=notes))


@dataclass(frozen=True)
class _Part:
    """A segment that was heard.

    sounds   what the model hears of each voice, by the number of its face (None: of all)
    seconds  of the longest voice
    """

    options: Options
    files: list[Path]
    sounds: dict[int | None, np.ndarray]
    seconds: float

    @property
    def numbers(self) -> list[int] | None:
        """The faces that have a voice each."""
        return [number for number in self.sounds if number is not None] or None

    def lent(self, faces: FaceMap, tracks: list[Track]) -> list[tuple[Track, np.ndarray]]:
        """Each chosen track with the sound of its voice."""
        if self.numbers is None:
            return [(track, self.sounds[None]) for track in tracks]
        lender = speakers(faces, self.numbers)
        return [(track, self.sounds[lender[track.number]]) for track in tracks]


def _hear(segments: list[Segment], clip: Clip, model: LipSyncModel) -> tuple[list[_Part], list[str]]:
    """The segments with what the model hears, and sentences on what is odd; no two waveforms are held at once. Raises
    InputError where a voice has no sound at all."""
    parts, notes = [], []
    for one in segments:
        options, sounds, seconds = one.options, {}, 0.0
        for number, path in one.voices.items():
            waveform, said = read_sound(path, track=options.track)
            notes += [Message("{file}: {note}", file=path.name, note=note) for note in said]
            if not len(waveform):
                raise InputError("{file} holds no sound: a voice is needed.", file=path.name)
            if is_silent(waveform):
                notes.append(Message("The voice {file} is silent, so the mouth rests.", file=path.name))
            seconds = max(seconds, len(waveform) / 16_000)
            sounds[number] = model.audio_features(waveform)
        if clip.info.is_still and options.end is not None:  # a picture has no end of its own: the voice's is meant
            seconds, options = min(seconds, options.end - options.start), replace(options, end=None)
        parts.append(_Part(options, list(one.voices.values()), sounds, seconds))
    return parts, list(dict.fromkeys(notes))


def _timelines(parts: list[_Part], clip: Clip, frames: int, listed: bool) -> list[Timeline]:
    """Where each part has its voice, over that many frames of the video; all show the same frames.

    listed  they were given as segments
    """
    info = clip.info
    if info.is_still and listed:
        return plan_picture(info.fps, [(p.options.start, p.options.start + p.seconds) for p in parts])
    return [plan(frames, info.fps, p.seconds, p.options) for p in parts]


def _is_list(voice: Voice) -> TypeGuard[Sequence[Segment]]:
    return isinstance(voice, Sequence) and not isinstance(voice, str)


def _segments(voice: Voice, options: Options) -> list[Segment]:
    """What was given as voice as segments; the one voice of all faces stands under None."""
    if _is_list(voice):
        segments = list(voice)
    else:
        files = dict(voice) if isinstance(voice, Mapping) else {None: voice}
        if any(file is None for file in files.values()):
            files = {}
        segments = [Segment({number: Path(file) for number, file in files.items()}, options)]
    if not segments or not all(one.voices for one in segments):
        raise InputError("No voice was given: name one file, or one for each face.")
    return segments


def _check_target(out: Path, sources: list[Path]) -> Path:
    """Where the result is written: `out` itself, or what it is a link to."""
    target = through_links(out)
    if not target.parent.is_dir():
        raise InputError(
            "The result cannot be written to {out}: there is no folder {parent}.", out=out, parent=target.parent
        )
    if out.is_dir():
        raise InputError("The result cannot be written to {out}: that is a folder.", out=out)
    if out.suffix.lower() != ".mp4":
        raise InputError("The result is an MP4, which {out} does not say: give it a name that ends in .mp4.", out=out)
    refuse_overwriting([("result", out)], sources)
    try:
        tempfile.TemporaryDirectory(prefix=".lipsync-", dir=target.parent).cleanup()
    except OSError as error:
        raise InputError("The result cannot be written to {out}: {error}.", out=out, error=error.strerror) from error
    return target


def _check_signing() -> None:
    """Raise LabelError where the result could not be signed: keys, certificates, the clock, a timestamp authority."""
    _signs(load_signer())


@functools.cache
def _signs(_: Signer) -> None:
    """Sign a film of one frame, once a process for each signer."""
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
    return [
        Message(
            "Who was chosen speaks from {spans}: a cut ends that shot, and after it a face has a new number.",
            spans=Message.join(", ", (seconds_span(*faces.shots[n], float(faces.fps)) for n in mine)),
        )
    ]


def preview(clip: Clip, second: float) -> Frame:
    """One frame of a clip whose faces were found (`find`), with them framed and numbered: (H, W, 3) uint8 RGB.

    second  clipped to the video's length; numbers are those that `Options.face` and `{number: voice}` take
    """
    info, faces = clip.info, clip.faces
    if not math.isfinite(second):
        raise InputError("A preview shows one second of the video, like 1.5, not {second}.", second=second)
    index = int(np.clip(round(second * info.fps), 0, faces.frames - 1))
    with FrameReader(info, [(index, index + 1)]) as reader:
        frame = next(iter(reader), None)
    if frame is None:
        raise InputError("Frame {index} of {file} could not be read.", index=index, file=info.path.name)
    frame = frame.copy()
    line = max(min(frame.shape[:2]) // 160, 1)
    for track in faces.tracks:
        if track.has(index):
            x0, y0, x1, y1 = np.round(track.boxes[index - track.start]).astype(int).tolist()
            cv2.rectangle(frame, (x0, y0), (x1, y1), (255, 196, 0), line, cv2.LINE_AA)
            size = max((y1 - y0) / 120, 0.4)
            at, width = (x0 + 4 * line, y0 + int(24 * size)), max(int(2 * size), 1)
            cv2.putText(frame, str(track.number), at, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 196, 0), width, cv2.LINE_AA)
    return frame
