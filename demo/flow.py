"""What happens to a visitor's job between two clicks: the page's generators, without any layout.

Each yields updates for the same row of components, named in `Flow.shown`, until there is nothing left to wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import gradio as gr

from lipsync.records import Options

from . import views, work
from .jobs import Job, Store
from .settings import Settings

POLL_S = 0.2


@dataclass(frozen=True)
class Flow:
    """The store, the settings, and how a job is shown."""

    store: Store
    settings: Settings

    def shown(self, job: Job | None, face: str, t: dict[str, str], whole: bool) -> tuple:
        """Updates for giving, given, preview, second, status, results, after, go, cancel (sync_tab.py).

        whole: False leaves out what does not change while the video is being made.
        """
        busy = job is not None and job.busy
        said = "" if job is None else views.status(job, self.store.ahead(job.id), self.store.progress(job.id), t)
        looking = job is not None and job.task == "faces"  # how that goes is said where the face will be shown
        buttons = (gr.update(value=t["go"], interactive=not busy), gr.update(value=t["cancel"], visible=busy))
        if not whole and not looking:
            return (*[gr.skip()] * 4, said, *[gr.skip()] * 2, *buttons)
        facts = job.facts if job else {}
        moves = bool(facts.get("preview")) and not facts.get("still")
        second = gr.update(
            visible=moves,
            maximum=max(facts.get("seconds", 0.0), 0.1),
            value=facts["preview"]["second"] if moves else 0,
        )
        return (
            gr.update(visible=job is None),
            gr.update(visible=job is not None),
            (said if looking else "") + views.preview(job, face, t),
            second,
            "" if looking else said,
            views.results(job, t),
            gr.update(visible=bool(facts.get("results"))),
            *buttons,
        )

    async def follow(self, job_id: str, face: str, t: dict[str, str]) -> AsyncIterator[tuple]:
        """Show a job until nothing is left to wait for. A job that is deleted meanwhile is left in silence."""
        first = True
        while (job := self.store.get(job_id)) is not None and job.busy:
            yield self.shown(job, face, t, whole=first and job.task == "faces")
            first = False
            await asyncio.sleep(POLL_S)
        if job is not None:
            yield self.shown(job, face, t, whole=True)

    def leave(self, job_id: str) -> None:
        """The visitor takes another face: what is unfinished goes, a finished video keeps its link."""
        job = self.store.get(job_id)
        if job is not None and (job.busy or not job.facts.get("results")):
            self.store.delete(job_id)

    async def take(self, path: str | None, old: str, t: dict[str, str]) -> AsyncIterator[tuple]:
        """A face was given (or taken away): look for faces in it. Yields (job id, face, which, *shown)."""
        self.leave(old)
        rest = ("largest", "largest")
        if not path:
            yield ("", *rest, *self.shown(None, "", t, whole=True))
            return
        job = self.store.create()
        self.store.update(job.id, uploads=[path])
        self.store.submit(job.id, "faces", work.look(self.store, self.settings, given=path))
        async for view in self.follow(job.id, "", t):
            yield (job.id, *rest, *view)

    async def start(
        self, job_id: str, voice: str | None, options: Options, second_model: str | None, t: dict[str, str]
    ) -> AsyncIterator[tuple]:
        """Make the video of a job. Yields as `follow` does."""
        async for view in self.follow(job_id, options.face, t):  # the faces may still be looked for
            yield view
        job = self.store.get(job_id)
        if job is None or "preview" not in job.facts:
            return
        if voice:
            self.store.update(job_id, uploads=[*job.facts.get("uploads", []), voice])
        self.store.submit(job_id, "sync", work.make(self.store, self.settings, options, second_model, voice))
        async for view in self.follow(job_id, options.face, t):
            yield view
