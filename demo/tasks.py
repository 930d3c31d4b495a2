"""Tasks of the job queue: find faces, make the video, measure its sync; and the limits on what visitors bring."""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import cv2

from lipsync import sandbox
from lipsync.checkpoints import registry
from lipsync.clip import Clip
from lipsync.errors import Cancelled, InputError, LipsyncError
from lipsync.faces.selection import choose
from lipsync.faces.tracking import FaceMap
from lipsync.label import manifest as label
from lipsync.media.reader import Frame, FrameReader, SoundReader, VideoInfo, probe
from lipsync.messages import Message
from lipsync.models import MODELS
from lipsync.options import Options
from lipsync.pipeline import Voice, find, preview, sync
from lipsync.progress import Monitor, Progress
from lipsync.segments import OWN, segment

from .jobs import Job, JobQueue
from .settings import Settings
from .uploads import link_or_copy, uploaded

_log = logging.getLogger(__name__)
PREVIEW_PX = 960  # longest side of the picture on which a face is picked
_BUILDING = threading.Lock()  # `cache` by itself lets two threads build an evaluator each
LONGEST_POINT = 64  # letters of an `Options.face` that a click makes
# About what each stage of making a video has of its time, from and to, once the faces are known: seen on clips of 3 s.
SHARES = {"load": (0.0, 0.05), "sync": (0.05, 0.97), "label": (0.97, 1.0)}
LEAST_VOICE_S = 0.5
MOST_PARTS = 12  # voices of one video
MAX_PIXELS = 60_000_000  # of a still picture; larger ones than Settings.max_height are made smaller


def models() -> dict[str, registry.Card]:
    """The lip-sync models whose files are here, by name; the default first, then by their system."""
    here = {n: c for n, c in registry.cards().items() if c.path is not None and c.architecture in MODELS}
    systems = list(MODELS)
    return dict(sorted(here.items(), key=lambda at: (at[0] != Options.model, systems.index(at[1].architecture))))


def store_upload(jobs: JobQueue, job: Job, kind: str, given: str | Path) -> Path:
    """Put a visitor's file into the job's folder under a tame form of its own name; kind: source | voice.

    The file kept before stays until the new one is whole. Gradio never gives two contents one path, so a path that was
    kept already is not kept again, and may be gone. Raises InputError where the path is no upload.
    """
    kept = input_file(jobs, job, kind)
    if kept is not None and job.facts.get("given", {}).get(kind) == str(given):
        return kept
    given = uploaded(given)
    folder = jobs.folder(job.id) / kind
    coming = folder.with_name(f"{kind}.new")
    shutil.rmtree(coming, ignore_errors=True)
    coming.mkdir()
    name = re.sub(r"[^\w.-]+", "_", given.name)[-80:].lstrip(".") or kind
    try:
        link_or_copy(given, coming / name)
    except OSError as error:
        shutil.rmtree(coming, ignore_errors=True)
        raise InputError("{file} is no longer here; give it once more.", file=given.name) from error
    shutil.rmtree(folder, ignore_errors=True)
    coming.rename(folder)
    jobs.update(job.id, **{kind: f"{kind}/{name}"}, given=job.facts.get("given", {}) | {kind: str(given)})
    return folder / name


def input_file(jobs: JobQueue, job: Job, kind: str) -> Path | None:
    """The file that `store_upload` put away; None where there is none."""
    path = jobs.folder(job.id) / job.facts.get(kind, "")
    return path if path.is_file() else None


