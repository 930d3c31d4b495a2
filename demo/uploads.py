"""Visitors' files: which paths are theirs, how uploads arrive, how files are kept and served; never two copies of one.

Gradio's upload folder holds what visitors gave and what is served to them, each under a name that cannot be guessed.
A job keeps what it needs in its own folder, by hard link, so that the sweeper of the one does not touch the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import mimetypes
import os
import re
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Container, Iterable
from pathlib import Path

from gradio.route_utils import (
    FileUploadProgress,
    FileUploadProgressNotQueuedError,
    FileUploadProgressNotTrackedError,
    MultiPartException,
    upload_fn,
)
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse

from lipsync.errors import InputError
from lipsync.messages import Message

from .i18n import by_header, worded

MOST_FILES = 20  # of one upload request
ALIAS = "/files"  # what the gate calls gradio's folder, so that no path of the server leaves it
SHOWN_TYPES = ("video/", "audio/", "image/")  # served as what they are; all else as bytes to save
PROGRESS_S = 10.0  # a finished upload's progress is forgotten after so long


def gradio_folder() -> Path:
    """Gradio's cache of uploads and outputs; server.py puts it into the work folder."""
    return Path(os.environ["GRADIO_TEMP_DIR"])


def uploaded(path: object, folder: Path | None = None) -> Path:
    """The file that a request names: every path that arrives from outside passes through here.

    path    what the request says; folder: the upload folder (default: gradio's)
    Raises InputError unless it is a regular file, reached by no link, inside the folder.
    """
    missing = InputError("That file was not uploaded here, or has been deleted since: upload it again.")
    if not isinstance(path, str | Path) or not 0 < len(str(path)) <= 4096 or re.match(r"[\w+.-]+:", str(path)):
        raise missing
    named, folder = Path(os.path.abspath(path)), Path(os.path.realpath(folder or gradio_folder()))
    try:
        inside = Path(os.path.realpath(named.parent)) / named.name
        if not inside.is_relative_to(folder) or not stat.S_ISREG(os.lstat(inside).st_mode):
            raise missing
    except (OSError, ValueError) as error:
        raise missing from error
    return Path(path)


def unaliased(path: object, folder: Path) -> object:
    """A path under ALIAS as the path in the upload folder; None for anything else, which `uploaded` refuses."""
    if isinstance(path, str) and path.startswith(f"{ALIAS}/"):
        return f"{folder}{path.removeprefix(ALIAS)}"
    return None


def answer(request: Request, status: int, template: str, **values: object) -> Response:
    """A sentence as the whole answer, in the language that the request asks for."""
    t = by_header(request.headers.get("accept-language", ""))
    return PlainTextResponse(worded(Message(template, **values), t), status)


def address_of(path: str | Path) -> str:
    """Where this server serves a file of gradio's folder, as a path that begins with /."""
    return f"/gradio_api/file={ALIAS}/{Path(path).resolve().relative_to(gradio_folder().resolve()).as_posix()}"


def serve(request: Request, path: str) -> Response:
    """GET /gradio_api/file=PATH, in place of gradio's own: a file of the upload folder, named under ALIAS."""
    try:
        file = uploaded(unaliased(f"/{path.lstrip('/')}", gradio_folder()))
    except InputError:
        return answer(request, 404, "There is no such file, or it has been deleted.")
    kind = mimetypes.guess_type(file.name)[0] or ""
    shown = kind.startswith(SHOWN_TYPES) and kind != "image/svg+xml"
    return FileResponse(
        file,
        media_type=kind if shown else "application/octet-stream",
        filename=None if shown else file.name,
        headers={"Cache-Control": "private, no-store"},
    )


def new_path(name: str) -> Path:
    """A path for a file that gradio is to show, in a folder of its own."""
    folder = gradio_folder() / secrets.token_urlsafe(24)
    folder.mkdir(parents=True)
    return folder / name


def serve_copy(path: Path) -> str:
    """A second name of a file under which gradio shows it."""
    served = new_path(path.name)
    link_or_copy(path, served)
    return str(served)


