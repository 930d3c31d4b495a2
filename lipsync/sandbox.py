"""Child processes that open foreign files: how they start, what they may do, how they end.

A file from outside can crash, stall or bloat the library that parses it, or take it over. So it is opened in a child
process that has limits on memory, processor time and files, no environment, and, where Linux allows, no way to open
another file, a connection or a program (`confine`). The decoder, the reader of labels and eval/offset.py start theirs
here, and docs/security.md says what that promises.

Children come from a fork server: a process of one thread that has imported the libraries, opens no file, holds no key
and only forks. Python's own multiprocessing.forkserver imports the caller's main module into each child, passes on
the environment, and is shared with every other user of it in the process, so it is not used. Where there is no fork
server (not Linux), each child is a new interpreter instead: slower, otherwise the same.

A job is a function that takes keyword arguments and returns what JSON can hold. In the child, descriptor 0 gives
the request and, to jobs that want it, a stream of bytes (`incoming`); the answer leaves on it too. Descriptor 1 takes
data (frames, samples), and 2 what libraries print, which the parent shows if LIPSYNC_DEBUG is set.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from .confine import confine, prctl, protections
from .errors import InputError, LipsyncError
from .messages import Message, as_json

log = logging.getLogger(__name__)

PRELOADED = ("lipsync.media.decoder", "lipsync.label.worker", "c2pa", "PIL.Image", "PIL.ImageCms")
START_S = 120.0  # for the fork server to import its libraries and answer, on a machine that is very busy
GONE_S = 20.0  # for a process to be gone that was killed
PIPE_BYTES = 1 << 20
SAID_BYTES, SAID_CHARACTERS = 1 << 16, 4000  # of what a child prints: kept, and handed on
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # no thread may run when the server forks
    # glibc maps every picture-sized buffer anew; kept instead, they save 300 page faults and 0.8 ms a frame.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 28),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    "PYTHONDONTWRITEBYTECODE": "1",
}
KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")  # without these, libraries may not be found
ANSWER_BYTES = 16 << 20
OUT_OF_MEMORY = ("memory allocation of", "bad_alloc", "MemoryError", "Cannot allocate memory")


@dataclass(frozen=True)
class Limits:
    """What one child is given."""

    memory_bytes: int  # of address space
    cpu_s: int  # processor time, so that a busy machine is not held against the file
    patience_s: float  # wall time without a byte from it
    stall_s: float | None = None  # processor time without a byte from it
    written_bytes: int = 0  # size of any file that it writes
    network: bool = False


class Ended(Exception):
    """A child that gave no answer. `cause` is memory, time, crash or stopped; the text goes after a subject."""

    WORDS = {
        "memory": Message("needs more memory than one file is given"),
        "time": Message("needs more time than one file is given"),
        "crash": Message("broke down"),
        "stopped": Message("was stopped from outside; try again"),
    }

    def __init__(self, cause: str, detail: str = ""):
        said = self.WORDS[cause]
        self.message = Message("{said} ({detail})", said=said, detail=detail) if detail else said
        super().__init__(self.message)
        self.cause, self.detail = cause, detail


class Child:
    """One job in a process of its own.

    job      "module:function"
    request  its keyword arguments, as JSON
    reads    files that it may read; writes: folders that it may fill, the first one for its temporary files too
    data     whether it sends data beside its answer

    May be used and closed from several threads. Raises LipsyncError where no process can be had.
    """

    def __init__(
        self,
        job: str,
        request: dict[str, Any],
        limits: Limits,
        reads: Sequence[str | Path] = (),
        writes: Sequence[str | Path] = (),
        data: bool = False,
    ):
        self.limits, self.closed = limits, False
        self._lock = threading.Lock()
        try:
            self._process, self._talk, self._data = _open(data)
        except OSError as error:
            raise _nothing_started(error) from error
        self._end = weakref.finalize(self, _end, os.getpid(), self._process, self._talk, self._data)
        full = {
            "job": job,
            "request": request,
            "limits": asdict(limits),
            "reads": [os.path.abspath(path) for path in reads],
            "writes": [os.path.abspath(path) for path in writes],
        }
        self.send(json.dumps(full).encode() + b"\n")

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, block: bytes | memoryview) -> None:
        """Give the job more of its incoming bytes; they are dropped where it has ended, and `finish` says why."""
        self._talk.settimeout(self.limits.patience_s)
        try:
            self._talk.sendall(block)
        except TimeoutError:
            self._give_up()
        except OSError:
            pass

    def end_of_input(self) -> None:
        """No more bytes come in."""
        with contextlib.suppress(OSError):
            self._talk.shutdown(socket.SHUT_WR)

    def fill(self, view: memoryview) -> int:
        """Bytes of data read into `view`: all of it, fewer at the end of the data, 0 after it. Raises Ended."""
        done = 0
        with self._lock:
            while done < len(view) and not self.closed:
                self._wait(self._data)
                count = os.readv(self._data, [view[done:]])
                if not count:
                    break
                done += count
        return done

    def finish(self) -> dict[str, Any] | None:
        """The job's answer, once the data has ended; None when another thread closed this. Raises Ended."""
        said = bytearray()
        with self._lock:
            while not self.closed:
                self._wait(self._talk.fileno())
                try:
                    part = self._talk.recv(1 << 16)
                except ConnectionResetError:  # it ended without having read all that was sent
                    break
                if not part:
                    break
                said += part
                if len(said) > ANSWER_BYTES:  # whoever runs in there now, it is not our code
                    self._process.kill()
                    raise Ended("crash", "too long an answer")
            if self.closed:
                return None
            code, words = self._process.wait(GONE_S if said else self.limits.patience_s)
        self.close()
        if os.environ.get("LIPSYNC_DEBUG") and words:
            print(words, file=sys.stderr)
        try:
            answer = json.loads(said)
        except ValueError as error:  # nothing, or the beginning of an answer
            raise _cause(code, words) from error
        if "ended" in answer:
            raise Ended(answer["ended"])
        return answer["answer"]

    def _wait(self, descriptor: int) -> None:
        """Until there is something to read. Raises Ended after too long a wait."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        until, worked = time.monotonic() + self.limits.patience_s, None
        while not poll.poll(1000 * max(0.0, min(2.0, until - time.monotonic()))):
            if time.monotonic() >= until:
                self._give_up()
            if self.limits.stall_s is not None:
                now = _processor_s(self._process.pid)
                worked = now if worked is None else worked
                if now - worked > self.limits.stall_s:
                    self._give_up()

    def _give_up(self) -> None:
        self._process.kill()
        raise Ended("time")

    def close(self) -> None:
        """End the child. May be called at any time, from any thread, more than once."""
        self.closed = True
        self._process.kill()  # a reader in another thread now sees the end of its pipe
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def call(
    job: str,
    request: dict[str, Any],
    limits: Limits,
    reads: Sequence[str | Path] = (),
    writes: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """The answer of a job that sends no data. Raises Ended, LipsyncError."""
    with Child(job, request, limits, reads, writes) as child:
        return child.finish() or {}  # never empty: no other thread knows the child


def in_force() -> list[str]:
    """What holds children back on this machine, as found inside one: a sentence each, for a start-up log line."""
    return call(f"{__name__}:inside", {}, Limits(1 << 30, 10, 60))["protections"]


def warm() -> None:
    """Start the fork server now, so that the first file need not wait for it."""
    with contextlib.suppress(LipsyncError, Ended):
        in_force()


def _open(data: bool) -> tuple[_Forked | _Spawned, socket.socket, int]:
    """A process, the socket to talk with it, and where its data comes out (-1: nowhere)."""
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        talk, other = socket.socketpair()
        ours.callback(talk.close)
        theirs.callback(other.close)
        source, sink = os.pipe() if data else (-1, os.open(os.devnull, os.O_WRONLY))
        theirs.callback(os.close, sink)
        if data:
            ours.callback(os.close, source)
            _widen(source)
        process = _begin(other.fileno(), sink)
        ours.pop_all()
        return process, talk, source


def _nothing_started(error: OSError) -> LipsyncError:
    return LipsyncError("No process could be started to read files ({error}); try again later.", error=error.strerror)


def _widen(pipe: int) -> None:
    with contextlib.suppress(OSError, AttributeError, ImportError):  # a user's pipes share a limit
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _processor_s(pid: int) -> float:
    """Processor time of a process up to now, 0 where that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def _cause(code: int | None, words: str) -> Ended:
    """Why a child ended that gave no answer."""
    if code is None:
        return Ended("stopped")
    ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if ending == "SIGXCPU":
        return Ended("time")
    # The kernel kills by SIGKILL when memory runs out; our own kill is known to whoever asked for it.
    if ending == "SIGKILL" or any(sign in words for sign in OUT_OF_MEMORY):
        return Ended("memory")
    return Ended("crash", ending)


