"""Server of the page: gradio behind its gate, job files and progress, health, and the sweeper."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import resource
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import FileResponse, JSONResponse, Response
from filelock import FileLock, Timeout

from lipsync.errors import InputError, LipsyncError
from lipsync.label.keys import check_keys_apart
from lipsync.messages import Message

from .settings import Settings, read_settings

if TYPE_CHECKING:
    from .gate import Gate

MEDIA_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm",
               ".mkv": "video/x-matroska", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png",
               ".webp": "image/webp", ".gif": "image/gif", ".bmp": "image/bmp", ".avif": "image/avif"}  # fmt: skip
SWEEP_EVERY_S = 60
HERE = Path(__file__).parent
ICON = HERE / "static" / "icon.svg"
EXAMPLES = {path.name for path in (HERE / "assets").iterdir() if path.suffix in MEDIA_TYPES}
SLOTS = 500  # events of gradio that may be under way; each is short, or waits for a job of the capped queue
SESSIONS = 300  # visitors whose page state gradio remembers
IDLE_S = 20.0  # a connection that asks nothing for so long is closed
DESCRIPTORS = 4096
MOST_MINE = 12  # of one visitor's videos that are asked for at once, as in static/mine.js
WARM_UP_S = 20.0  # that the end of the process waits for what is being loaded
_log = logging.getLogger("lipsync.page")


def build(settings: Settings) -> Gate:
    """The whole server as an ASGI app, whose `context` is the page's."""
    work = settings.work.resolve()
    folder = work / "gradio"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # gradio reads it when it builds its components
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    import gradio as gr

    from . import api, benchmark
    from .context import Context
    from .fields import give_paths
    from .gate import Gate
    from .i18n import I18N, by_header, text, worded
    from .jobs import FolderSweeper, JobQueue
    from .operator import Operator
    from .pages import PAGES
    from .tabs import TABS, footer, open_when_asked
    from .tabs.flow import Flow
    from .tasks import input_file, saved_name, warm_up
    from .theme import HEAD, THEME, static
    from .uploads import Uploads, check_room, serve

    give_paths()
    keep_s, upload_bytes = settings.keep_minutes * 60, int(settings.max_megabytes * 1e6)
    jobs = JobQueue(
        work / "jobs",
        keep_s,
        settings.at_once,
        max_waiting=settings.max_waiting,
        max_waiting_each=settings.max_waiting_each,
        budget_s=settings.max_minutes * 60,
    )
    context, uploads, sweeper = (
        Context(settings, jobs, Operator(settings.operator_password.get_secret_value())),
        Uploads(work / "incoming", upload_bytes),
        FolderSweeper(folder, keep_s),
    )
    flow = Flow(context)

    def sweep() -> None:
        jobs.sweep()
        sweeper.sweep()

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
        warming = threading.Thread(target=warm_up, daemon=True, name="warm-up")
        warming.start()
        # A thread that comes back from OpenVINO to an interpreter that is gone takes the process down with an abort.
        atexit.register(warming.join, WARM_UP_S)
        threading.Thread(target=benchmark.warm_up, args=(context,), daemon=True, name="warm-up-store").start()
        yield
        over.set()
        jobs.close()
        context.studies.close()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        """The sentence of an error, in the visitor's language."""
        error.detail = worded(Message(error.detail), by_header(request.headers.get("accept-language", "")))
        return await http_exception_handler(request, error)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """For whoever watches the server."""
        return {"status": "ok"}

    @app.get("/mine")
    def job_views(views: str = "") -> JSONResponse:
        """Which of these jobs have a finished video still, for static/mine.js."""
        found = {view: jobs.viewed(view) for view in views.split(",")[:MOST_MINE]}
        there = [view for view, job in found.items() if job is not None and job.facts.get("results")]
        return JSONResponse(there, headers={"Cache-Control": "no-store"})

    @app.get("/jobs/{view}/status")
    def job_status(view: str, request: Request) -> JSONResponse:
        """How a job stands, for static/watch.js."""
        state = flow.progress(view, by_header(request.headers.get("accept-language", "")))
        if state is None:
            raise HTTPException(404, "There is no such job, or it has been deleted.")
        return JSONResponse(state, headers={"Cache-Control": "no-store"})

    @app.get("/jobs/{view}/{name}")
    def job_file(view: str, name: str, download: bool = False) -> FileResponse:
        """A file of a job, to whoever knows the name under which it is viewed."""
        job = jobs.viewed(view)
        path: Path | None = None
        saved = "lipsync"
        if job is not None:
            if name == "source":
                path = input_file(jobs, job, "source")
            elif name == "preview.jpg" or name in {one["file"] for one in job.facts.get("results", [])}:
                path = jobs.folder(job.id) / name
                saved = saved_name(job, name)
        if path is None or not path.is_file():
            raise HTTPException(404, "There is no such file, or it has been deleted.")
        return FileResponse(
            path,
            media_type=MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream"),
            filename=saved if download else None,
            headers={"Cache-Control": "private, no-store"},
        )

    @app.get("/examples/{name}")
    def example_file(name: str) -> FileResponse:
        """A file of assets/, for the first view."""
        if name not in EXAMPLES:
            raise HTTPException(404, "There is no such file, or it has been deleted.")
        path = HERE / "assets" / name
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers={"Cache-Control": "max-age=3600"})

    for own in PAGES:
        own.add(app, context)
    app.post("/gradio_api/upload")(uploads.receive)  # in place of gradio's own
    app.get("/gradio_api/upload_progress")(uploads.progress)
    app.get("/gradio_api/file={path:path}")(serve)

    with gr.Blocks(title="Lip-sync", analytics_enabled=False) as page:
        gr.Markdown(text("header"), elem_classes="lead")
        with gr.Tabs() as tabs:
            for tab in TABS:
                with gr.Tab(text(tab.KEY), id=tab.KEY) as place:
                    opened = tab.build(page, context)
                if opened:
                    open_when_asked(page, tabs, place, tab.KEY, opened)
        api.build(page, context)
        footer.build(page, context)
    page.state_session_capacity = SESSIONS
    page.queue(default_concurrency_limit=None, max_size=SLOTS)
    page._queue.max_thread_count = SLOTS  # as launch(max_threads=...) sets it
    page.has_launched = True  # without it gradio checks no path at all when it is mounted
    mounted = gr.mount_gradio_app(
        app,
        page,
        path="",
        theme=THEME,
        css=static("page.css"),
        head=HEAD,
        i18n=I18N,
        footer_links=[],
        run_history=False,
        favicon_path=ICON,
        show_error=False,
        max_file_size=upload_bytes,
        ssr_mode=False,
    )
    check_gradio(page)

    def room(coming: int) -> None:
        check_room(work, coming, settings.max_gigabytes * 1e9, settings.keep_free_megabytes * 1e6)

    def asked(session: str) -> bool:
        return bool(page._queue.pending_event_ids_session.get(session))

    gate = Gate(mounted, folder, settings.host_names, upload_bytes + 100_000, room, asked)
    gate.context = context
    return gate


