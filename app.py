"""Starts the page: `python app.py` (or `make demo`). Settings come from the environment, see demo/settings.py."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from demo.settings import Settings

MEDIA_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm",
               ".mkv": "video/x-matroska", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png",
               ".webp": "image/webp", ".gif": "image/gif", ".bmp": "image/bmp", ".avif": "image/avif"}  # fmt: skip
SWEEP_EVERY_S = 60
_log = logging.getLogger("lipsync.page")


def build(settings: Settings):
    """The whole server as an ASGI app: page, API, job files, health."""
    work = settings.work.resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(work / "gradio")  # gradio reads it when it builds its components
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    (work / "gradio").mkdir(mode=0o700, parents=True, exist_ok=True)

    import gradio as gr
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse

    from demo import api, label_tab, small_print, sync_tab
    from demo.jobs import Store, sweep_folder
    from demo.texts import I18N, text
    from demo.theme import CSS, HEAD, THEME
    from demo.work import input_file, warm_up

    tabs = [sync_tab, label_tab]  # each: TITLE, a key of texts.py, and build(page, store, settings)
    keep_s = settings.keep_minutes * 60
    store = Store(work / "jobs", keep_s, settings.at_once)

    def sweep() -> None:
        store.sweep()
        sweep_folder(work / "gradio", keep_s, time.time())

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        over = threading.Event()

        def tidy() -> None:
            while not over.wait(SWEEP_EVERY_S):
                try:
                    sweep()
                except Exception:
                    _log.exception("the sweeper failed; it goes on")

        sweep()
        threading.Thread(target=tidy, daemon=True, name="sweeper").start()
        threading.Thread(target=warm_up, daemon=True, name="warm-up").start()
        yield
        over.set()
        store.close()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store = store

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """For whoever watches the server."""
        return {"status": "ok"}

    @app.get("/jobs/{job_id}/{name}")
    def job_file(job_id: str, name: str, download: bool = False) -> FileResponse:
        """A file of a job, to whoever knows the job's id."""
        job = store.get(job_id)
        path: Path | None = None
        if job is not None:
            if name == "source":
                path = input_file(store, job, "source")
            elif name == "preview.jpg" or name in {one["file"] for one in job.facts.get("results", [])}:
                path = store.folder(job_id) / name
        if path is None or not path.is_file():
            raise HTTPException(404, "There is no such file, or it has been deleted.")
        return FileResponse(
            path,
            media_type=MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream"),
            filename="lipsync.mp4" if download else None,
            headers={
                "Cache-Control": "private, no-store",
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "default-src 'none'; sandbox",
                "Referrer-Policy": "no-referrer",
            },
        )

    with gr.Blocks(title="Lip-sync", analytics_enabled=False) as page:
        gr.Markdown(text("header"), elem_classes="lead")
        with gr.Tabs():
            for tab in tabs:
                with gr.Tab(text(tab.TITLE), id=tab.TITLE):
                    tab.build(page, store, settings)
        api.build(page, store, settings)
        small_print.build(page, store, settings)
    page.queue(default_concurrency_limit=None, max_size=64)
    return gr.mount_gradio_app(
        app,
        page,
        path="",
        theme=THEME,
        css=CSS,
        head=HEAD,
        i18n=I18N,
        footer_links=[],
        run_history=False,
        max_file_size=int(settings.max_megabytes * 1e6),
        ssr_mode=False,
    )


def _not_an_open_page(record: logging.LogRecord) -> bool:
    """At the end of the server, pages that are still open are no error."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def main() -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_not_an_open_page)
    settings = Settings()
    settings.work.mkdir(parents=True, exist_ok=True)
    mine = FileLock(settings.work / "page.lock", timeout=0)
    try:
        mine.acquire()
    except Timeout:  # each would sweep the other's jobs away
        sys.exit(f"Another page works in {settings.work}: end it, or set LIPSYNC_WORK to another folder.")
    app = build(settings)
    print(f"The page is on http://{settings.host}:{settings.port} (Ctrl-C ends it)", flush=True)
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()
