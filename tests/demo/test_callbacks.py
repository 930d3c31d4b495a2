"""Callbacks of the API: signed, to allowed hosts alone, tried three times, and never followed elsewhere."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from demo import callbacks
from demo.callbacks import Callbacks
from demo.settings import read_settings
from lipsync.errors import InputError

SECRET = "a secret of the operator"


class Listener:
    """An HTTP server that keeps what it was sent, and gives these status codes, the last one for ever."""

    def __init__(self, *answers):
        heard = self.heard = []
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                heard.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                code = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(code)
                if code == 302:
                    self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def listener(request):
    made = Listener(*request.param)
    yield made
    made.close()


def true_signature(headers, body):
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    return "v1," + base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()


@pytest.mark.parametrize("listener", [(500, 503, 204)], indirect=True)
def test_a_message_is_signed_and_tried_again(listener, monkeypatch):
    monkeypatch.setattr(callbacks, "TRIES_AFTER_S", (0, 0.01, 0.01))
    sent = Callbacks({listener.host}, SECRET).send(f"http://{listener.host}/done?x=1", {"state": "done", "한": "글"})
    assert asyncio.run(sent)
    assert len(listener.heard) == 3 and len({headers["webhook-id"] for _, headers, _ in listener.heard}) == 1
    path, headers, body = listener.heard[-1]
    assert path == "/done?x=1" and json.loads(body) == {"state": "done", "한": "글"}
    assert headers["webhook-signature"] == true_signature(headers, body)
    assert headers["webhook-signature"] != true_signature(headers, body + b" ")


@pytest.mark.parametrize("listener", [(302,)], indirect=True)
def test_a_redirect_is_not_followed(listener, monkeypatch):
    monkeypatch.setattr(callbacks, "TRIES_AFTER_S", (0, 0.01))
    assert not asyncio.run(Callbacks({listener.host}, SECRET).send(f"http://{listener.host}/", {}))
    assert [path for path, _, _ in listener.heard] == ["/", "/"]


def test_nobody_listens(monkeypatch):
    monkeypatch.setattr(callbacks, "TRIES_AFTER_S", (0, 0.01))
    assert not asyncio.run(Callbacks({"127.0.0.1"}, SECRET).send("http://127.0.0.1:9/", {}))


def test_only_allowed_hosts_are_called():
    some = Callbacks({"example.org", "10.0.0.7:8443"}, SECRET)
    for fine in ("https://example.org/a", "http://EXAMPLE.org:99/", "https://10.0.0.7:8443/x"):
        some.check(fine)
    for wrong, said in (
        ("https://example.org.evil.net/", "evil.net is none"),
        ("https://10.0.0.7/", "10.0.0.7 is none"),
        ("https://localhost/", "localhost is none"),
        ("https://you@example.org/", "no address"),
        ("ftp://example.org/", "no address"),
        ("file:///etc/passwd", "no address"),
        ("example.org", "no address"),
        ("http://[::1", "no address"),
        ("http://example.org:x/", "no address"),
        ("https://example.org/" + "a" * 3000, "no address"),
        ("https://[::2]/", "::2 is none"),
    ):
        with pytest.raises(InputError, match=said):
            some.check(wrong)
    Callbacks({"example.org:443"}, SECRET).check("https://example.org/x")
    Callbacks({"[::1]:8080"}, SECRET).check("http://[::1]:8080/x")
    with pytest.raises(InputError, match="calls nobody back"):
        Callbacks().check("https://example.org/")


def test_no_more_than_some_run_at_once(monkeypatch):
    monkeypatch.setattr(callbacks, "MOST", 2)

    async def begin():
        some = Callbacks({"127.0.0.1"}, SECRET)
        for _ in range(2):
            some.begin("http://127.0.0.1:9/", lambda: asyncio.sleep(60, {}))
        with pytest.raises(InputError, match="Too many videos with a callback"):
            some.begin("http://127.0.0.1:9/", lambda: asyncio.sleep(60, {}))
        for task in list(some._running):
            task.cancel()

    asyncio.run(begin())


def test_hosts_need_a_secret(monkeypatch):
    monkeypatch.setenv("LIPSYNC_CALLBACK_HOSTS", "Example.org, 10.0.0.7:8443")
    with pytest.raises(InputError, match="LIPSYNC_CALLBACK_SECRET=… .*: callbacks are signed, so it may not be empty"):
        read_settings()
    monkeypatch.setenv("LIPSYNC_CALLBACK_SECRET", "short")
    with pytest.raises(InputError, match="LIPSYNC_CALLBACK_SECRET=… cannot be used: it has fewer than 12 letters"):
        read_settings()
    monkeypatch.setenv("LIPSYNC_CALLBACK_SECRET", SECRET)
    assert read_settings().callback_host_names == {"example.org", "10.0.0.7:8443"}
    assert callbacks.key_of(SECRET) == SECRET.encode() and callbacks.key_of("whsec_YWJjZA==") == b"abcd"
    monkeypatch.setenv("LIPSYNC_CALLBACK_SECRET", "whsec_this is no base64")
    with pytest.raises(InputError, match="what follows whsec_ is no base64"):
        read_settings()