def keep_part(jobs: JobQueue, job: Job, given: str | Path, own: Mapping[str, Any], seconds: float = 0.0) -> None:
    """Keep a voice with the options of its part (lipsync.segments.OWN) for the next video of a job.

    seconds  of the voice, for the page
    Raises InputError.
    """
    parts = job.facts.get("parts", [])
    if len(parts) >= MOST_PARTS:
        raise InputError("A video takes {most} voices here at most.", most=MOST_PARTS)
    own = {name: value for name, value in own.items() if name in OWN}
    key = f"part-{secrets.token_hex(4)}"
    store_upload(jobs, job, key, given)
    face, picked = own.get("face", "largest"), job.facts.get("picked", {})
    numbers = picked.get("numbers", []) if picked.get("point") == face else []
    if face == "largest" and job.facts.get("shots") == 1:
        numbers = job.facts.get("preview", {}).get("largest", [])
    part = {"key": key, "options": own, "numbers": numbers, "seconds": seconds}
    uploads = sorted({*job.facts.get("uploads", []), str(given)})
    jobs.update(job.id, parts=[*parts, part], uploads=uploads)
    if job.facts["given"].get("voice") == str(given):  # of a video of before: it is no second voice
        jobs.update(job.id, voice="", given={k: v for k, v in job.facts["given"].items() if k != "voice"})


def drop_part(jobs: JobQueue, job: Job, key: str) -> None:
    """Forget one of a job's voices."""
    if key in (part["key"] for part in job.facts.get("parts", [])):
        jobs.update(job.id, parts=[part for part in job.facts["parts"] if part["key"] != key])
        shutil.rmtree(jobs.folder(job.id) / key, ignore_errors=True)


def _voices(
    jobs: JobQueue, job: Job, options: Options, given: str | Path | None, kept: Sequence[dict], settings: Settings
) -> tuple[Voice, float]:
    """The voice of a job's next video, or its segments, and the second at which the last one ends.

    given  a voice that is new; kept: the parts of `keep_part`
    Raises InputError where one is gone, or over the limits.
    """
    parts, ends = [], []

    def speaks(path: Path, own: Mapping[str, Any]) -> None:
        seconds = check_voice(path, settings)
        parts.append(segment(path, options, **own))
        start, end = parts[-1].options.start, parts[-1].options.end
        ends.append(start + seconds if end is None else min(start + seconds, end))

    for part in kept:
        speaks(_need(jobs, job, part["key"]), part["options"])
    if given or not parts:
        voice = store_upload(jobs, job, "voice", given) if given else _need(jobs, job, "voice")
        speaks(voice, {name: getattr(options, name) for name in OWN})
        if not kept:
            return voice, ends[0]
    return parts, max(ends)


def _need(jobs: JobQueue, job: Job, kind: str) -> Path:
    path = input_file(jobs, job, kind)
    if path is None:
        if kind == "source":
            raise InputError("The face is no longer here; give it once more.")
        raise InputError("The voice is no longer here; give it once more.")
    return path


def check_source(path: Path, settings: Settings) -> VideoInfo:
    """Probe a visitor's video or picture against the limits. Raises InputError, a sentence for the visitor."""
    _check_size(path, settings)
    info = probe(path)
    if not info.has_video:
        raise InputError(
            "{file} holds no picture: a video or an image is needed. A voice goes beside it.", file=path.name
        )
    if not info.is_still:
        _check_length(path, info.duration_s, settings)
    if info.is_still and info.width * info.height > MAX_PIXELS:
        raise InputError(
            "{file} has {millions:.0f} million pixels; here a picture may have {most}. Make it smaller and try again.",
            file=path.name,
            millions=info.width * info.height / 1e6,
            most=MAX_PIXELS // 1_000_000,
        )
    if not info.is_still and _shorter(info) > settings.max_height:
        raise InputError(
            "{file} is {width} × {height}; here the shorter side may have {most} pixels. Make it smaller "
            "and try again.",
            file=path.name,
            width=info.width,
            height=info.height,
            most=settings.max_height,
        )
    return info


def _shorter(info: VideoInfo) -> int:
    return min(info.width, info.height)