def _end(owner: int, process: _Forked | _Spawned, talk: socket.socket, data: int) -> None:
    if os.getpid() == owner:  # a copy of this object in a forked process must not end the child
        process.kill()
        process.wait(GONE_S)
        process.close()
    talk.close()
    if data >= 0:
        os.close(data)


# --- processes ---------------------------------------------------------------------------------------------------


class _Gone(Exception):
    """The fork server is not there any more."""


class _Server:
    """The fork server, seen from the parent."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                **_interpreter(f"serve({theirs.fileno()})"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self.control = ours
        self.lock = threading.Lock()

    def begin(self, talk: int, sink: int) -> _Forked:
        """A forked child with these descriptors. Raises _Gone, OSError."""
        status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, self.lock:
                socket.send_fds(self.control, [b"fork"], [talk, sink, theirs.fileno()])
            status.settimeout(START_S)
            first = json.loads(status.recv(SAID_BYTES) or b"{}")
        except (OSError, ValueError) as error:
            status.close()
            raise _Gone from error
        if "pid" in first:
            return _Forked(first["pid"], status)
        status.close()
        if "error" in first:
            raise OSError(0, first["error"])
        raise _Gone

    def stop(self) -> None:
        self.control.close()
        self.process.kill()
        self.process.wait()


class _Forked:
    """A child of the fork server. The server kills it when this end of `status` is shut, and tells how it ended."""

    def __init__(self, pid: int, status: socket.socket):
        self.pid, self.status = pid, status
        self.ended: tuple[int | None, str] | None = None
        self.lock = threading.Lock()

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self.status.shutdown(socket.SHUT_WR)

    def wait(self, patience_s: float) -> tuple[int | None, str]:
        """(exit code, negative for a signal, or None where nobody can tell; what it printed)."""
        with self.lock:
            if self.ended is None:
                self.status.settimeout(patience_s)
                try:
                    told = json.loads(self.status.recv(2 * SAID_BYTES) or b"{}")
                except (OSError, ValueError):
                    told = {}
                self.ended = told.get("code"), told.get("said", "")
            return self.ended

    def close(self) -> None:
        self.status.close()


class _Spawned:
    """A child that is an interpreter of its own."""

    def __init__(self, talk: int, sink: int):
        said, theirs = os.pipe()
        os.set_blocking(theirs, False)
        try:
            self.process = subprocess.Popen(**_interpreter("work()"), stdin=talk, stdout=sink, stderr=theirs)
        except OSError:
            os.close(said)
            raise
        finally:
            os.close(theirs)
        self.pid, self.said = self.process.pid, said

    def kill(self) -> None:
        self.process.kill()

    def wait(self, patience_s: float) -> tuple[int | None, str]:
        try:
            code = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return code, _read_all(self.said)

    def close(self) -> None:
        os.close(self.said)


_server: _Server | None = None
_server_lock = threading.Lock()
_no_server = sys.platform != "linux" or not hasattr(os, "pidfd_open")


def _begin(talk: int, sink: int) -> _Forked | _Spawned:
    """A child, from the fork server if there is one; a server that has died is started again."""
    global _server, _no_server
    for _ in range(3):
        if _no_server:
            break
        with _server_lock:
            server = _server = _server or _Server()
        try:
            return server.begin(talk, sink)
        except _Gone:
            with _server_lock:
                if _server is server:
                    _server = None
                    server.stop()
    else:
        _no_server = True
        log.warning("The fork server does not start, so that each file read costs a new interpreter.")
    return _Spawned(talk, sink)


def _forget() -> None:
    """In a forked copy of this process: the server is not its own."""
    global _server, _server_lock
    if _server:
        _server.control.close()
        _server.process.returncode = 0  # not this process's child
    _server, _server_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _interpreter(statement: str) -> dict[str, Any]:
    """Arguments of Popen for an interpreter that finds the same libraries, and gets nothing else of the environment."""
    root = str(Path(__file__).resolve().parent.parent)
    search = [root, *(folder for folder in sys.path if os.path.isabs(folder) and folder != root)]
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {
        "args": [sys.executable, "-P", "-s", "-c", f"import {__name__} as sandbox; sandbox.{statement}"],
        "env": {**kept, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(search)},
        "cwd": "/",
        "start_new_session": True,  # Ctrl-C is for the parent to handle
    }


def _read_all(pipe: int) -> str:
    """What lies in a pipe, without waiting."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        return os.read(pipe, SAID_BYTES).decode(errors="replace").strip()[-SAID_CHARACTERS:]
    return ""


