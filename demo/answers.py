"""The stream on which gradio answers a page, kept open for a while after the last answer.

gradio ends it with `close_stream` as soon as nothing is asked. A click that crosses that word on its way finds the
stream still open, its answer is written to none, and the page waits for ever (gradio 6.31, its client and queue_data in
routes.py). So the word is held back for LINGER_S, and what is asked meanwhile is answered on the same stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATH = "/gradio_api/queue/data"
CLOSE = b'"msg":"close_stream"'
LINGER_S, LOOK_S = 20.0, 0.05


def is_stream(scope: Scope) -> bool:
    """Whether a browser asks for its stream; other clients read it to its end."""
    return scope["path"] == PATH and "sec-fetch-site" in Headers(scope=scope)


async def answer(app: ASGIApp, asked: Callable[[str], bool], scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the stream.

    asked  whether something that a session asked is unanswered
    """
    session = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
    client, begun = Request(scope, receive), False
    close: Message | None = None

    async def forward(message: Message) -> None:
        nonlocal begun, close
        if message["type"] == "http.response.start":
            if begun:
                return
            begun = True
        elif CLOSE in message.get("body", b""):
            close = message
            return
        elif close is not None:  # the end of the response after it
            return
        await send(message)

    while True:
        close = None
        await app(scope, receive, forward)
        if close is None:  # it ended otherwise, and the page was told
            return
        for _ in range(round(LINGER_S / LOOK_S)):
            if asked(session):
                break
            if await client.is_disconnected():
                return
            await asyncio.sleep(LOOK_S)
        else:
            await send({**close, "more_body": False})
            return
