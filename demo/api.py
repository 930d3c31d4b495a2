"""API of the page: four named endpoints for gradio_client, documented in docs/api.md; programs are told in English."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr
from pydantic import TypeAdapter, ValidationError

from lipsync.checkpoints import registry
from lipsync.errors import InputError, LipsyncError
from lipsync.options import Options, current_options
from lipsync.segments import segment

from . import tasks
from .context import Context
from .jobs import BROKEN, Job
from .uploads import address_of, serve_copy, uploaded

_log = logging.getLogger(__name__)
POLL_S = 0.1
REMEMBERED = 256  # videos by their content, as long as their files are there
OURS = ("detector", "visible_label", "watermark")  # the operator's, not the visitor's


def build(page: gr.Blocks, context: Context) -> None:
    """Name the endpoints."""
    jobs, settings = context.jobs, context.settings
    made: OrderedDict[str, tuple[str, dict]] = OrderedDict()  # by `content_key`: the file last served, its report
    making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def sync(
        video: str, voice: str, consent: bool, options: dict | None = None, request: gr.Request | None = None
    ) -> tuple[str | None, dict]:
        """A video or image and a voice to a labelled video: (file, report). Options as in lipsync.Options; with a
        `callback` among them the answer comes at once, and the report goes there."""
        return await _sync(request, video, consent, options, lambda chosen: (voice, []))

    async def segments(
        video: str,
        voices: list[str],
        consent: bool,
        segments: list | None = None,
        options: dict | None = None,
        request: gr.Request | None = None,
    ) -> tuple[str | None, dict]:
        """As `sync`, with several voices: segments say which part and face each has."""
        return await _sync(request, video, consent, options, lambda chosen: (None, own_parts(segments, voices, chosen)))

    async def _sync(
        request: gr.Request | None,
        video: str,
        consent: bool,
        options: dict | None,
        voices: Callable[[Options], tuple[str | None, list[tuple[str, dict]]]],
    ) -> tuple[str | None, dict]:
        callback, chosen = checked(options)
        _given(video, "video")
        if consent is not True:
            raise gr.Error("Say consent=True: that you may use this face and this voice.", print_exception=False)
        if chosen.model not in tasks.models():
            raise gr.Error(
                f"There is no model {chosen.model!r} here: {', '.join(tasks.models())}.", print_exception=False
            )
        voice, parts = voices(chosen)
        if not callback:
            return await _through(_make, request, video, voice, chosen, parts)
        job = None

        async def told() -> dict[str, Any]:
            try:
                path, report = await _make(job, _address(request), video, voice, chosen, parts)
                return {"job": job.view, "state": "done", "video": address_of(path), "report": report}
            except LipsyncError as error:
                return {"job": job.view, "state": "failed", "error": str(error)}
            except Exception:
                _log.exception("a call with a callback broke")
                return {"job": job.view, "state": "failed", "error": str(BROKEN)}
            finally:
                jobs.delete(job.id)

        try:
            context.callbacks.check(callback)
            job = jobs.create()
            context.callbacks.begin(callback, told)
        except LipsyncError as error:
            if job is not None:
                jobs.delete(job.id)
            raise gr.Error(str(error), print_exception=False) from error
        return None, {"job": job.view, "state": "waiting"}

    async def faces(video: str, second: float = 0, request: gr.Request | None = None) -> tuple[str, dict]:
        """The faces of a video: (frame at that second as a picture, what was found)."""
        _given(video, "video")
        return await _through(_look, request, video, second or 0)

    async def verify(file: str) -> dict:
        """What the label of a file says: {"labelled": bool, "words": str}."""
        try:
            return await context.labels.run(tasks.verdict, uploaded(_given(file, "file")))
        except LipsyncError as error:
            raise gr.Error(str(error), print_exception=False) from error

    async def _through(do: Any, request: gr.Request | None, *given: Any) -> Any:
        """Run one request as a job of its own, gone when it is answered or given up."""
        job = None
        try:
            job = jobs.create()
            return await do(job, _address(request), *given)
        except LipsyncError as error:
            raise gr.Error(str(error), print_exception=False) from error
        finally:
            if job is not None:
                jobs.delete(job.id)

    async def _make(
        job: Job, address: str, video: str, voice: str | None, options: Options, parts: list[tuple[str, dict]]
    ) -> tuple[str, dict]:
        """The video of a call and its report; what was asked before, of the same files, is not made again."""
        key = await asyncio.to_thread(content_key, video, voice, options, parts)
        async with making.setdefault(key, asyncio.Lock()):
            path, report = made.get(key, ("", {}))
            with contextlib.suppress(OSError):  # its file may be gone
                if path:
                    return serve_copy(Path(path)), report | {"made_before": True}
            await asyncio.to_thread(tasks.store_upload, jobs, job, "source", video)
            if voice:  # at once: a job may wait for longer than an upload stays
                await asyncio.to_thread(tasks.store_upload, jobs, job, "voice", voice)
            for path, own in parts:
                await asyncio.to_thread(tasks.keep_part, jobs, job, path, own)
            await _finished(
                job, address, "sync", tasks.make(jobs, settings, options, given=voice, kept=job.facts.get("parts", []))
            )
            one = job.facts["results"][0]
            path = serve_copy(jobs.folder(job.id) / one["file"])
            report = one["report"] | {"words": one["words"], "label": one["label"]}
            made[key] = path, report
            while len(made) > REMEMBERED:
                made.popitem(last=False)
            return path, report | {"made_before": False}

    async def _look(job: Job, address: str, video: str, second: float) -> tuple[str, dict]:
        await asyncio.to_thread(tasks.store_upload, jobs, job, "source", video)
        await _finished(job, address, "faces", tasks.look(jobs, settings, float(second)))
        shown = {k: v for k, v in job.facts["preview"].items() if k != "version"}
        found = {"faces": job.facts["faces"], "seconds": job.facts["seconds"], **shown}
        return serve_copy(jobs.folder(job.id) / "preview.jpg"), found

    async def _finished(job: Job, address: str, task: str, do: Any) -> None:
        jobs.submit(job.id, task, do, address)
        while job.busy:
            await asyncio.sleep(POLL_S)
        if job.state != "done":
            if job.error:
                raise InputError(job.error)
            raise InputError("The work was {state}.", state=job.state)

    with gr.Column(visible=False):
        video, voice, file = gr.File(label="video"), gr.File(label="voice"), gr.File(label="file")
        voices, parts = gr.File(label="voices", file_count="multiple"), gr.JSON(label="segments")
        consent, options, second = gr.Checkbox(label="consent"), gr.JSON(label="options"), gr.Number(0, label="second")
        out, report = gr.File(label="result"), gr.JSON(label="report")
        frame, found, said = gr.File(label="frame"), gr.JSON(label="found"), gr.JSON(label="verdict")
        button = gr.Button()
        button.click(sync, [video, voice, consent, options], [out, report], api_name="sync")
        button.click(segments, [video, voices, consent, parts, options], [out, report], api_name="segments")
        button.click(faces, [video, second], [frame, found], api_name="faces")
        button.click(verify, file, said, api_name="verify")


def content_key(video: str, voice: str | None, options: Options, parts: list[tuple[str, dict]]) -> str:
    """What decides a video: the content of its files, the options and the model. Raises InputError, ModelError."""
    given = [path for path in [video, voice, *(path for path, _ in parts)] if path]
    sums = {}
    for path in dict.fromkeys(given):
        try:
            with uploaded(path).open("rb") as file:
                sums[path] = [Path(path).name, hashlib.file_digest(file, "sha256").hexdigest()]
        except OSError as error:
            raise InputError("{file} is no longer here; give it once more.", file=Path(path).name) from error
    said = [
        [sums[path] for path in given],
        bool(voice),
        asdict(options),
        [own for _, own in parts],
        registry.sha256(options.model),
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _address(request: gr.Request | None) -> str:
    return request.client.host if request and request.client else ""


def _given(path: str | None, what: str) -> str:
    if not path:
        raise gr.Error(f"No {what} was given.", print_exception=False)
    return path


def own_parts(parts: list | None, voices: list[str] | None, common: Options) -> list[tuple[str, dict]]:
    """The file of each segment and its own options. Raises gr.Error, one sentence."""
    found, voices = [], voices or []
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise gr.Error('Segments are a list, like [{"voice": 0, "start": 0, "end": 2.5}].', print_exception=False)
    if len(parts) > tasks.MOST_PARTS:
        raise gr.Error(f"A video takes {tasks.MOST_PARTS} segments here at most.", print_exception=False)
    if not voices:
        raise gr.Error("No voices were given.", print_exception=False)
    for number, part in enumerate(parts, 1):
        own, which = {name: value for name, value in part.items() if name != "voice"}, part.get("voice")
        if isinstance(which, bool) or not isinstance(which, int) or not 0 <= which < len(voices):
            raise gr.Error(
                f"Segment {number} names a voice by its number: 0 to {len(voices) - 1} of the {len(voices)} given.",
                print_exception=False,
            )
        try:
            segment(voices[which], common, **own)
        except LipsyncError as error:
            raise gr.Error(f"Segment {number}: {error}", print_exception=False) from error
        found.append((voices[which], current_options(own)))
    return found


def checked(options: dict | None) -> tuple[str, Options]:
    """The callback ("": none) and the options of a caller's JSON. Raises gr.Error, one sentence."""
    if not isinstance(options, dict | None):
        raise gr.Error('Options are a JSON object, like {"face": "all"}, or null.', print_exception=False)
    options = current_options(options or {})
    callback = options.pop("callback", "") or ""
    if not isinstance(callback, str):
        raise gr.Error('The callback is an address, like "https://example.org/made".', print_exception=False)
    open_to_all = [f.name for f in fields(Options) if f.name not in OURS]
    unknown = sorted(set(options) - set(open_to_all))
    if unknown:
        raise gr.Error(f"There is no option {unknown[0]!r}: {', '.join(open_to_all)}.", print_exception=False)
    try:
        return callback, TypeAdapter(Options).validate_python(asdict(Options()) | options)
    except ValidationError as error:
        first = error.errors()[0]
        raise gr.Error(f"The option {first['loc'][0]} is wrong: {first['msg']}.", print_exception=False) from error
    except LipsyncError as error:
        raise gr.Error(str(error), print_exception=False) from error