def smaller_picture(jobs: JobQueue, job: Job, info: VideoInfo, settings: Settings) -> VideoInfo:
    """Bring a still picture, which cameras make larger than any video here may be, to the largest allowed size."""
    with FrameReader(info) as reader:
        frame = next(reader)
    scale = settings.max_height / _shorter(info)
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    made = info.path.with_suffix(".png")
    cv2.imwrite(str(made), small[:, :, ::-1])
    note = Message(
        "{file} was made smaller, from {from_width} × {from_height} to {width} × {height}.",
        file=info.path.name,
        from_width=info.width,
        from_height=info.height,
        width=small.shape[1],
        height=small.shape[0],
    )
    jobs.update(job.id, source=f"source/{made.name}", notes=[note])
    if made != info.path:
        info.path.unlink()
    return probe(made)


def check_voice(path: Path, settings: Settings) -> float:
    """Seconds of a visitor's voice, heard as far as the limit: what a file says of its length may be wrong, and a
    browser's recording says nothing. A file is heard once, also under another name. Raises InputError."""
    _check_size(path, settings)
    there = path.stat()
    same = _Content((there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns), path)
    seconds = _heard(same, settings.max_seconds)
    if seconds < LEAST_VOICE_S:
        raise InputError(
            "{file} is {seconds:.2f} s long: a voice has {least:g} s at least.",
            file=path.name,
            seconds=seconds,
            least=LEAST_VOICE_S,
        )
    return seconds


@dataclass(frozen=True)
class _Content:
    """A file, which is equal to its hard links."""

    identity: tuple[int, ...]
    path: Path = field(compare=False)


@lru_cache(1000)
def _heard(file: _Content, most_s: float) -> float:
    seconds = 0.0
    with SoundReader(file.path, 16_000, 1) as reader:
        for samples in reader:
            seconds += len(samples) / 16_000
            if seconds > most_s + 0.5:
                raise InputError(
                    "The sound of {file} is longer than the {most:g} s that this page takes. Cut it and try again.",
                    file=file.path.name,
                    most=most_s,
                )
    return seconds


def _check_size(path: Path, settings: Settings) -> None:
    megabytes = path.stat().st_size / 1e6
    if megabytes > settings.max_megabytes:
        raise InputError(
            "{file} has {megabytes:.0f} MB; this page takes up to {most:g} MB.",
            file=path.name,
            megabytes=megabytes,
            most=settings.max_megabytes,
        )


def _check_length(path: Path, seconds: float, settings: Settings) -> None:
    if seconds > settings.max_seconds + 0.5:
        raise InputError(
            "{file} is {seconds:.0f} s long; this page takes up to {most:g} s. Cut it and try again.",
            file=path.name,
            seconds=seconds,
            most=settings.max_seconds,
        )


