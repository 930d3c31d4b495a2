"""Many raters at once on the real server, which is killed in between: no vote is lost or doubled."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from resynced.desk import open_desk
from resynced.store import Store
from tests.helpers.live_server import ROOT, free_port
from tests.helpers.raters_at_once import Crowd, crowd_study
from tests.resynced.conftest import place, postgres  # noqa: F401 - fixtures

RATERS = 20


def start(environment, port):
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    for _ in range(900):
        assert process.poll() is None
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).close()
            return process
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the page did not start")


def kill_at(crowd, server, votes):
    """In the middle: once so many votes were acknowledged."""
    while len(crowd.acknowledged) < votes:
        time.sleep(0.01)
    os.kill(server.pid, signal.SIGKILL)


@pytest.mark.slow
def test_no_vote_is_lost_or_doubled_when_the_server_is_killed_among_twenty_raters(place, tmp_path):  # noqa: F811
    port = free_port()
    environment = os.environ | {"LIPSYNC_DATA": str(tmp_path), "LIPSYNC_DATABASE": place, "LIPSYNC_PORT": str(port)}
    environment |= {"LIPSYNC_WORK": str(tmp_path / "work"), "PYTHONPATH": str(ROOT)}
    study, crowd = crowd_study("crowd", 3, RATERS), Crowd()
    with Store(place) as store:
        desk = open_desk(store, tmp_path)
        desk.create(study)
        desk.open("crowd")
        server = start(environment, port)
        try:
            threading.Thread(target=kill_at, args=(crowd, server, 30), daemon=True).start()
            crowd.run(f"http://127.0.0.1:{port}", "crowd", RATERS)
            server.wait(10)
            kept = desk.tables("crowd")["votes"]["ballot"]
            first = len(crowd.acknowledged)
            assert first >= 30 and set(crowd.acknowledged) <= set(kept) and crowd.finished < RATERS
            server = start(environment, port)
            crowd.run(f"http://127.0.0.1:{port}", "crowd", RATERS)
        finally:
            server.kill()
            server.wait()
        votes = desk.tables("crowd")["votes"]
    assert crowd.finished >= RATERS and len(crowd.acknowledged) > first
    assert votes["ballot"].is_unique and set(crowd.acknowledged) <= set(votes["ballot"])
    done = votes.groupby("rater").size()
    assert (done == 8).sum() >= RATERS
    assert not crowd.wrong
