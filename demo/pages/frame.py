"""Frame of the pages with an address of their own: templates, where all is escaped, and the files they load."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, HTTPException, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from starlette.responses import FileResponse, HTMLResponse, Response

from ..i18n import ENGLISH, KOREAN, by_header, worded

HERE = Path(__file__).parent.parent
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["worded"] = pass_context(lambda page, said: worded(said, page["t"]))  # a sentence of the engine
FILES = {
    "pages.css": "text/css",
    "leaderboard.js": "text/javascript",
    "rate.css": "text/css",
    "rate.js": "text/javascript",
    "studies.css": "text/css",
    "watch.css": "text/css",
}  # of static/, as /pages/NAME


def render(name: str, t: dict[str, str], status: int = 200, **values: Any) -> Response:
    """A template of templates/ as an answer, in the language of these sentences."""
    language = "ko" if t is KOREAN else "en"
    html = TEMPLATES.get_template(name).render(t=t, lang=language, **values)
    headers = {"Cache-Control": "no-store", "Vary": "Accept-Language", "Content-Language": language}
    return HTMLResponse(html, status, headers)


def words_of(request: Request) -> dict[str, str]:
    """The sentences for a request: ?lang=en or ko, else what the browser asks for."""
    chosen = {"en": ENGLISH, "ko": KOREAN}.get(request.query_params.get("lang", ""))
    return chosen or by_header(request.headers.get("accept-language", ""))


def languages(request: Request) -> dict[str, str]:
    """The address of this page in each language."""
    kept = [(k, v) for k, v in request.query_params.multi_items() if k != "lang"]
    return {code: f"{request.url.path}?{urlencode([*kept, ('lang', code)])}" for code in ("en", "ko")}


def add(app: FastAPI, context: object = None) -> None:
    """The route of the pages' styles and scripts."""

    @app.get("/pages/{name}")
    def page_file(name: str) -> FileResponse:
        """A style or script."""
        if name not in FILES:
            raise HTTPException(404, "There is no such file.")
        return FileResponse(HERE / "static" / name, media_type=FILES[name], headers={"Cache-Control": "no-cache"})
