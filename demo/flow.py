"""What happens to a visitor's job between two clicks: the page's generators, without any layout.

Each yields updates for the same row of components (`SHOWN`) until there is nothing left to wait for, and at least one:
gradio takes a generator that gives nothing for one that empties everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import gradio as gr

from lipsync.errors import LipsyncError
from lipsync.records import Options

from . import views, work
from .jobs import Job, Store
from .lending import take_back
from .settings import Settings

POLL_S = 0.2
SHOWN = ("giving", "given", "preview", "second", "status", "results", "after", "go", "cancel")


@dataclass(frozen=True)
class Flow:
    """The store, the settings, and how a job is shown."""

    store: Store
    settings: Settings

    def shown(self, job: Job | None, face: str, t: dict[str, str], whole: bool = True) -> tuple:
        """Updates for `SHOWN`. whole: False leaves out what does not change while the video is being made."""
        busy = job is not None and job.busy
        said = "" if job is None else views.status(job, self.store.ahead(job.id), self.store.progress(job.id), t)
        looking = job is not None and job.task == "faces"  # how that goes is said where the face will be shown
        buttons = {
            "go": gr.update(value=t["go"], interactive=not busy),
            "cancel": gr.update(value=t["cancel"], visible=busy),
        }
        if not whole and not looking:
            return _row(status=said, **buttons)
        facts = job.facts if job else {}
        moves = bool(facts.get("preview")) and not facts.get("still")
        return _row(
            giving=gr.update(visible=job is None),
            given=gr.update(visible=job is not None),
            preview=(said if looking else "") + views.preview(job, face, t),
            second=gr.update(
                visible=moves,
                maximum=max(facts.get("seconds", 0.0), 0.1),
                value=facts["preview"]["second"] if moves else 0,
            ),
            status="" if looking else said,
            results=views.results(job, t),
            after=gr.update(visible=bool(facts.get("results"))),
            **buttons,
        )

    def empty(self, t: dict[str, str], sentence: str = "") -> tuple:
        """The page without a job, and a sentence (HTML) in its status."""
        view = list(self.shown(None, "", t))
        view[SHOWN.index("status")] = sentence
        return tuple(view)

    async def follow(self, job_id: str, face: str, t: dict[str, str]) -> AsyncIterator[tuple]:
        """Show a job until nothing is left to wait for. A job that is deleted meanwhile is left as it was."""
        first = True
        while (job := self.store.get(job_id)) is not None and job.busy:
            yield self.shown(job, face, t, whole=first)
            first = False
            await asyncio.sleep(POLL_S)
        yield _row() if job is None else self.shown(job, face, t)

    async def finish(self, job_id: str, face: str, t: dict[str, str]) -> AsyncIterator[tuple]:
        """Follow a job; once its video is there, whoever asked for it, measure how well it fits."""
        async for view in self.follow(job_id, face, t):
            yield view
        job = self.store.get(job_id)
        if job is not None and (job.task, job.state) in (("sync", "done"), ("judge", "interrupted")):
            self.store.submit(job_id, "judge", work.measure(self.store))
            async for view in self.follow(job_id, face, t):
                yield view

    def leave(self, job_id: str) -> None:
        """The visitor takes another face: what is unfinished goes, a finished video keeps its link."""
        job = self.store.get(job_id)
        if job is None:
            return
        if job.facts.get("results"):
            self.store.cancel(job_id)
        else:
            # not the voice: it is in its field still, for the next face
            take_back([job.facts["given"]["source"]], self.store.named_by_others(job.id))
            self.store.delete(job_id)

    async def take(self, path: str | None, old: str, t: dict[str, str]) -> AsyncIterator[tuple]:
        """A face was given (or taken away): look for faces in it. Yields (job id, face, which, *SHOWN)."""
        rest = ("largest", "largest")
        if not path:
            self.leave(old)
            yield ("", *rest, *self.empty(t))
            return
        job = self.store.create()
        try:  # at once, and before `leave`: the same file may lie at the same path for the old job or another visitor
            await asyncio.to_thread(work.keep_input, self.store, job, "source", path)
        except LipsyncError as error:
            self.store.delete(job.id)
            yield (old, gr.skip(), gr.skip(), *self.said(views.sentence(str(error))))
            return
        self.leave(old)
        self.store.update(job.id, uploads=[path])
        self.store.submit(job.id, "faces", work.look(self.store, self.settings))
        async for view in self.follow(job.id, "", t):
            yield (job.id, *rest, *view)

    async def show(self, job_id: str, second: float, face: str, t: dict[str, str]) -> AsyncIterator[tuple]:
        """Show another frame of a job's source; its faces are looked for again where they were forgotten."""
        job = self.store.get(job_id)
        if job is None or job.busy:
            yield _row()
        elif job.id in self.store.memory:
            await asyncio.to_thread(work.show, self.store, job, second)
            yield _row(preview=views.preview(job, face, t))
        else:
            self.store.submit(job.id, "faces", work.look(self.store, self.settings, second))
            async for view in self.follow(job.id, face, t):
                yield view

    async def start(
        self, job_id: str, voice: str | None, options: Options, second_model: str | None, t: dict[str, str]
    ) -> AsyncIterator[tuple]:
        """Make the video of a job."""
        async for view in self.follow(job_id, options.face, t):  # the faces may still be looked for
            yield view
        job = self.store.get(job_id)
        if job is None or (job.state == "failed" and "preview" not in job.facts):
            return
        uploads = {*job.facts.get("uploads", []), *([voice] if voice else [])}
        asked = {"options": asdict(options), "compare": second_model or ""}  # for a page that opens the link
        self.store.update(job_id, uploads=sorted(uploads), **asked)
        self.store.submit(job_id, "sync", work.make(self.store, self.settings, options, second_model, voice))
        async for view in self.finish(job_id, options.face, t):
            yield view

    def said(self, sentence: str) -> tuple:
        """A sentence (HTML) in the status; all else stays."""
        return _row(status=sentence)

    def nothing(self) -> tuple:
        """All stays."""
        return _row()


def _row(**changed: object) -> tuple:
    """Updates in the order of SHOWN; what is not named stays."""
    return tuple(changed.get(name, gr.skip()) for name in SHOWN)
