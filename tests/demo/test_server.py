"""Server of the page as a process: how it starts, ends, and stands up to kills, floods and few descriptors."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from tests.helpers.live_server import ROOT, free_port, serve

ASSETS = ROOT / "tests" / "data" / "page"


def start(**settings):
    """Start the page with these settings and wait for its end."""
    env = os.environ | {f"LIPSYNC_{name}": str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PORT": "http"}, "LIPSYNC_PORT=http cannot be used"),
        ({"PORT": "70000"}, "LIPSYNC_PORT=70000 cannot be used"),
        ({"AT_ONCE": "0"}, "LIPSYNC_AT_ONCE=0 cannot be used"),
        ({"KEEP_MINUTES": "-1"}, "LIPSYNC_KEEP_MINUTES=-1 cannot be used"),
        ({"HOST": "no.such.host.invalid"}, "LIPSYNC_HOST"),
        ({"WORK": "/proc/nothing"}, "LIPSYNC_WORK"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(tmp_path, settings, said):
    ran = start(**{"WORK": tmp_path / "work", **settings})
    assert ran.returncode == 1 and said in ran.stderr, ran.stderr
    assert ran.stderr.count("\n") == 1 and "The page is on" not in ran.stdout


@pytest.mark.slow
def test_keys_inside_the_work_folder_are_refused(tmp_path):
    ran = start(WORK=tmp_path, KEYS=tmp_path / "keys")
    assert ran.returncode == 1 and "signing keys" in ran.stderr and ran.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_port_in_use_is_one_sentence_and_the_page_is_not_announced(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = start(WORK=tmp_path / "work", PORT=taken.getsockname()[1])
    assert ran.returncode == 1 and "LIPSYNC_PORT" in ran.stderr and ran.stderr.count("\n") == 1
    assert "The page is on" not in ran.stdout


def call(address, name, *data):
    """Post an event of the API and do not listen for its answer; returns the event's id."""
    request = urllib.request.Request(
        f"{address}/gradio_api/call/{name}", json.dumps({"data": data}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["event_id"]


def upload(address, path):
    """Upload a file; returns what an event takes for it."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'.encode()
    request = urllib.request.Request(
        f"{address}/gradio_api/upload",
        head + path.read_bytes() + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return {"path": json.load(answer)[0], "meta": {"_type": "gradio.FileData"}}


def until(condition, seconds=120):
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


@pytest.mark.slow
def test_visitors_who_wait_and_never_listen_do_not_stop_the_page(tmp_path):
    """Far more of them than gradio has slots by itself (40), idle connections beside them."""
    with serve(tmp_path / "work", MAX_WAITING="8", MAX_WAITING_EACH="8") as address, contextlib.ExitStack() as open_:
        host, port = address.removeprefix("http://").split(":")
        for _ in range(100):
            open_.enter_context(socket.create_connection((host, int(port)), timeout=10))
        face = upload(address, ASSETS / "portrait.jpg")
        for _ in range(60):
            call(address, "faces", face, 0)
        with urllib.request.urlopen(address, timeout=60) as page:
            assert b"Lip-sync" in page.read()
        event = call(address, "verify", upload(address, ASSETS / "moving.mp4"))
        with urllib.request.urlopen(f"{address}/gradio_api/call/verify/{event}", timeout=120) as answer:
            assert b"Not labelled" in answer.read()
        jobs = tmp_path / "work" / "jobs"
        until(lambda: not list(jobs.iterdir()))  # those that found a place were answered, the others refused


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_a_killed_server_loses_no_job_and_leaves_no_half_file(tmp_path, seconds):
    work, port = tmp_path / "work", free_port()
    env = os.environ | {"LIPSYNC_WORK": str(work), "LIPSYNC_PORT": str(port)}
    address = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is None and healthy(address))
        face, voice = upload(address, ASSETS / "moving.mp4"), upload(address, ASSETS / "voice-two.mp3")
        call(address, "sync", face, voice, True, None)
        until(lambda: list((work / "jobs").glob("*/source/*")))
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {p.parent.name for p in (work / "jobs").glob("*/job.json")}
    with serve(work, port):
        states = {p.parent.name: json.loads(p.read_text())["state"] for p in (work / "jobs").glob("*/job.json")}
        assert set(states) == before and set(states.values()) <= {"interrupted", "done", "new"}
        left = [p.name for p in work.rglob("*") if p.name.endswith((".part", ".new")) or p.name.startswith(".lipsync")]
        assert not left and not list((work / "incoming").iterdir())


def healthy(address):
    """Does the page answer?"""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/healthz", timeout=2) as answer:
        return answer.status == 200
    return False


@pytest.mark.slow
def test_a_server_with_few_descriptors_goes_on_once_there_are_some_again(tmp_path):
    port = free_port()
    env = os.environ | {"LIPSYNC_WORK": str(tmp_path / "work"), "LIPSYNC_PORT": str(port)}
    address = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        command = ["sh", "-c", f"ulimit -n 64; exec {sys.executable} app.py"]
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is None and healthy(address))
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        time.sleep(1)
        for one in crowd:
            one.close()
        until(lambda: healthy(address), 60)
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
def test_a_connection_that_asks_nothing_is_closed(tmp_path):
    from demo import server

    with serve(tmp_path / "work") as address:
        host, port = address.removeprefix("http://").split(":")
        with (
            socket.create_connection((host, int(port)), timeout=server.IDLE_S + 60) as silent,
            socket.create_connection((host, int(port)), timeout=server.IDLE_S + 60) as slow,
        ):
            slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")  # and never ends its headers
            closed = []
            for one in (silent, slow):
                threading.Thread(target=lambda one=one: closed.append(one.recv(1)), daemon=True).start()
            until(lambda: closed == [b"", b""], server.IDLE_S + 60)
