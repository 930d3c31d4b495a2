"""Operator of the page: password, session, tries; over the real gate."""

import time
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from demo import operator, tasks
from demo.operator import COOKIE, TRIES, TRIES_ALL, WINDOW_S, Operator, TooManyTries
from demo.server import build
from demo.settings import Settings, read_settings
from lipsync.errors import InputError

PASSWORD = "correct horse battery"
FROM_PAGE = {"Origin": "http://localhost"}


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", "")
    patch.setattr(tasks, "warm_up", lambda: None)
    yield build(Settings(work=tmp_path_factory.mktemp("operator") / "work", operator_password=PASSWORD))
    patch.undo()


@pytest.fixture
def client(gate):
    return TestClient(gate, base_url="http://localhost", follow_redirects=False)


def login(client, password=PASSWORD, **headers):
    return client.post("/operator/login", data={"password": password}, headers=FROM_PAGE | headers)


def asking(**cookies):
    return SimpleNamespace(cookies=cookies)


def test_the_right_password_opens_a_session_that_scripts_and_other_sites_cannot_have(gate, client):
    assert not gate.context.operator.is_operator(asking())
    answer = login(client)
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 303 and "HttpOnly" in cookie and "SameSite=strict" in cookie and "Max-Age" in cookie
    assert gate.context.operator.is_operator(asking(**{COOKIE: client.cookies[COOKIE]}))
    assert "Sign out" in client.get("/operator/login").text
    assert client.post("/operator/logout", headers=FROM_PAGE).status_code == 303 and COOKIE not in client.cookies


def test_over_https_the_cookie_stays_there(gate):
    with TestClient(gate, base_url="https://localhost", follow_redirects=False) as client:
        answer = client.post("/operator/login", data={"password": PASSWORD}, headers={"Origin": "https://localhost"})
        assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("value", ["", "operator", "operator.x.y", "a" * 5000, None, 7])
def test_a_made_up_session_is_none(value):
    assert not Operator(PASSWORD).is_operator(asking(**{COOKIE: value}))
    assert not Operator(PASSWORD).is_operator(None)


def test_a_session_ends_with_its_time_and_with_the_server(monkeypatch):
    here = Operator(PASSWORD)
    value = here.session(PASSWORD, "a")
    assert here.is_operator(asking(**{COOKIE: value})) and not Operator(PASSWORD).is_operator(asking(**{COOKIE: value}))
    later = time.time() + operator.SESSION_S + 2
    monkeypatch.setattr(time, "time", lambda: later)
    assert not here.is_operator(asking(**{COOKIE: value}))


def test_wrong_passwords_are_few_even_from_many_addresses():
    now = [0.0]
    here = Operator(PASSWORD, lambda: now[0])
    for _ in range(TRIES):
        assert here.session("wrong", "a") is None
    with pytest.raises(TooManyTries) as late:
        here.session(PASSWORD, "a")
    assert late.value.wait_s == WINDOW_S and here.session(PASSWORD, "b")
    now[0] = WINDOW_S + 1
    assert here.session(PASSWORD, "a")
    for n in range(TRIES_ALL):
        here.session("wrong", f"address {n}")
    with pytest.raises(TooManyTries):
        here.session(PASSWORD, "somebody else")


def test_a_wrong_password_is_said_in_the_visitors_language(client):
    answer = login(client, "wrong", **{"Accept-Language": "ko"})
    assert answer.status_code == 403 and "비밀번호가 맞지 않습니다" in answer.text and 'lang="ko"' in answer.text
    assert COOKIE not in client.cookies and "script-src 'self';" in answer.headers["content-security-policy"]


def test_no_other_site_can_send_the_form(client):
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
        assert client.post("/operator/login", data={"password": PASSWORD}, headers=headers).status_code == 403
    assert login(client, "x" * 20_000).status_code == 413


@pytest.mark.slow
def test_without_a_password_nobody_is_the_operator(tmp_path, monkeypatch):
    closed = Operator()
    assert closed.session("", "a") is None and not closed.is_open
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(tasks, "warm_up", lambda: None)
    client = TestClient(build(Settings(work=tmp_path / "work", operator_password="")), base_url="http://localhost")
    assert "LIPSYNC_OPERATOR_PASSWORD" in client.get("/operator/login").text
    assert login(client, "").status_code == 403


def test_a_short_password_is_refused_and_not_printed(monkeypatch):
    monkeypatch.setenv("LIPSYNC_OPERATOR_PASSWORD", "sesame")
    with pytest.raises(InputError, match="LIPSYNC_OPERATOR_PASSWORD=…") as refused:
        read_settings()
    assert "sesame" not in str(refused.value) and "12 letters" in str(refused.value)
