"""View of a finished video for whoever is sent its link: result, label, score; no source, no voice, no delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, HTTPException, Request
from starlette.responses import FileResponse, Response

from lipsync.errors import LipsyncError

from . import html, tasks
from .jobs import Job
from .pages.frame import render, words_of

if TYPE_CHECKING:
    from .context import Context


def add(app: FastAPI, context: Context) -> None:
    """The routes /watch/NAME, /watch/NAME/0.mp4 and /watch/NAME/preview.jpg; NAME is `Job.shared`."""
    jobs = context.jobs

    def made(name: str) -> tuple[Job, list[dict]]:
        job = jobs.shared(name)
        results = job.facts.get("results", []) if job else []
        if job is None or not results:
            raise HTTPException(404, "There is no such video, or it has been deleted.")
        return job, results

    def served(path: Path, kind: str, name: str | None = None) -> Response:
        if not path.is_file():
            raise HTTPException(404, "There is no such file, or it has been deleted.")
        return FileResponse(path, media_type=kind, filename=name, headers={"Cache-Control": "private, no-store"})

    @app.get("/watch/{name}")
    def watch(name: str, request: Request) -> Response:
        """The page."""
        t = words_of(request)
        try:
            job, results = made(name)
        except HTTPException:
            return render("watch.html", t, 404, title=t["watch_title"], shared=name, results=[], base="")
        shown = [
            {
                "model": html.model_name(one["model"], t),
                "sync": html.fit(one["sync"], t) if "sync" in one else "",
                "picture": html.picture(one["picture"], t) if "picture" in one else "",
                "label": html.label(one["label"], t),
            }
            for one in results
        ]
        base = str(request.base_url).rstrip("/")
        return render("watch.html", t, title=t["watch_title"], shared=name, results=shown, base=base)

    @app.get("/watch/{name}/preview.jpg")
    async def watch_preview(name: str) -> Response:
        """A picture of the first result, made when it is first asked for: most links are never sent."""
        job, results = made(name)
        try:
            picture = await context.pictures.run(tasks.poster, jobs.folder(job.id) / results[0]["file"])
        except LipsyncError as error:
            raise HTTPException(503, error.message) from error
        return served(picture, "image/jpeg")

    @app.get("/watch/{name}/{number}.mp4")
    def watch_video(name: str, number: int, download: bool = False) -> Response:
        """A result, counted from 0."""
        job, results = made(name)
        if not 0 <= number < len(results):
            raise HTTPException(404, "There is no such video, or it has been deleted.")
        file = jobs.folder(job.id) / results[number]["file"]
        return served(file, "video/mp4", f"lipsync_{results[number]['model']}.mp4" if download else None)
