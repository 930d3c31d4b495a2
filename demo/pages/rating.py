"""Pages of raters: consent, sound check, one blind question a screen, thanks. Nothing here names a system."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from typing import TYPE_CHECKING, Any

from fastapi import Body, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from lipsync.errors import LipsyncError

from ..i18n import ENGLISH, KOREAN, worded
from .frame import TEMPLATES, render

if TYPE_CHECKING:
    from resynced.desk import Served, StudyDesk
    from resynced.studies import Study

    from ..context import Context

COOKIE = "rater"
PANEL = ("PROLIFIC_PID", "workerId", "participantId", "PID")  # who the person is; a session's id would change
LONGEST_PANEL = 200
SECONDS = {"preference": 20, "questions": 20, "side_by_side": 45, "mismatching": 20}  # that a ballot takes people
DESCRIPTION = {
    "age_group": ("18-24", "25-34", "35-44", "45-54", "55+"),
    "headphones": ("rate_yes", "rate_no"),
    "hearing": ("rate_hearing_good", "rate_hearing_less"),
}
SAID = (  # what static/rate.js says
    "rate_playing", "rate_play", "rate_replay", "rate_pause_video", "rate_locked", "rate_unlocked", "rate_saved",
    "rate_unsaved", "rate_loading", "rate_broken", "rate_all", "rate_trap_side", "rate_trap_digit", "rate_right_side",
    "rate_right_low", "rate_of", "rate_training_of", "rate_sound_failed", "rate_sound_on", "rate_correcting",
    "rate_agree_share", "rate_agree_distance", "rate_agree_none", "rate_deleted", "rate_paused", "rate_left",
    "rate_right", "rate_next", "rate_understood",
)  # fmt: skip
ERRORS = {  # how a sentence of the desk begins -> our words
    "This study is closed": "rate_error_closed",
    "You have withdrawn": "rate_error_withdrawn",
    "This study has all": "rate_error_full",
    "Too many people": "rate_error_rush",
    "This page was open": "rate_error_reload",
    "This ballot is not": "rate_error_reload",
    "This browser has no": "rate_error_begin",
    "Please watch": "rate_error_soon",
    "This window is": "rate_error_narrow",
    "Please answer every": "rate_all",
    "Please read the text": "rate_error_consent",
    "This was answered": "rate_error_answered",
    "Only the last answer": "rate_error_back",
    "There is no study": "rate_error_none",
}


def add(app: FastAPI, context: Context) -> None:
    """The routes below /rate/."""
    studies = context.studies

    def desk_of(name: str) -> tuple[StudyDesk, Study]:
        desk = studies.desk
        return desk, desk.study(name)

    def failed(name: str, error: LipsyncError, status: int = 409) -> JSONResponse:
        """An error in the language of the study's raters."""
        key = next((key for begin, key in ERRORS.items() if error.message.startswith(begin)), None)
        t = _texts(studies.desk, name)
        said = t[key] if key else worded(error.message, t)
        return _json({"error": said, "answered": key == "rate_error_answered"}, status)

    @app.get("/rate/{name}")
    def page(name: str, request: Request) -> Response:
        """The one page of a rater: consent, sound check, questions and thanks follow each other on it."""
        try:
            desk, study = desk_of(name)
            is_open, phase = desk.is_open(name), "consent"
        except LipsyncError:
            return render("rate_closed.html", ENGLISH, 404, said=ENGLISH["rate_error_none"], title="")
        t = KOREAN if study.language == "ko" else ENGLISH
        if not is_open:
            return render("rate_closed.html", t, said=t["rate_error_closed"], title=study.title)
        with contextlib.suppress(LipsyncError):  # nobody we know, or withdrawn: from the beginning
            phase = _phase(desk, study, request.cookies.get(COOKIE))
        counted = study.per_rater + study.gold + study.traps + study.repeats
        minutes = math.ceil((counted + study.training) * SECONDS[study.design] / 60)
        html = TEMPLATES.get_template("rate.html").render(
            t=t,
            lang=study.language,
            study=study,
            scales=[q for q in study.questions if len(q.anchors) == 6],
            choice=next((q for q in study.questions if len(q.anchors) != 6), None),
            sides=["left", "right"] if study.design != "questions" else ["left"],
            scale_sides=["left", "right"] if study.two_systems else [""],
            signs=[("left", "←"), ("right", "→"), ("tie", "↓"), ("both_bad", "↑")],
            phase=phase,
            counted=counted,
            minutes=minutes,
            description=DESCRIPTION,
            texts=json.dumps({key: t[key] for key in SAID}, ensure_ascii=False),
        )
        return Response(html, media_type="text/html; charset=utf-8", headers={"Cache-Control": "no-store"})

    @app.post("/rate/{name}/join")
    def join(name: str, request: Request, said: dict[str, Any] = Body()) -> Response:  # noqa: B008 - fastapi's way
        """Consent: {"consent": true, "panel": {...}, "description": {...}}; the rater's token becomes a cookie."""
        try:
            desk, study = desk_of(name)
            token = request.cookies.get(COOKIE)
            try:
                phase = _phase(desk, study, token)
            except LipsyncError:
                given = said.get("panel") if isinstance(said.get("panel"), dict) else {}
                panel = {k: str(given[k])[:LONGEST_PANEL] for k in PANEL if given.get(k)}
                token = desk.join(name, said.get("consent") is True, panel or None)
                if isinstance(said.get("description"), dict):
                    about = {k: v for k, v in said["description"].items() if isinstance(v, str) and v}
                    desk.tell(token, "description", about) if about else None
                phase = _phase(desk, study, token)
        except LipsyncError as error:
            return failed(name, error)
        answer = _json({"phase": phase})
        secure = request.url.scheme == "https"
        # "lax": a rater who comes back by a link in a message is known again.
        answer.set_cookie(
            COOKIE,
            token,
            max_age=study.days * 86_400,
            path=f"/rate/{name}",
            httponly=True,
            samesite="lax",
            secure=secure,
        )
        return answer

    @app.post("/rate/{name}/sound")
    def sound_check(name: str, request: Request, said: dict[str, Any] = Body()) -> Response:  # noqa: B008
        """{} asks for digits; {"check": name, "said": "372"} answers them."""
        try:
            desk, study = desk_of(name)
            token = request.cookies.get(COOKIE, "")
            desk.standing(token)
            check = said.get("check")
            if isinstance(check, str):
                heard = studies.heard(check[:64], str(said.get("said"))[:20])
                desk.tell(
                    token, "sound_check" if heard else "problem", {"sound_check": "passed" if heard else "failed"}
                )
                return _json({"heard": heard})
            check = studies.new_check(study.language)
            if check is None:
                desk.tell(token, "sound_check", {"sound_check": "not_made"})
            return _json({"check": check})
        except LipsyncError as error:
            return failed(name, error)

    @app.get("/rate/{name}/sound/{check}")
    def digits(name: str, check: str) -> Response:
        """The spoken digits of a check."""
        try:
            _, study = desk_of(name)
            return Response(studies.spoken(check, study.language), media_type="audio/wav", headers=_NO_STORE)
        except LipsyncError as error:
            return failed(name, error, 404)

    @app.get("/rate/{name}/next")
    def next_ballot(name: str, request: Request) -> Response:
        """The ballot to be answered now, or that there is none."""
        try:
            desk, _ = desk_of(name)
            served = desk.next_ballot(request.cookies.get(COOKIE, ""))
            return _json({"ballot": _ballot(served)})
        except LipsyncError as error:
            return failed(name, error)

    @app.post("/rate/{name}/back")
    def back(name: str, request: Request) -> Response:
        """The last answered ballot, to be corrected once."""
        try:
            desk, _ = desk_of(name)
            return _json({"ballot": _ballot(desk.previous_ballot(request.cookies.get(COOKIE, "")))})
        except LipsyncError as error:
            return failed(name, error)

    @app.post("/rate/{name}/answer")
    def answer(name: str, request: Request, said: dict[str, Any] = Body()) -> Response:  # noqa: B008
        """{"token", "answer", "timings", "again"}: on disk when this answers; then the next ballot comes along."""
        try:
            desk, _ = desk_of(name)
            given, timings = said.get("answer"), said.get("timings")
            saved = desk.submit(
                str(said.get("token", "")),
                given if isinstance(given, dict) else {},
                timings if isinstance(timings, dict) else {},
                said.get("again") is True,
            )
        except LipsyncError as error:
            return failed(name, error)
        try:
            coming = _ballot(desk.next_ballot(request.cookies.get(COOKIE, ""))) if not saved.finished else None
        except LipsyncError:  # the vote is kept, whatever comes next
            coming = None
        return _json({"explanation": saved.explanation, "finished": saved.finished, "ballot": coming})

    @app.post("/rate/{name}/pause")
    def pause(name: str, request: Request) -> Response:
        """A rater rests."""
        try:
            studies.desk.tell(request.cookies.get(COOKIE, ""), "pause", {})
            return _json({})
        except LipsyncError as error:
            return failed(name, error)

    @app.get("/rate/{name}/end")
    def end(name: str, request: Request) -> Response:
        """Completion code, and how the rater's answers stand to others'."""
        try:
            token = request.cookies.get(COOKIE, "")
            code = studies.desk.finished(token)
            own = studies.agreement(name, token)
            return _json({"code": code, "share": own.share, "distance": own.distance, "ballots": own.ballots})
        except LipsyncError as error:
            return failed(name, error)

    @app.post("/rate/{name}/withdraw")
    def withdraw(name: str, request: Request) -> Response:
        """Delete everything that the rater said."""
        try:
            gone = studies.desk.withdraw(request.cookies.get(COOKIE, ""))
        except LipsyncError as error:
            return failed(name, error)
        answer = _json({"votes": gone})
        answer.delete_cookie(COOKIE, path=f"/rate/{name}", httponly=True, samesite="lax")
        return answer

    @app.get("/rate/{name}/video/{video}")
    def video(name: str, video: str) -> Response:
        """A video under a name that is good until its ballot is answered."""
        try:
            path = studies.video(name, video)
        except LipsyncError as error:
            return failed(name, error, 404)
        # The time of making and a constant tag would tell two videos apart, or one again.
        headers = _NO_STORE | {"ETag": f'"{secrets.token_hex(8)}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        return FileResponse(path, media_type="video/mp4", headers=headers, stat_result=os.stat(path))


_NO_STORE = {"Cache-Control": "no-store"}


def _json(content: dict[str, Any], status: int = 200) -> JSONResponse:
    return JSONResponse(content, status, _NO_STORE)


def _texts(desk: StudyDesk, name: str) -> dict[str, str]:
    try:
        return KOREAN if desk.study(name).language == "ko" else ENGLISH
    except LipsyncError:
        return ENGLISH


def _phase(desk: StudyDesk, study: Study, token: str | None) -> str:
    """Where a rater goes on: "sound", "ballot" or "end". Raises StudyError for nobody of this study."""
    from resynced.studies import StudyError

    standing = desk.standing(token or "")
    if standing.study != study.name:
        raise StudyError("This browser has no rater's token: begin again from the study's address.")
    if standing.answered == standing.ballots:
        return "end"
    return "ballot" if "sound_check" in standing.facts else "sound"


def _ballot(served: Served | None) -> dict[str, Any] | None:
    if served is None:
        return None
    return {
        "token": served.token,
        "ballot": served.ballot,
        "number": served.number,
        "of": served.of,
        "training": served.training,
        "instruction": served.instruction,
        "videos": served.videos,
        "coming": served.coming,
        "coming_ballot": served.coming_ballot,
    }
