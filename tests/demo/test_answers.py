"""The stream of answers stays open for what is asked just after an answer."""

import asyncio

import pytest

from demo import answers

CLOSE = b'data: {"event_id":null,"msg":"close_stream"}\n\n'


class Streams:
    """gradio's side: each call gives the answers that are waiting, then the word and the end of the response."""

    def __init__(self, *waiting: list[bytes]) -> None:
        self.waiting, self.calls = list(waiting), 0

    async def __call__(self, scope, receive, send) -> None:
        self.calls += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for answer in self.waiting.pop(0):
            await send({"type": "http.response.body", "body": answer, "more_body": True})
        await send({"type": "http.response.body", "body": CLOSE, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def served(app, asked, gone: bool = False) -> list[dict]:
    """What the browser gets."""
    sent = []
    scope = {"type": "http", "path": answers.PATH, "query_string": b"session_hash=me", "headers": []}

    async def receive() -> dict:
        if not gone:
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(answers.answer(app, asked, scope, receive, send), 10))
    return sent


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(answers, "LINGER_S", 0.3)


@pytest.mark.slow
def test_what_is_asked_meanwhile_is_answered_on_the_same_stream():
    app = Streams([b"one"], [b"two", b"three"])
    sent = served(app, lambda session: session == "me" and bool(app.waiting))
    assert [m["type"] for m in sent].count("http.response.start") == 1 and app.calls == 2
    assert [m["body"] for m in sent[1:]] == [b"one", b"two", b"three", CLOSE]
    assert [m["more_body"] for m in sent[1:]] == [True, True, True, False]


@pytest.mark.slow
def test_where_nothing_is_asked_it_ends_after_a_while():
    app = Streams([b"one"])
    assert [m.get("body") for m in served(app, lambda session: False)] == [None, b"one", CLOSE] and app.calls == 1


def test_of_a_page_that_was_left_nothing_stays():
    app = Streams([b"one"])
    assert [m.get("body") for m in served(app, lambda session: False, gone=True)] == [None, b"one"]


def test_only_browsers_are_served_so():
    scope = {"type": "http", "path": answers.PATH, "headers": []}
    assert not answers.is_stream(scope)
    assert answers.is_stream(scope | {"headers": [(b"sec-fetch-site", b"same-origin")]})
    assert not answers.is_stream(scope | {"path": "/", "headers": [(b"sec-fetch-site", b"none")]})