def check_gradio(page: Any) -> None:
    """Raise RuntimeError where this gradio no longer refuses paths outside its upload folder, or has lost a route."""
    from gradio import processing_utils
    from gradio.context import LocalContext
    from gradio.exceptions import InvalidPathError

    token = LocalContext.blocks.set(page)
    try:
        for outside in (__file__, "/etc/hostname"):
            try:
                processing_utils._check_allowed(outside, check_in_upload_folder=True)
            except InvalidPathError:
                continue
            raise RuntimeError(f"gradio lets {outside} pass for an upload: this version cannot be served.")
    finally:
        LocalContext.blocks.reset(token)


def _not_an_open_page(record: logging.LogRecord) -> bool:
    """At the end of the server, pages that are still open are no error."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _listen(settings: Settings) -> socket.socket:
    """The bound socket. Raises InputError that names the setting."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=512)
    except OSError as error:
        raise InputError(
            "The page cannot listen on {host} port {port} ({error}): set LIPSYNC_PORT or LIPSYNC_HOST to another.",
            host=settings.host,
            port=settings.port,
            error=error.strerror or error,
        ) from error


def _own(work: Path) -> FileLock:
    """The lock of the work folder. Raises InputError where it cannot be written, or another page works in it."""
    lock = FileLock(work / "page.lock", timeout=0)
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:  # each would sweep the other's jobs away
        raise InputError(
            "Another page works in {work}: end it, or set LIPSYNC_WORK to another folder.", work=work
        ) from error
    except OSError as error:
        raise InputError(
            "The folder {work} cannot be written ({error}): set LIPSYNC_WORK to another folder.",
            work=work,
            error=error.strerror,
        ) from error
    return lock


def _more_descriptors() -> None:
    """Each visitor holds two connections; the usual 1,024 descriptors are soon used up."""
    with suppress(ValueError, OSError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def main() -> None:
    """Serve until Ctrl-C; what hinders the start is one sentence and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_not_an_open_page)
    try:
        settings = read_settings()
        check_keys_apart(settings.work)
        lock = _own(settings.work)
        listener = _listen(settings)
    except LipsyncError as error:
        sys.exit(str(error))
    with listener:
        _more_descriptors()
        _serve(settings, listener)
    lock.release()


def _serve(settings: Settings, listener: socket.socket) -> None:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        """A connection that closes where no request comes."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.loop.call_later(IDLE_S, self._close_if_idle)

        def _close_if_idle(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    class Server(uvicorn.Server):
        """Says where the page is once it is there."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                port = listener.getsockname()[1]
                print(f"The page is on http://{settings.host}:{port} (Ctrl-C ends it)", flush=True)

    config = uvicorn.Config(
        build(settings), http=Impatient, ws="none", log_level="warning", timeout_graceful_shutdown=3, backlog=512
    )
    Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
