"""Crowd on the page: what a new visitor waits while many others hold it. `python -m bench.page`

The crowd, bounded and on loopback: 800 idle connections, 100 callers who wait and never listen, 12 label checks of a
padded film, 10 videos asked for at once, 20 uploads at the same time. Then one more visitor opens the page and gives a
picture, five times. Prints JSON.
"""

from __future__ import annotations

import json
import resource
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.demo.test_server import ASSETS, call, upload
from tests.helpers.live_server import serve

IDLE, CALLERS, CHECKS, VIDEOS, UPLOADS, VISITORS = 800, 100, 12, 10, 20, 5


def main() -> None:
    """Gather the crowd, then measure."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as crowd:
        padded = Path(folder) / "padded.mp4"
        padded.write_bytes((ASSETS / "moving.mp4").read_bytes() + b"\0\0\0\x08free" * 100_000)
        big = Path(folder) / "big.mp4"
        big.write_bytes(b"0" * 20_000_000)
        address = crowd.enter_context(serve(Path(folder) / "work", MAX_WAITING_EACH="32"))
        host, port = address.removeprefix("http://").split(":")
        for _ in range(IDLE):
            crowd.enter_context(socket.create_connection((host, int(port)), timeout=10))
        face, voice, film = (
            upload(address, path) for path in (ASSETS / "moving.mp4", ASSETS / "voice-two.mp3", padded)
        )
        for _ in range(CALLERS):
            call(address, "faces", face, 0)
        for _ in range(CHECKS):
            call(address, "verify", film)
        for _ in range(VIDEOS):
            call(address, "sync", face, voice, True, None)

        def give() -> None:
            with suppress(OSError, urllib.error.HTTPError):
                upload(address, big)

        threads = [threading.Thread(target=give, daemon=True) for _ in range(UPLOADS)]
        for thread in threads:
            thread.start()
        opened, found = [], []
        for _ in range(VISITORS):
            began = time.monotonic()
            with urllib.request.urlopen(address, timeout=120) as page:
                page.read()
            opened.append(round(time.monotonic() - began, 2))
            began = time.monotonic()
            while True:
                event = call(address, "faces", upload(address, ASSETS / "portrait.jpg"), 0)
                with urllib.request.urlopen(f"{address}/gradio_api/call/faces/{event}", timeout=600) as answer:
                    if b"event: complete" in answer.read():
                        break
                time.sleep(1)  # the lane is full: its sentence says so
            found.append(round(time.monotonic() - began, 2))
        for thread in threads:
            thread.join()
        print(json.dumps({"page opens, s": opened, "face found, s": found}))


if __name__ == "__main__":
    main()
