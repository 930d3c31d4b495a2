"""The parent of an outside command, run as a program: holds it to its limits, and ends all that it leaves behind.

    python -m resynced.supervise < request

The request is one line of JSON: {argv, cwd, env, timeout_s, memory_mb, disk_mb}; the answer another, on standard
output: {code, ended, left, said}. When the standard input closes (whoever asked is gone, or wants no more) everything
ends. A process that its own parent leaves becomes a child of this one, in whatever session it is, so that none is lost.
"""

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import time
from contextlib import suppress

import psutil

from lipsync.confine import write_only_in

LOOK_S = 0.1
SAID_BYTES = 4000  # of what a command prints: the end, which has the reason
PR_SET_CHILD_SUBREAPER = 36


def descendants() -> list[psutil.Process]:
    """Every process below this one."""
    with suppress(psutil.Error):
        return psutil.Process().children(recursive=True)
    return []


def end_all() -> int:
    """Kill every descendant; returns how many there were. What they start while they die is found on the next round."""
    count = 0
    until = time.monotonic() + 10
    while time.monotonic() < until:
        alive = [p for p in descendants() if _runs(p)]
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
                count += 1
        reap()
        if not alive:
            break
        time.sleep(0.01)
    return count


def reap() -> None:
    """Let go of orphans that have ended."""
    with suppress(OSError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def memory_mb() -> float:
    """Held by all descendants."""
    held = 0
    for process in descendants():
        with suppress(psutil.Error):
            held += process.memory_info().rss
    return held / 2**20


def disk_mb(folder: str, most: float) -> float:
    """Size of all files below a folder; no more is counted than it takes to pass `most`."""
    held, waiting = 0, [folder]
    while waiting and held <= most * 2**20:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                held += 4096  # a file of no bytes costs something too
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    with suppress(OSError):
                        held += entry.stat(follow_symlinks=False).st_blocks * 512
    return held / 2**20


def limit(folder: str, disk: int) -> None:
    """In the child, before the command: no core files, no file larger than all may be, none outside the folder."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (disk << 20, disk << 20))
    write_only_in([folder, "/dev", "/proc/self"])


def watch(process: subprocess.Popen, request: dict) -> tuple[str, bytes]:
    """Until the command ends: why it had to be ended ("" where it did by itself), and the end of what it printed."""
    said, pipe = b"", process.stdout.fileno()
    os.set_blocking(pipe, False)
    began = looked = time.monotonic()
    reads = [0, pipe]
    while True:
        ready = select.select(reads, [], [], LOOK_S)[0]
        if pipe in ready:
            with suppress(BlockingIOError):
                part = os.read(pipe, 1 << 16)
                said = (said + part)[-SAID_BYTES:]
                if not part:
                    reads.remove(pipe)
        if process.poll() is not None:
            return "", (said + _rest(pipe))[-SAID_BYTES:]
        if 0 in ready and not os.read(0, 1 << 16):
            return "stopped", said
        now = time.monotonic()
        if now - began > request["timeout_s"]:
            return "time", said
        if now - looked > LOOK_S:
            looked = now
            if memory_mb() > request["memory_mb"]:
                return "memory", said
            if disk_mb(request["cwd"], request["disk_mb"]) > request["disk_mb"]:
                return "disk", said


def _rest(pipe: int) -> bytes:
    """What is still in a pipe, which processes that are left may go on filling."""
    said = b""
    with suppress(BlockingIOError):
        while len(said) < 1 << 20 and (part := os.read(pipe, 1 << 16)):
            said += part
    return said


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches whoever asked, who then closes the input
    with suppress(AttributeError, OSError):  # Linux alone has it
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1)
        if not part:
            return
        line += part
    request = json.loads(line)
    answer = {"code": None, "ended": "", "left": 0, "said": ""}
    try:
        process = subprocess.Popen(
            request["argv"],
            cwd=request["cwd"],
            env=request["env"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: limit(request["cwd"], request["disk_mb"]),
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        answer |= {"ended": "start", "said": getattr(error, "strerror", None) or str(error)}
    else:
        try:
            answer["ended"], said = watch(process, request)
        finally:
            code = process.poll()  # before the others are reaped, whose codes nobody wants
            left = end_all()
        answer |= {"code": code, "left": left, "said": said.decode(errors="replace")}
    with suppress(OSError):
        os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
