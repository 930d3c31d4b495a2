"""API of the page: three named endpoints for gradio_client, documented in docs/api.md; programs are told in English."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, fields
from typing import Any

import gradio as gr
from pydantic import TypeAdapter, ValidationError

from lipsync.errors import InputError, LipsyncError
from lipsync.options import Options, current_options
from lipsync.segments import segment

from . import tasks
from .context import Context
from .jobs import Job
from .uploads import serve_copy, uploaded

POLL_S = 0.1
OURS = ("detector", "visible_label", "watermark")  # the operator's, not the visitor's


def build(page: gr.Blocks, context: Context) -> None:
    """Name the endpoints."""
    jobs, settings = context.jobs, context.settings

    async def sync(
        video: str,
        voice: str | None,
        consent: bool,
        options: dict | None = None,
        voices: list[str] | None = None,
        request: gr.Request | None = None,
    ) -> tuple[str, dict]:
        """A video or image and a voice to a labelled video: (file, report). Options as in lipsync.Options; those with
        `segments` say which part each of `voices` has."""
        options, parts = divided(options, voices)
        chosen = checked(options)
        _given(video, "video")
        if consent is not True:
            raise gr.Error("Say consent=True: that you may use this face and this voice.", print_exception=False)
        if chosen.model not in tasks.models():
            raise gr.Error(
                f"There is no model {chosen.model!r} here: {', '.join(tasks.models())}.", print_exception=False
            )
        return await _through(_make, request, video, voice, chosen, own_parts(parts, voices, chosen))

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
        job, address = None, request.client.host if request and request.client else ""
        try:
            job = jobs.create()
            return await do(job, address, *given)
        except LipsyncError as error:
            raise gr.Error(str(error), print_exception=False) from error
        finally:
            if job is not None:
                jobs.delete(job.id)

    async def _make(
        job: Job, address: str, video: str, voice: str | None, options: Options, parts: list[tuple[str, dict]]
    ) -> tuple[str, dict]:
        await asyncio.to_thread(tasks.store_upload, jobs, job, "source", video)
        for path, own in parts:
            await asyncio.to_thread(tasks.keep_part, jobs, job, path, own)
        await _finished(job, address, "sync", tasks.make(jobs, settings, options, given=voice))
        made = job.facts["results"][0]
        return serve_copy(jobs.folder(job.id) / made["file"]), made["report"] | {
            "words": made["words"],
            "label": made["label"],
        }

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
        consent, options, second = gr.Checkbox(label="consent"), gr.JSON(label="options"), gr.Number(0, label="second")
        voices = gr.File(label="voices", file_count="multiple")
        out, report = gr.File(label="result"), gr.JSON(label="report")
        frame, found, said = gr.File(label="frame"), gr.JSON(label="found"), gr.JSON(label="verdict")
        button = gr.Button()
        button.click(sync, [video, voice, consent, options, voices], [out, report], api_name="sync")
        button.click(faces, [video, second], [frame, found], api_name="faces")
        button.click(verify, file, said, api_name="verify")


def _given(path: str | None, what: str) -> str:
    if not path:
        raise gr.Error(f"No {what} was given.", print_exception=False)
    return path


def divided(options: dict | None, voices: list[str] | None) -> tuple[dict | None, list[dict]]:
    """The options of a whole call, and those of its segments. Raises gr.Error, one sentence."""
    if not isinstance(options, dict) or "segments" not in options:
        if voices:
            raise gr.Error(
                'Say what part each of the voices has: {"segments": [{"voice": 0, "start": 0, "end": 2.5}]}.',
                print_exception=False,
            )
        return options, []
    parts = options["segments"]
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise gr.Error('Segments are a list, like [{"voice": 0, "start": 0, "end": 2.5}].', print_exception=False)
    return {name: value for name, value in options.items() if name != "segments"}, parts


def own_parts(parts: list[dict], voices: list[str] | None, common: Options) -> list[tuple[str, dict]]:
    """The file of each segment and its own options. Raises gr.Error, one sentence."""
    found, voices = [], voices or []
    for number, part in enumerate(parts):
        own, which = {name: value for name, value in part.items() if name != "voice"}, part.get("voice")
        if isinstance(which, bool) or not isinstance(which, int) or not 0 <= which < len(voices):
            raise gr.Error(
                f"Segment {number} names a voice by its number: 0 to {len(voices) - 1} of the {len(voices)} given.",
                print_exception=False,
            )
        try:
            segment(voices[which], common, **own)
        except (LipsyncError, TypeError) as error:
            raise gr.Error(f"Segment {number}: {error}", print_exception=False) from error
        found.append((voices[which], own))
    return found


def checked(options: dict | None) -> Options:
    """Options from a caller's JSON. Raises gr.Error, one sentence."""
    if not isinstance(options, dict | None):
        raise gr.Error('Options are a JSON object, like {"face": "all"}, or null.', print_exception=False)
    options = current_options(options or {})
    open_to_all = [f.name for f in fields(Options) if f.name not in OURS]
    unknown = sorted(set(options) - set(open_to_all))
    if unknown:
        raise gr.Error(f"There is no option {unknown[0]!r}: {', '.join(open_to_all)}.", print_exception=False)
    try:
        return TypeAdapter(Options).validate_python(asdict(Options()) | options)
    except ValidationError as error:
        first = error.errors()[0]
        raise gr.Error(f"The option {first['loc'][0]} is wrong: {first['msg']}.", print_exception=False) from error
    except LipsyncError as error:
        raise gr.Error(str(error), print_exception=False) from error