# --- inside the fork server --------------------------------------------------------------------------------------


def serve(control: int) -> None:
    """Fork a child for each message on `control`; end with whoever holds its other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for module in PRELOADED:
        import_module(module)
    os.environ.clear()
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not fork"
    gc.freeze()  # pages with nothing but old objects stay shared
    server = os.getpid()
    requests = socket.socket(fileno=control)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    children: dict[int, tuple[int, int, socket.socket, int]] = {}  # by the descriptors that tell of them
    while True:
        descriptor, _ = poll.poll()[0]  # one at a time: what follows may close and open descriptors
        if descriptor == control:
            message, passed, _, _ = socket.recv_fds(requests, 16, 3)
            if not message:
                for pid, *_ in children.values():
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            if len(passed) < 3:  # out of descriptors: the parent sees that nothing answers
                for lost in passed:
                    os.close(lost)
                continue
            talk, sink, told = passed
            status = socket.socket(fileno=told)
            said, printed = os.pipe()
            os.set_blocking(printed, False)
            try:
                pid = os.fork()
            except OSError as error:
                for unused in (talk, sink, said, printed):
                    os.close(unused)
                _tell(status, {"error": error.strerror})
                status.close()
                continue
            if pid == 0:
                try:
                    for place, given in enumerate((talk, sink, printed)):
                        os.dup2(given, place)
                    os.closerange(3, 1 << 20)
                    _die_with(server)
                    work()
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(70)
            for done in (talk, sink, printed):
                os.close(done)
            watch = os.pidfd_open(pid)
            children[watch] = children[status.fileno()] = (pid, watch, status, said)
            poll.register(watch, select.POLLIN)
            poll.register(status, select.POLLIN)
            _tell(status, {"pid": pid})
            continue
        pid, watch, status, said = children[descriptor]
        if descriptor == status.fileno():  # the parent has shut it
            os.kill(pid, signal.SIGKILL)
            poll.unregister(status)
            continue
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _tell(status, {"code": code, "said": _read_all(said)})
        with contextlib.suppress(KeyError):
            poll.unregister(status)
        poll.unregister(watch)
        del children[watch], children[status.fileno()]
        status.close()
        os.close(watch)
        os.close(said)


def _tell(status: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the parent has closed it
        status.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)


def _die_with(server: int) -> None:
    """End when the fork server does."""
    prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != server:
        os._exit(1)


# --- inside a child ----------------------------------------------------------------------------------------------


def work() -> None:
    """Read the request, give up all that it does not need, do the job, answer, leave."""
    asked = json.loads(_line())
    name, function = asked["job"].split(":")
    limits = Limits(**asked["limits"])
    try:
        module = import_module(name)
        os.environ.clear()  # only now: the libraries look there when they are loaded
        if asked["writes"]:
            os.environ["TMPDIR"] = asked["writes"][0]
        confine(limits, asked["reads"], asked["writes"], libraries(module))
        answer = {"answer": getattr(module, function)(**asked["request"])}
    except MemoryError:
        answer = {"ended": "memory"}
    except InputError as error:
        answer = {"answer": {"error": error.message}}
    os.close(1)
    view = memoryview(json.dumps(as_json(answer)).encode())
    while view:
        view = view[os.write(0, view) :]
    os._exit(0)  # a decoder that hangs while it is taken down must not hold the answer back


def _line() -> bytes:
    """The request, which ends with its line; what follows it is for `incoming`."""
    line = bytearray()
    with socket.socket(fileno=os.dup(0)) as talk:
        while True:
            part = talk.recv(1 << 16, socket.MSG_PEEK)
            end = part.find(b"\n") + 1
            line += talk.recv(end or len(part))
            if end or not part:
                return bytes(line)


def incoming(size: int) -> Iterable[bytearray]:
    """The bytes that the parent sends after the request, in blocks of `size`, the last one shorter."""
    while True:
        block, done = bytearray(size), 0
        while done < size:
            count = os.readv(0, [memoryview(block)[done:]])
            if not count:
                break
            done += count
        if done:
            yield block[:done]
        if done < size:
            return


def libraries(module: Any) -> list[str]:
    """Folders and files that a child reads code from."""
    own = {Path(__file__).parent, Path(module.__file__).parent}
    python = {Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    sites = {Path(p) for p in sys.path if Path(p).name in ("site-packages", "dist-packages")}
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache"]
    return sorted({str(path) for path in own | python | sites | {Path(sys.base_prefix, "lib"), *map(Path, system)}})


def inside() -> dict[str, Any]:
    """A job that says what holds it back."""
    return {"protections": protections()}
