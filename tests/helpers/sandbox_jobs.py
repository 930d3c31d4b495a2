"""Jobs for the children of tests/test_sandbox.py: they do what a hostile file might make a library do."""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any


def echo(**request: Any) -> dict[str, Any]:
    return request


def look_round(path: str, elsewhere: str, out: str) -> dict[str, Any]:
    """What the child finds itself with, and what of its tries the system refuses."""
    found = {
        "environment": dict(os.environ),
        "open": [n for n in range(3, 256) if _is_open(n)],
        "threads": threading.active_count(),
        "limits": {
            name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0]
            for name in ("AS", "CPU", "FSIZE", "CORE", "NOFILE", "NPROC")
        },
        "read": Path(path).read_bytes().decode(),
        "refused": {},
    }
    tries = {
        "another file": lambda: os.open(elsewhere, os.O_RDONLY),
        "its folder": lambda: os.listdir(Path(elsewhere).parent),
        "writing the file": lambda: os.open(path, os.O_WRONLY),
        "a new file": lambda: os.open(out, os.O_WRONLY | os.O_CREAT),
        "removing the file": lambda: os.unlink(path),
        "TCP": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "a local socket": lambda: socket.socket(socket.AF_UNIX),
        "a program": lambda: os.execv("/bin/true", ["true"]),
        "a process": lambda: os.fork() or os._exit(0),
        "a signal to the parent": lambda: os.kill(os.getppid(), 0),
        "the parent's memory": lambda: os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY),
        "the parent's environment": lambda: os.open(f"/proc/{os.getppid()}/environ", os.O_RDONLY),
    }
    for name, action in tries.items():
        try:
            action()
            found["refused"][name] = False
        except PermissionError:
            found["refused"][name] = True
        except OSError as error:
            found["refused"][name] = error.strerror
    worker = threading.Thread(target=lambda: None)
    worker.start()  # threads are what decoders are made of
    worker.join()
    return found


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def burn() -> None:
    while True:
        pass


def sleep(seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return {}


def trickle(blocks: int) -> dict[str, Any]:
    """Data, byte by byte."""
    for _ in range(blocks):
        os.write(1, b"x")
        time.sleep(0.01)
    return {}


def burn_silently() -> None:
    os.write(1, b"x")
    burn()


def hold(megabytes: int) -> None:
    """Until the parent closes."""
    held = b"x" * (megabytes << 20)
    os.write(1, held[:1])
    time.sleep(600)


def swell() -> None:
    held = []
    while True:
        held.append(bytearray(64 << 20))


def swell_natively() -> None:
    """As a library in C++ or Rust ends whose memory is used up."""
    os.write(2, b"memory allocation of 8589934592 bytes failed\n")
    os.abort()


def abort(**_: Any) -> None:
    os.abort()


read = sign = abort  # in the place of lipsync.label.worker


def crash() -> None:
    ctypes.string_at(0)


def killed() -> None:
    """As by the kernel when memory is short."""
    signal.raise_signal(signal.SIGKILL)


def chatter(lines: int) -> dict[str, Any]:
    for _ in range(lines):
        with contextlib.suppress(BlockingIOError):  # a library in C takes no notice
            os.write(2, b"a library has much to say\n")
    return {}


def count_incoming() -> dict[str, Any]:
    from lipsync.sandbox import incoming

    sizes = [len(block) for block in incoming(1000)]
    return {"sizes": [sizes[0], sizes[-1]], "sum": sum(sizes)}


def half_an_answer() -> None:
    os.write(0, b'{"answer": {"a"')
    signal.raise_signal(signal.SIGSEGV)


def flood() -> dict[str, Any]:
    return {"answer": "x" * (64 << 20)}