def look(
    jobs: JobQueue, settings: Settings, second: float | None = None, options: Options | None = None
) -> Callable[..., None]:
    """Work that finds the faces of a job's source and shows one frame.

    second   of the frame to show; None: one with faces
    options  how faces are followed
    """

    def work(job: Job, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> None:
        _look(jobs, job, settings, second, options, progress, cancelled)

    return work


def _look(
    jobs: JobQueue,
    job: Job,
    settings: Settings,
    second: float | None,
    options: Options | None,
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> Clip:
    info = check_source(_need(jobs, job, "source"), settings)
    if info.is_still and _shorter(info) > settings.max_height:
        info = smaller_picture(jobs, job, info, settings)
    clip = find(Clip(info), options, progress=progress, cancelled=cancelled)
    faces = clip.faces
    jobs.memory.put(job.id, clip)
    show(jobs, job, clip, first_face(faces) if second is None else second)
    jobs.update(
        job.id,
        still=info.is_still,
        seconds=0.0 if info.is_still else float(faces.frames / info.fps),
        fps=float(info.fps),
        faces=len(faces.tracks),
        shots=len(faces.shots),
    )
    return clip


def first_face(faces: FaceMap) -> float:
    """The second at which the most faces of the beginning are seen."""
    early = range(0, min(faces.frames, int(10 * faces.fps) + 1), 5)
    best = max(early, key=lambda i: sum(t.has(i) for t in faces.tracks))
    return float(best / faces.fps)


def show(jobs: JobQueue, job: Job, clip: Clip, second: float) -> None:
    """Write the frame at `second` as a picture and note where its faces are."""
    info, faces = clip.info, clip.faces
    frame = preview(replace(clip, faces=replace(faces, tracks=())), second)  # the page draws the boxes, as buttons
    index = min(max(round(second * info.fps), 0), faces.frames - 1)
    _write_small(frame, jobs.folder(job.id) / "preview.jpg")
    boxes = {
        str(t.number): [round(float(v), 1) for v in t.boxes[index - t.start]] for t in faces.tracks if t.has(index)
    }
    jobs.update(
        job.id,
        preview={
            "second": float(index / info.fps),
            "width": info.width,
            "height": info.height,
            "boxes": boxes,
            "largest": [t.number for t in choose(faces, "largest", None, info.fps)] if boxes else [],
            "version": secrets.token_hex(4),
        },
    )


def pick(jobs: JobQueue, job_id: str, point: str) -> None:
    """Note which faces a click makes speak, as the engine takes it, so that they are marked in every frame."""
    job = jobs.get(job_id)
    if job is None or "preview" not in job.facts:
        return
    if len(point) > LONGEST_POINT:
        raise InputError("That is no point of the picture: click the face once more.")
    if (known := jobs.memory.get(job_id)) is not None:
        numbers = [t.number for t in choose(known.faces, point, None, known.info.fps)]
    else:  # after a restart
        x, y = map(float, point.split("@")[0].split(","))
        boxes = job.facts["preview"]["boxes"].items()
        numbers = [int(n) for n, (x0, y0, x1, y1) in boxes if x0 <= x <= x1 and y0 <= y <= y1]
    jobs.update(job_id, picked={"point": point, "numbers": numbers})


def make(
    jobs: JobQueue,
    settings: Settings,
    options: Options,
    second_model: str | None = None,
    given: str | Path | None = None,
    kept: Sequence[dict] = (),
) -> Callable[..., None]:
    """Work that makes a job's video, with one model or with two.

    given  the voice, where it is a new one
    kept   the job's `parts` as they are now, which speak too
    """
    options = replace(options, visible_label=settings.visible_label, watermark=settings.watermark)

    def work(job: Job, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> None:
        voice, last_s = _voices(jobs, job, options, given, kept, settings)
        known = jobs.memory.get(job.id)
        if known is None:  # a request of the API, or after a restart
            second = job.facts.get("preview", {}).get("second")
            known = _look(jobs, job, settings, second, options, progress, cancelled)
        if kept and known.info.is_still and last_s > settings.max_seconds:
            raise InputError(
                "The last voice ends at {seconds:.0f} s; a picture can be shown for {most} s.",
                seconds=last_s,
                most=f"{settings.max_seconds:g}",
            )
        _need(jobs, job, "source")  # it may have been deleted since
        old, results = job.facts.get("results", []), []
        try:
            models = [options.model, *([second_model] if second_model else [])]
            for turn, model in enumerate(models):
                out = jobs.folder(job.id) / f"result-{secrets.token_hex(4)}.mp4"
                chosen = replace(options, model=model)
                shown = whole(progress, turn, len(models))
                report = sync(known, voice, out, chosen, progress=shown, cancelled=cancelled)
                report = replace(report, warnings=[*job.facts.get("notes", []), *report.warnings])
                results.append(
                    {
                        "file": out.name,
                        "model": model,
                        "report": asdict(report) | {"out": out.name},
                        "words": report.words(),
                        "label": verdict(out),
                    }
                )
        except BaseException:
            old, results = results, old  # the results of before stay
            raise
        finally:
            for gone in old:
                for path in (jobs.folder(job.id) / gone["file"], poster_of(jobs.folder(job.id) / gone["file"])):
                    path.unlink(missing_ok=True)
        jobs.update(job.id, results=results)

    return work


def whole(progress: Callable[[Progress], None], turn: int, turns: int) -> Callable[[Progress], None]:
    """Progress of one of some videos as a share of all of them, so that one bar runs once."""

    def told(step: Progress) -> None:
        begin, end = SHARES.get(step.stage, (0.0, 0.0))
        share = begin + (end - begin) * min(step.done / max(step.total, 1), 1.0)
        progress(replace(step, share=(turn + share) / turns))

    return told


def saved_name(job: Job, file: str) -> str:
    """The name under which a job's result is downloaded: CLIP_MODEL.mp4."""
    model = next((one.get("model", "") for one in job.facts.get("results", []) if one["file"] == file), "")
    return "_".join(filter(None, [Path(job.facts.get("source", "lipsync")).stem, model])) + Path(file).suffix


def poster_of(video: Path) -> Path:
    """Where `poster` writes the picture of a result."""
    return video.with_suffix(".jpg")


def poster(video: Path) -> Path:
    """A frame from the middle of a result, as a picture beside it, made when it is first asked for. Raises InputError
    where it cannot be read."""
    made = poster_of(video)
    if not made.is_file():
        info = probe(video)
        middle = info.frames // 2
        with FrameReader(info, [(middle, middle + 1)]) as reader:
            frame = next(reader, None)
        if frame is None:
            raise InputError("Frame {index} of {file} could not be read.", index=middle, file=video.name)
        _write_small(frame, made)
    return made


def _write_small(frame: Frame, path: Path) -> None:
    scale = min(1.0, PREVIEW_PX / max(frame.shape[:2]))
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
    cv2.imwrite(str(path), small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def measure(jobs: JobQueue) -> Callable[..., None]:
    """Work that asks the evaluator about a job's videos and writes each one's ScoreRow beside it, under `sync`."""

    def work(job: Job, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> None:
        from eval.metrics.base import reason
        from eval.picture import compare
        from eval.protocols import PROTOCOLS
        from eval.score import score_file

        monitor = Monitor(lambda p: progress(replace(p, stage="evaluate")), cancelled)
        for one in job.facts["results"]:
            row = score_file(jobs.folder(job.id) / one["file"], _evaluator(), PROTOCOLS["short"], monitor=monitor)
            one["sync"] = row.record() | {"file": one["file"]}
            try:
                source, made = (probe(path) for path in (_need(jobs, job, "source"), jobs.folder(job.id) / one["file"]))
                one["picture"] = compare(source, made, monitor).record()
            except Cancelled:
                raise
            except LipsyncError as error:
                one["picture"] = {"error": reason(error)}
        jobs.update(job.id, results=job.facts["results"])

    return work


def _evaluator() -> Any:
    with _BUILDING:
        return _built_evaluator()


@cache
def _built_evaluator() -> Any:
    from eval.syncnet import Evaluator

    return Evaluator(fast=True)


def verdict(path: str | Path) -> dict[str, Any]:
    """What a file's label says: {"labelled": bool, "status": label.Status or "unreadable", "words": str}."""
    try:
        found = label.verify(path)
        return {"labelled": found.exit_code == 0, "status": str(found.status), "words": label.describe(found)}
    except LipsyncError as error:
        return {"labelled": False, "status": "unreadable", "words": error.message}


def warm_up() -> None:
    """Load what the first visitor would wait for: the server of sandboxed children, the detector, the default model.

    The log says what children are held to on this machine.
    """
    from fractions import Fraction

    import numpy as np
    from skimage.data import astronaut

    from lipsync.faces.tracking import find_faces
    from lipsync.models.base import open_model
    from lipsync.occlusion import OcclusionFinder

    sandbox.warm()
    for sentence in sandbox.in_force():
        _log.info("%s", sentence)
    find_faces(iter([np.ascontiguousarray(astronaut())] * 2), Fraction(25))
    open_model(next(iter(models()), Options.model))
    OcclusionFinder()