def link_or_copy(path: Path, to: Path) -> None:
    """Give a file a second name; a copy where the file system has no hard links."""
    try:
        os.link(path, to)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        shutil.copyfile(path, to)


def delete(paths: Iterable[str], but: Container[str] = ()) -> None:
    """Remove files of gradio's folder, but for some; paths elsewhere are left alone."""
    for path in (Path(p) for p in paths if p not in but):
        if path.resolve().is_relative_to(gradio_folder().resolve()):
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()


def folder_bytes(folder: Path) -> int:
    """Bytes on disk of all files of a folder; a file with several names counts once."""
    sizes = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            sizes[found.st_ino] = found.st_size if stat.S_ISREG(found.st_mode) else 0
    return sum(sizes.values())


def check_room(work: Path, coming: int, most: float, keep_free: float) -> None:
    """Raise InputError where so many coming bytes do not fit.

    work       the folder of all visitors' files; most: bytes that it may hold
    keep_free  bytes of the disk that stay free
    """
    if shutil.disk_usage(work).free < coming + keep_free or folder_bytes(work) + coming > most:
        raise InputError("This server has no room for that file now; files of others go within the hour. Try later.")


class Uploads:
    """The two routes by which files arrive. A file that is broken off, or does not fit, leaves nothing behind.

    incoming  folder of unfinished uploads, on the file system of gradio's folder; emptied at start
    most      bytes of one file
    """

    def __init__(self, incoming: Path, most: int):
        self._incoming, self._most = incoming, most
        self._progress = FileUploadProgress()
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(mode=0o700, parents=True)

    async def receive(self, request: Request, upload_id: str | None = None) -> Response:
        """POST /gradio_api/upload, as gradio's own: multipart files in, JSON list of their paths out."""
        folder = self._incoming / secrets.token_hex(8)
        track = upload_id if upload_id and len(upload_id) <= 64 else None
        try:
            files, _, _ = await upload_fn(
                request, str(folder), self._most, track, upload_progress=self._progress if track else None
            )
            if len(files) > MOST_FILES:
                return answer(request, 413, "At most {most} files can be uploaded at once.", most=MOST_FILES)
            return JSONResponse([await asyncio.to_thread(self._keep, Path(file)) for file in files])
        except MultiPartException as error:
            if "maximum allowed size" in error.message:
                most = self._most / 1e6
                return answer(request, 413, "The file is larger than the {most:g} MB that fit here.", most=most)
            return answer(request, 400, "The upload could not be read; send it as multipart/form-data.")
        except ClientDisconnect:
            return answer(request, 400, "The upload was broken off.")
        except OSError:
            return answer(request, 507, "This server has no room for that file now. Try later.")
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            if track:
                self._progress.set_done(track)
                asyncio.get_running_loop().call_later(PROGRESS_S, self._progress.stop_tracking, track)

    @staticmethod
    def _keep(file: Path) -> str:
        """Move a whole upload to where gradio expects it: a folder named by its content."""
        kept = gradio_folder() / file.parent.name / file.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.utime(file)  # its time here starts now, whoever gave the same content before
        file.replace(kept)
        return str(kept)

    async def progress(self, upload_id: str) -> Response:
        """GET /gradio_api/upload_progress: server-sent events of one upload, as gradio's page reads them.

        Of an upload that nobody knows there is nothing to say but that it is done.
        """

        async def events() -> AsyncIterator[str]:
            for _ in range(30 if upload_id else 0):  # the page may ask before its upload has begun
                with contextlib.suppress(FileUploadProgressNotTrackedError):
                    self._progress.is_done(upload_id)
                    break
                await asyncio.sleep(0.1)
            with contextlib.suppress(FileUploadProgressNotTrackedError):
                while not self._progress.is_done(upload_id):
                    try:
                        update = self._progress.pop(upload_id)
                    except FileUploadProgressNotQueuedError:
                        await asyncio.sleep(0.1)
                        continue
                    said = {"msg": "update", "orig_name": update.filename, "chunk_size": update.chunk_size}
                    yield f"data: {json.dumps(said)}\n\n"
            yield 'data: {"msg": "done"}\n\n'

        return StreamingResponse(events(), media_type="text/event-stream")
