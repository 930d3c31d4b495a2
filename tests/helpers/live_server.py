"""Starts the real page in a process of its own, for tests that talk to it over HTTP."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOG_CHARACTERS = 8000  # of the page's log and stacks, told with a failed test


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serve(work: Path, port: int = 0, **settings: str) -> Iterator[str]:
    """The address of a running page whose files lie in `work`; settings as in demo/settings.py, in capitals."""
    port = port or free_port()
    env = {**os.environ, "LIPSYNC_PORT": str(port), "LIPSYNC_WORK": str(work), "OMP_NUM_THREADS": "2"}
    env["PYTHONFAULTHANDLER"] = "1"  # every thread's stack at SIGABRT
    env |= {f"LIPSYNC_{name}": value for name, value in settings.items()}
    with (work.parent / "server.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError((work.parent / "server.log").read_text()[-2000:])
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/healthz", timeout=1):
                break
            time.sleep(0.1)
        else:
            raise RuntimeError("the page did not start within a minute")
        yield address
    except Exception as error:
        if process.poll() is None:
            process.send_signal(signal.SIGABRT)
            process.wait()
        error.add_note(f"The page's log ends:\n{(work.parent / 'server.log').read_text()[-LOG_CHARACTERS:]}")
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
