"""Gate in front of gradio: the hosts, origins, routes, sizes and paths that are let through, and no others.

Gradio serves more than this page needs (a recorder that runs the system's ffmpeg, a proxy, component servers, code
editing) and takes paths and addresses in any file input. So nothing reaches it but the routes below, and every file
that a request names has been resolved to a regular file inside the upload folder before gradio sees the request.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from lipsync.errors import InputError
from lipsync.messages import Message

from . import answers
from .i18n import by_header, worded
from .uploads import ALIAS, unaliased, uploaded

BODY_BYTES = 1_000_000  # of any request that carries no file
DEEPEST = 20  # levels of a JSON body
BODY_S = 30.0  # a body that brings nothing for so long is given up
NAMED = "sync|segments|faces|verify"  # endpoints of docs/api.md
STUDY = "[a-z0-9][a-z0-9-]{0,62}"
ROUTES = {
    "GET": [
        r"/",
        r"/config",
        r"/theme\.css",
        r"/favicon\.ico",
        r"/healthz",
        r"/mine",
        r"/(assets|static)/[\w@.,+/-]+",
        r"/jobs/[\w-]{32}/[\w.-]{1,100}",
        r"/watch/[\w-]{32}(/(\d\.mp4|preview\.jpg))?",
        r"/gradio_api/(info|startup-events|upload_progress|queue/data)",
        r"/gradio_api/heartbeat/[\w-]{1,64}",
        rf"/gradio_api/call/({NAMED})/[\w-]{{1,64}}",
        r"/gradio_api/file=.+",
        r"/operator/login",
        r"/pages/[\w.-]{1,60}",
        r"/examples/[\w.-]{1,60}",
        rf"/rate/{STUDY}(/(next|end|sound/[\w-]{{1,64}}|video/[\w.-]{{20,500}}))?",
        rf"/studies(/{STUDY}(/(results|export))?)?",
        r"/leaderboard(\.json|\.csv|/clips\.csv)?",
        r"/leaderboard/row/[0-9a-f]{12}/[0-9a-f]{8,64}(\.json)?",
        r"/leaderboard/score/[0-9a-f]{8,64}\.json",
        r"/benchmark/video/[0-9a-f]{12}/[0-9a-f]{8,64}/[\w.-]{1,100}",
    ],
    "POST": [
        r"/gradio_api/(queue/join|upload|cancel|reset)",
        r"/operator/(login|logout)",
        rf"/rate/{STUDY}/(join|sound|back|answer|pause|withdraw)",
        rf"/studies/(new|{STUDY}/(open|close|publish|unpublish|prepare))",
        rf"/gradio_api/call/({NAMED})",
    ],
}
_ALLOWED = {method: re.compile("|".join(f"(?:{route})" for route in routes)) for method, routes in ROUTES.items()}
_ALLOWED["HEAD"] = _ALLOWED["GET"]
_FILE = "/gradio_api/file="
_UPLOAD = "/gradio_api/upload"
_FORMS = {"/operator/": 10_000, "/studies/": 400_000}  # below these a POST is an HTML form of at most so many bytes

# Gradio's page starts from an inline script and compiles the page's own (`js_on_load`) from text.
PAGE_POLICY = "; ".join((
    "default-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:", "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:", "media-src 'self' data: blob:", "font-src 'self' data:", "connect-src 'self' blob:",
    "worker-src 'self' blob:", "object-src 'none'", "base-uri 'self'", "form-action 'self'", "frame-ancestors 'none'",
))  # fmt: skip
FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"  # a visitor's file is never a page
OWN = ("/operator/", "/pages/", "/leaderboard", "/rate/", "/studies", "/watch/")  # made here, without inline scripts
OWN_POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "media-src 'self' blob:",
    "connect-src 'self'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
))  # fmt: skip
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
}


class Refused(Exception):
    """A request that ends here: HTTP status and a sentence."""

    def __init__(self, status: int, template: str, **values: Any):
        self.status, self.message = status, Message(template, **values)
        super().__init__(self.message)


class Gate:
    """ASGI application around the page's.

    app           what answers the requests that are let through
    uploads       gradio's upload folder
    hosts         host names, without port, by which the page may be called; "*" takes any
    upload_bytes  most that one upload request may bring, all its files together
    room          called with the bytes that an upload announces; raises InputError where they do not fit
    asked         whether something that a session asked is unanswered (answers.py)
    """

    def __init__(
        self,
        app: ASGIApp,
        uploads: Path,
        hosts: Iterable[str],
        upload_bytes: int,
        room: Callable[[int], None],
        asked: Callable[[str], bool],
    ):
        self._app, self._uploads, self._asked = app, uploads.resolve(), asked
        self._hosts = {host.lower() for host in hosts}
        self._upload_bytes, self._room = upload_bytes, room
        folder = str(self._uploads)
        forms = dict.fromkeys((folder, json.dumps(folder)[1:-1], quote(folder)))
        self._names = [form.encode() for form in forms]  # the folder's name, as answers may write it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with a sentence."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # there is no websocket here
            return await send({"type": "websocket.close", "code": 1000})
        is_file, is_own = (
            scope["path"].startswith((_FILE, "/jobs/", "/benchmark/video/")),
            scope["path"].startswith(OWN),
        )
        policy = FILE_POLICY if is_file else OWN_POLICY if is_own else PAGE_POLICY
        # A form without any referrer has "null" as its origin, which nothing could be told from.
        sealed = _sealed(send, policy, self._names, {"Referrer-Policy": "same-origin"} if is_own else {})
        try:
            receive = await self._checked(scope, receive)
        except Refused as refused:
            said = worded(refused.message, by_header(Headers(scope=scope).get("accept-language", "")))
            return await PlainTextResponse(said, refused.status)(scope, receive, sealed)
        if answers.is_stream(scope):
            return await answers.answer(self._app, self._asked, scope, receive, sealed)
        await self._app(scope, receive, sealed)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """What the application is to read the body from. Raises Refused."""
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        host = _name(headers.get("host", ""))
        if "*" not in self._hosts and host not in self._hosts:
            raise Refused(
                400, "This page does not answer to the host name {host!r}; see LIPSYNC_HOSTS.", host=host[:100]
            )
        if method not in _ALLOWED or not _ALLOWED[method].fullmatch(path) or ".." in path.split("/"):
            raise Refused(404, "There is nothing here.")
        if method != "POST":
            return receive
        if (origin := headers.get("origin")) is not None and urlsplit(origin).netloc != headers.get("host"):
            raise Refused(403, "This page takes no requests that another site sends.")
        announced = headers.get("content-length", "")
        size = int(announced) if announced.isdecimal() else 0
        if path == _UPLOAD:
            if size > self._upload_bytes:
                raise Refused(413, "At most {most:.0f} MB can be uploaded at once.", most=self._upload_bytes / 1e6)
            try:
                self._room(size or self._upload_bytes)
            except InputError as full:
                raise Refused(507, full.message) from full
            return _bounded(receive, self._upload_bytes)
        if (most := next((most for begin, most in _FORMS.items() if path.startswith(begin)), None)) is not None:
            if origin is None:
                raise Refused(403, "This form is sent by a browser, from its own page.")
            form = b"".join([part async for part in _parts(receive, most)])
            return _from_bytes(form, scope, receive)
        if size > BODY_BYTES:
            raise Refused(413, "At most {most} kB are taken in a request without files.", most=BODY_BYTES // 1000)
        body = b"".join([part async for part in _parts(receive, BODY_BYTES)])
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "This is not a JSON request.") from error
        return _from_bytes(json.dumps(self._inside(content)).encode(), scope, receive)

    def _inside(self, value: Any, level: int = 0) -> Any:
        """A JSON value whose files all lie in the upload folder; addresses beside them are left out."""
        if level > DEEPEST:
            raise Refused(400, "This request is nested more than {most} levels deep.", most=DEEPEST)
        if isinstance(value, list):
            return [self._inside(item, level + 1) for item in value]
        if not isinstance(value, dict):
            return value
        inside = {key: self._inside(item, level + 1) for key, item in value.items() if key not in ("url", "path")}
        if value.get("path") is not None:
            try:
                inside["path"] = str(uploaded(unaliased(value["path"], self._uploads), self._uploads))
            except InputError as error:
                raise Refused(403, error.message) from error
        return inside


def _name(host: str) -> str:
    """A Host header without its port: "[::1]:7860" -> "[::1]"."""
    return re.sub(r":\d*$", "", host.strip()).lower()


def _sealed(send: Send, policy: str, names: list[bytes], changed: dict[str, str]) -> Send:
    """`send` that puts the headers of this page on every answer, and calls the upload folder by its alias."""
    text = False

    async def sealed(message: Event) -> None:
        nonlocal text
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in (HEADERS | changed).items():
                headers[name] = value
            headers["Content-Security-Policy"] = policy
            text = headers.get("content-type", "").startswith(("application/json", "text/"))
            if text and "content-length" in headers:
                del headers["content-length"]  # which the alias changes
        elif text and message.get("body"):
            for name in names:
                message["body"] = message["body"].replace(name, ALIAS.encode())
        await send(message)

    return sealed


async def _next(receive: Receive) -> Event:
    try:
        return await asyncio.wait_for(receive(), BODY_S)
    except TimeoutError as error:
        raise Refused(408, "Nothing came for {seconds:g} s, so the request was given up.", seconds=BODY_S) from error


async def _parts(receive: Receive, most: int) -> Any:
    """The parts of a body of at most so many bytes."""
    count = 0
    while True:
        message = await _next(receive)
        if message["type"] == "http.disconnect":
            raise Refused(400, "The request was broken off.")
        part = message.get("body", b"")
        count += len(part)
        if count > most:
            raise Refused(413, "At most {most} kB are taken in a request without files.", most=most // 1000)
        yield part
        if not message.get("more_body"):
            return


def _bounded(receive: Receive, most: int) -> Receive:
    """`receive` that takes a body for broken off when it grows beyond `most` bytes or stands still."""
    count, over = 0, False

    async def bounded() -> Event:
        nonlocal count, over
        if over:
            return await receive()
        try:
            message = await _next(receive)
        except Refused:
            return {"type": "http.disconnect"}
        count += len(message.get("body", b""))
        over = message["type"] != "http.request" or not message.get("more_body")
        return {"type": "http.disconnect"} if count > most else message

    return bounded


def _from_bytes(body: bytes, scope: Scope, receive: Receive) -> Receive:
    """`receive` that gives these bytes as the body; later it tells when the visitor leaves."""
    headers = MutableHeaders(scope=scope)
    headers["content-length"] = str(len(body))
    given = False

    async def replay() -> Event:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
