"""Handlers of the first tab: what happens to a visitor's job between two clicks, without any layout.

Each answers at once with updates by component name. While a job is busy, `watch` carries its view and task, and
static/watch.js asks for its progress (`Flow.progress`) outside gradio's queue, then comes back through `settled`.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from lipsync.errors import LipsyncError
from lipsync.media.timeline import meeting
from lipsync.options import Options

from .. import html, tasks
from ..context import Context
from ..i18n import worded
from ..jobs import Job
from ..uploads import delete

View = dict[str, Any]
# What belongs to one clip, consent to use its face included, does not go over to the next.
AFRESH: View = {"face": "largest", "which": "largest", "start": 0, "end": 0, "audio_delay_frames": 0, "consent": False}
Texts = dict[str, str]
# What stands beside each field once it was wrong, by the id of the field that is marked.
FIELDS = {"face": "giving", "voice": "voice", "consent": "consent", "options": "part", "pick": "preview"}
MENDED: View = {f"said_{name}": "" for name in FIELDS}
STEPS = {"face": "face", "pick": "face", "voice": "voice"}  # the step that holds a field


@dataclass(frozen=True)
class Flow:
    """The context, and how a job is shown."""

    context: Context

    def shown(self, job: Job | None, point: str, t: Texts) -> View:
        """Everything that the page shows of a job, the videos of its results excepted."""
        jobs = self.context.jobs
        busy, measuring = job is not None and job.busy, job is not None and job.task == "evaluate"
        making = job is not None and (busy and job.task == "sync" or jobs.pending(job.id))
        said = "" if job is None else html.status(job, jobs.ahead(job.id), jobs.progress(job.id), t)
        looking = job is not None and job.task == "faces"  # how that goes is said where the face will be shown
        facts = job.facts if job else {}
        moves = bool(facts.get("preview")) and not facts.get("still")
        faceless = job is not None and not busy and (facts.get("faces") == 0 or looking and job.state == "failed")
        line = html.live(job, *html.state(job, 0, jobs.progress(job.id), t)) if busy and measuring else ""
        return {
            "giving": gr.update(visible=job is None),
            "given": gr.update(visible=job is not None),
            "preview": (said if looking else "") + html.preview(job, point, t),
            "second": gr.update(
                visible=moves,
                maximum=max(facts.get("seconds", 0.0), 0.1),
                value=facts["preview"]["second"] if moves else 0,
            ),
            "status": "" if looking else said,
            "facts": html.facts(job, line, t),
            "mine": html.mine(job, t),
            "after": gr.update(visible=bool(facts.get("results"))),
            "go": gr.update(interactive=not (making or faceless), value=t["go_no_face" if faceless else "go"]),
            "again": gr.update(interactive=not (making or faceless)),
            "remove": gr.update(interactive=not making, value=t["delete_busy" if making else "delete"]),
            "cancel": gr.update(visible=making or busy and not measuring),
            "watch": f"{job.view} {job.task}" if busy else "",
            "showcase": gr.update(visible=job is None),
            "parts": html.parts(job, t),
            "add": gr.update(visible=bool(facts.get("preview"))),
        }

    def whole(self, job: Job | None, point: str, t: Texts) -> View:
        """As `shown`, with the videos; once there are any, face and voice are a line each."""
        view = self.shown(job, point, t) | {"results": html.results(job, t), "sure": gr.update(visible=False)}
        folded = job is not None and bool(job.facts.get("results"))
        for step in ("face", "voice"):
            view |= {f"{step}_line": html.given(job, step, t)} if folded else self.unfold(step)
        return view

    def unfold(self, step: str) -> View:
        """All of a step (face | voice): it is folded as long as its line says something (static/around.css)."""
        return {f"{step}_line": ""}

    def empty(self, t: Texts, sentence: str = "") -> View:
        """The page without a job, and a sentence (HTML) in its status."""
        return self.whole(None, "", t) | AFRESH | MENDED | {"job": "", "status": sentence, "meeting": ""}

    def said(self, sentence: str) -> View:
        """A sentence for the status; all else stays."""
        return {"status": html.sentence(sentence)}

    def wrong(self, field: str, sentence: str) -> View:
        """A sentence beside the field that it is about (a key of FIELDS); what was said of others goes."""
        seen = self.unfold(STEPS[field]) if field in STEPS else {}
        return seen | MENDED | {f"said_{field}": html.wrong(FIELDS[field], sentence)}

    def meets(self, job_id: str, heard: View, options: Options, t: Texts) -> View:
        """What will be done with the lengths of voice and video, once both are known."""
        job = self.context.jobs.get(job_id)
        voice_s, video_s = heard.get("seconds", 0.0), job.facts.get("seconds", 0.0) if job else 0.0
        if job is not None and job.facts.get("parts"):  # beside others a voice ends with its part
            return {"meeting": html.note(t["meet_parts"])}
        if not voice_s or not video_s:
            return {"meeting": ""}
        return {"meeting": html.meets(voice_s, video_s, meeting(voice_s, video_s, options), t)}

    def keep(self, job_id: str, voice: str, seconds: float, options: Options, t: Texts) -> View:
        """Keep a voice for its face and part; the fields are free for the next one."""
        job = self.context.jobs.get(job_id)
        try:
            tasks.keep_part(self.context.jobs, job, voice, asdict(options), seconds)
        except LipsyncError as error:
            return self.wrong("voice", worded(error.message, t))
        fresh = {name: AFRESH[name] for name in ("face", "which", "start", "end", "audio_delay_frames")}
        if len(job.facts.get("preview", {}).get("boxes", ())) > 1:  # whose the next one is, is asked
            fresh |= {"face": "", "which": "picked"}
        shown = {"parts": html.parts(job, t), "preview": html.preview(job, fresh["which"], t)}
        return shown | fresh | MENDED | {"voice": None, "heard": {}, "meeting": html.note(t["meet_parts"])}

    def drop(self, job_id: str, key: str, picked: str, t: Texts) -> View:
        """Forget one of the voices that were kept."""
        job = self.context.jobs.get(job_id)
        if job is None:
            return {}
        if job.busy and job.task == "sync":  # it is being read
            return self.wrong("voice", t["part_busy"])
        tasks.drop_part(self.context.jobs, job, key)
        return {"parts": html.parts(job, t), "preview": html.preview(job, picked, t), "said_voice": ""}

    def progress(self, view: str, t: Texts) -> dict[str, Any] | None:
        """How the job of a view stands, for static/watch.js; None where there is none."""
        jobs = self.context.jobs
        job = jobs.viewed(view)
        if job is None:
            return None
        if not job.busy:
            ready = job.task == "sync" and job.state == "done"
            return {"busy": False, "task": job.task, "stage": t["ready"] if ready else ""}
        text, share = html.state(job, jobs.ahead(job.id), jobs.progress(job.id), t)
        stage = "" if job.task == "evaluate" else text.partition(" · ")[0]  # what a screen reader says, once
        return {"busy": True, "task": job.task, "text": text, "stage": stage, "share": round(share, 3)}

    def settled(self, job_id: str, point: str, t: Texts) -> View:
        """A job's task ended or changed. Once its video is there, whoever asked for it, its sync is measured."""
        jobs = self.context.jobs
        job = jobs.get(job_id)
        if job is None:
            return {}
        if job.task == "evaluate" and not job.busy and job.state != "interrupted":
            return self.shown(job, point, t)  # the videos stay, and may be playing
        if (job.task, job.state) in (("sync", "done"), ("evaluate", "interrupted")):
            jobs.submit(job_id, "evaluate", tasks.measure(jobs))
        view = self.whole(job, point, t)
        return view if jobs.get(job_id) is not None else {}  # left meanwhile: the page is another's

    def leave(self, job_id: str) -> None:
        """The visitor takes another face: what is unfinished goes, a finished video keeps its link."""
        jobs = self.context.jobs
        job = jobs.get(job_id)
        if job is None:
            return
        if job.facts.get("results"):
            jobs.cancel(job_id)
        else:
            # not the voice in its field, which is there for the next face
            gone = [path for kind, path in job.facts["given"].items() if kind != "voice"]
            delete(gone, jobs.named_by_others(job.id))
            jobs.delete(job_id)

    async def take(self, path: str | None, old: str, address: str, t: Texts) -> View:
        """A face was given (or taken away): look for faces in it."""
        jobs = self.context.jobs
        if not path:
            self.leave(old)
            return self.empty(t)
        job = None
        try:  # at once, and before `leave`: the same file may lie at the same path for the old job or another visitor
            job = jobs.create()
            await asyncio.to_thread(tasks.store_upload, jobs, job, "source", path)
            jobs.submit(job.id, "faces", tasks.look(jobs, self.context.settings), address)
        except LipsyncError as error:
            if job is not None:
                jobs.delete(job.id)
            return self.wrong("face", worded(error.message, t))
        self.leave(old)
        jobs.update(job.id, uploads=[path])
        view = self.whole(job, "", t) | {"job": job.id, "meeting": "", "said_face": "", "said_pick": ""} | AFRESH
        if not old:  # whoever ticked while this file was on its way meant this one
            del view["consent"]
        return view

    async def show(self, job_id: str, second: float, point: str, address: str, t: Texts) -> View:
        """Show another frame of a job's source; its faces are looked for again where they were forgotten."""
        jobs = self.context.jobs
        job, known = jobs.get(job_id), jobs.memory.get(job_id)
        if job is None or (job.busy and job.task != "evaluate"):
            return {}
        try:
            if known is None:
                jobs.submit(job.id, "faces", tasks.look(jobs, self.context.settings, second), address)
                return self.shown(job, point, t)
            await asyncio.to_thread(tasks.show, jobs, job, known, second)
        except LipsyncError as error:
            return self.said(worded(error.message, t))
        return {"preview": html.preview(job, point, t)}

    def start(
        self, job_id: str, voice: str | None, options: Options, second_model: str | None, address: str, t: Texts
    ) -> View:
        """Make the video of a job, now or once its faces are found."""
        jobs = self.context.jobs
        job = jobs.get(job_id)
        if job is None:
            return self.wrong("face", t["need_source"])
        if not job.busy and job.state == "failed" and "preview" not in job.facts:
            return {}  # why nothing can be made of this clip is on the screen
        uploads = {*job.facts.get("uploads", []), *([voice] if voice else [])}
        asked = {"options": asdict(options), "compare": second_model or ""}  # for a page that opens the link
        try:
            jobs.update(job_id, uploads=sorted(uploads), **asked)
            if voice:  # at once: a job may wait for longer than an upload stays
                tasks.store_upload(jobs, job, "voice", voice)
            kept = job.facts.get("parts", [])
            work = tasks.make(jobs, self.context.settings, options, second_model, voice, kept)
            jobs.submit(job_id, "sync", work, address)
        except LipsyncError as error:
            return self.said(worded(error.message, t))
        return self.shown(job, options.face, t) | MENDED | {"sure": gr.update(visible=False)}
