"""Operator of the page: a password by setting, a signed session that expires, and the pages to sign in and out.

Visitors look; the operator starts runs, accepts submissions and opens studies. Without a password nobody does.
A session is a signed cookie; the key lives as long as the server's process, so a restart ends every session.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Form, Request
from itsdangerous import BadSignature, TimestampSigner
from starlette.responses import RedirectResponse, Response

from .i18n import by_header
from .pages.frame import render

if TYPE_CHECKING:
    from .context import Context

COOKIE = "lipsync_operator"
SESSION_S = 8 * 3600
TRIES, TRIES_ALL, WINDOW_S = 5, 100, 900.0  # wrong passwords of one address, of all, in so many seconds
MOST_ADDRESSES = 10_000  # remembered at once
MOST_PASSWORD = 1000
HOME = "/?tab=benchmark"
_VALUE = b"operator"


class TooManyTries(Exception):
    """Wrong passwords too often; `wait_s` until the next try."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"{wait_s:.0f} s")
        self.wait_s = wait_s


class Operator:
    """Who may change things.

    password  "" for a page that nobody may change
    clock     monotonic seconds; tests give their own
    """

    def __init__(self, password: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._password = password.encode()
        self._signer = TimestampSigner(secrets.token_bytes(32), digest_method=hashlib.sha256)
        self._clock, self._lock = clock, threading.Lock()
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    @property
    def is_open(self) -> bool:
        """Whether there is a password at all."""
        return bool(self._password)

    def is_operator(self, request: Any) -> bool:
        """Whether a request (starlette's or gradio's) carries a session that is signed here and not over."""
        given = getattr(request, "cookies", {}).get(COOKIE) if request is not None else None
        if not self.is_open or not isinstance(given, str):
            return False
        try:
            return self._signer.unsign(given, max_age=SESSION_S) == _VALUE
        except BadSignature:  # an expired one too
            return False

    def session(self, password: str, address: str) -> str | None:
        """The cookie's value for the right password, None for a wrong one.

        Raises TooManyTries, without a look at the password.
        """
        with self._lock:
            self._check_tries(address)
            right = hmac.compare_digest(password.encode(errors="replace"), self._password)
            if not (self.is_open and right):
                self._wrong.setdefault(address, deque(maxlen=TRIES)).append(self._clock())
                self._wrong.move_to_end(address)
                while len(self._wrong) > MOST_ADDRESSES:
                    self._wrong.popitem(last=False)
                return None
            self._wrong.pop(address, None)
        return self._signer.sign(_VALUE).decode()

    def _check_tries(self, address: str) -> None:
        now, count = self._clock(), 0
        for name in list(self._wrong):
            times = self._wrong[name]
            while times and times[0] <= now - WINDOW_S:
                times.popleft()
            if not times:
                del self._wrong[name]
            count += len(times)
        mine = self._wrong.get(address, ())
        if len(mine) >= TRIES:
            raise TooManyTries(mine[0] + WINDOW_S - now)
        if count >= TRIES_ALL:
            raise TooManyTries(min(times[0] for times in self._wrong.values()) + WINDOW_S - now)


def add(app: FastAPI, context: Context) -> None:
    """The routes /operator/login and /operator/logout."""
    operator = context.operator

    def page(request: Request, said: str = "", status: int = 200) -> Response:
        t = by_header(request.headers.get("accept-language", ""))
        state = {"open": operator.is_open, "inside": operator.is_operator(request), "said": said, "home": HOME}
        return render("operator.html", t, status, title=t["operator_title"], **state)

    @app.get("/operator/login")
    def login_page(request: Request) -> Response:
        """The form."""
        return page(request)

    @app.post("/operator/login")
    def login(request: Request, password: str = Form("")) -> Response:
        """Answer a password with a session."""
        t = by_header(request.headers.get("accept-language", ""))
        if not operator.is_open:
            return page(request, status=403)
        try:
            value = operator.session(password[:MOST_PASSWORD], request.client.host if request.client else "")
        except TooManyTries as late:
            answer = page(request, t["operator_wait"].format(n=math.ceil(late.wait_s / 60)), 429)
            answer.headers["Retry-After"] = str(math.ceil(late.wait_s))
            return answer
        if value is None:
            return page(request, t["operator_wrong"], 403)
        answer = RedirectResponse(HOME, 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, value, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)
        return answer

    @app.post("/operator/logout")
    def logout() -> Response:
        """Forget the session in this browser."""
        answer = RedirectResponse("/operator/login", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer
