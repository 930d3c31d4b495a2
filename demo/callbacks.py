"""Callbacks of the API: a signed POST once a video is made, to hosts that the operator allows, and to no others.

Signed as Standard Webhooks (standardwebhooks.com) describes it: `webhook-signature` is "v1," and the base64 of
HMAC-SHA256 over "ID.TIMESTAMP.BODY". A secret that begins with whsec_ is the base64 of the key, as that standard's
libraries take it; any other is the key itself.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from lipsync.errors import InputError

_log = logging.getLogger(__name__)
TRIES_AFTER_S = (0, 2, 20)
PATIENCE_S = 10.0
MOST = 64  # callbacks whose work is not done
LONGEST = 2000  # letters of an address


def key_of(secret: str) -> bytes:
    """The key of a secret. Raises ValueError where what follows whsec_ is no base64."""
    return base64.b64decode(secret[6:], validate=True) if secret.startswith("whsec_") else secret.encode()


class Callbacks:
    """Who may be called, and calling them."""

    def __init__(self, hosts: set[str] | None = None, secret: str = "") -> None:
        self._hosts, self._key = hosts or set(), key_of(secret)
        self._running: set[asyncio.Task] = set()

    def check(self, address: str) -> None:
        """Raises InputError unless the address is one that the operator allows."""
        if not self._hosts:
            raise InputError("This server calls nobody back: its operator allows no host.")
        try:
            parts = urlsplit(address if len(address) <= LONGEST else "")
            named = (parts.hostname or "").lower()
            port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        except ValueError:
            raise InputError("The callback is no address: it begins with https:// and a host.") from None
        if parts.scheme not in ("https", "http") or not named or parts.username or parts.password:
            raise InputError("The callback is no address: it begins with https:// and a host.")
        host = f"[{named}]" if ":" in named else named
        if not {host, f"{host}:{port}"} & self._hosts:
            raise InputError("The callback's host {host} is none that the operator of this server allows.", host=named)

    def begin(self, address: str, work: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """Do the work in the background and tell the address what it gave. Raises InputError where too many run."""
        if len(self._running) >= MOST:
            raise InputError("Too many videos with a callback are being made; try again in a minute.")

        async def both() -> None:
            await self.send(address, await work())

        task = asyncio.create_task(both())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def send(self, address: str, message: dict[str, Any]) -> bool:
        """POST a message; redirects are not followed. Was it taken (2xx) in one of three tries?"""
        name, body = f"msg_{secrets.token_urlsafe(18)}", json.dumps(message, ensure_ascii=False).encode()
        for wait_s in TRIES_AFTER_S:
            await asyncio.sleep(wait_s)
            try:
                async with (
                    httpx.AsyncClient(timeout=PATIENCE_S, follow_redirects=False, trust_env=False) as client,
                    client.stream("POST", address, content=body, headers=self.headers(name, body)) as answer,
                ):
                    if answer.is_success:
                        return True
            except (httpx.HTTPError, httpx.InvalidURL):
                continue
        _log.warning("A callback to %s was not taken in %d tries.", urlsplit(address).hostname, len(TRIES_AFTER_S))
        return False

    def headers(self, name: str, body: bytes, now: float | None = None) -> dict[str, str]:
        """The headers of a message, its signature among them."""
        stamp = str(int(time.time() if now is None else now))
        digest = hmac.new(self._key, b".".join([name.encode(), stamp.encode(), body]), hashlib.sha256).digest()
        return {
            "content-type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": stamp,
            "webhook-signature": "v1," + base64.b64encode(digest).decode(),
        }
