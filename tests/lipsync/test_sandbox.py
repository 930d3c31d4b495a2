"""Children that open foreign files: what they may do, how they end, and that nothing is left of them."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lipsync import confine, sandbox
from lipsync.errors import LipsyncError
from lipsync.progress import rss_mb
from lipsync.sandbox import Child, Ended, Limits, call

pytestmark = pytest.mark.slow  # a server of children each
JOBS = "tests.helpers.sandbox_jobs"
LIMITS = Limits(memory_bytes=1 << 30, cpu_s=20, patience_s=60)
ROOT = Path(__file__).parents[2]
landlock = pytest.mark.skipif(not confine.landlock_version(), reason="this kernel has no Landlock")


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """No test may leave a child or an open descriptor."""
    sandbox.warm()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert not children_of(server())


def server() -> int:
    """The fork server's process."""
    return sandbox._server.process.pid


def children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, its_parent = entry.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_parent) == parent and state != "Z":
            found.append(int(entry.parent.name))
    return found


def gone(pid: int, seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


# --- what a child may do -----------------------------------------------------------------------------------------


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """What a child sees of the world, and may do to it."""
    monkeypatch.setenv("LIPSYNC_SECRET", "told to nobody")
    given, other = tmp_path / "given.txt", tmp_path / "other.txt"
    given.write_text("content")
    other.write_text("of another visitor")
    request = {"path": str(given), "elsewhere": str(other), "out": str(tmp_path / "out.txt")}
    return call(f"{JOBS}:look_round", request, LIMITS, [given])


def test_a_child_has_limits_no_environment_and_no_foreign_descriptor(seen):
    assert seen["environment"] == {} and seen["open"] == [] and seen["threads"] == 1
    assert seen["limits"]["AS"] == 1 << 30 and seen["limits"]["CPU"] == 20
    assert seen["limits"]["FSIZE"] == seen["limits"]["CORE"] == 0
    assert seen["limits"]["NOFILE"] <= 64 and 0 < seen["limits"]["NPROC"] <= 4096


def test_the_server_hides_the_environment_too():
    assert b"LIPSYNC" not in Path(f"/proc/{server()}/environ").read_bytes()
    assert len(os.listdir(f"/proc/{server()}/task")) == 1  # else it must not fork


@landlock
def test_a_child_reads_the_given_file_and_no_other(seen, tmp_path):
    assert seen["read"] == "content"
    for what in ("another file", "its folder", "writing the file", "a new file", "removing the file"):
        assert seen["refused"][what] is True, what
    assert sorted(p.name for p in tmp_path.iterdir()) == ["given.txt", "other.txt"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has seccomp")
def test_a_child_starts_no_program_no_process_and_no_connection(seen):
    for what in ("TCP", "UDP", "a local socket", "a program", "a process", "a signal to the parent"):
        assert seen["refused"][what] is True, what
    assert seen["refused"]["the parent's memory"] and seen["refused"]["the parent's environment"]


def test_what_is_in_force_is_said_as_it_is_found():
    said = " ".join(sandbox.in_force())
    assert "limits on address space, processor time" in said
    if confine.landlock_version():
        assert "Only the given file and the libraries can be opened" in said


def test_a_folder_to_fill_is_the_only_one(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other.txt"
    folder.mkdir()
    other.write_text("x")
    request = {"path": str(other), "elsewhere": str(tmp_path / "conftest.py"), "out": str(folder / "new.txt")}
    seen = call(f"{JOBS}:look_round", request, replace(LIMITS, written_bytes=10), [other], [folder])
    assert seen["refused"]["a new file"] is False and (folder / "new.txt").exists()
    assert seen["environment"] == {"TMPDIR": str(folder)}
    if confine.landlock_version():
        assert seen["refused"]["removing the file"] is True


# --- how it ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job, cause",
    [
        ("swell", "memory"),
        ("swell_natively", "memory"),
        ("killed", "memory"),
        ("abort", "crash"),
        ("crash", "crash"),
        ("half_an_answer", "crash"),
    ],
)
def test_want_of_memory_and_a_crash_are_told_apart(job, cause):
    with pytest.raises(Ended) as raised:
        call(f"{JOBS}:{job}", {}, LIMITS)
    assert raised.value.cause == cause
    assert ("needs more memory than one file is given" in str(raised.value)) == (cause == "memory")


def test_processor_time_is_bounded_and_told_apart():
    with pytest.raises(Ended, match="needs more time than one file is given"):
        call(f"{JOBS}:burn", {}, replace(LIMITS, cpu_s=1))


def test_a_child_that_works_without_a_result_is_given_up_by_its_own_time():
    """Not by the clock on the wall, which runs on while a busy machine does other things."""
    with Child(f"{JOBS}:burn_silently", {}, replace(LIMITS, cpu_s=30, stall_s=0.5), data=True) as child:
        with pytest.raises(Ended, match="needs more time"):
            child.fill(memoryview(bytearray(100)))
        assert sandbox._processor_s(child.pid) < 25
    with Child(f"{JOBS}:trickle", {"blocks": 100}, replace(LIMITS, stall_s=0.5), data=True) as child:
        assert child.fill(memoryview(bytearray(1000))) == 100  # slow, but it goes on


def test_a_child_that_sleeps_is_given_up_in_the_end():
    with pytest.raises(Ended, match="needs more time"):
        call(f"{JOBS}:sleep", {"seconds": 60}, replace(LIMITS, patience_s=0.3))


def test_an_answer_without_end_is_not_kept():
    with pytest.raises(Ended, match="too long an answer"):
        call(f"{JOBS}:flood", {}, LIMITS)


def test_a_library_that_prints_much_does_not_stand_still():
    assert call(f"{JOBS}:chatter", {"lines": 100_000}, LIMITS) == {}


def test_requests_and_streams_of_any_size_arrive_whole():
    request = {"text": "x" * 3_000_000, "more": ["é"] * 10}
    assert call(f"{JOBS}:echo", request, replace(LIMITS, cpu_s=60)) == request
    with Child(f"{JOBS}:count_incoming", {}, LIMITS) as child:
        for _ in range(100):
            child.send(bytes(12_345))
        child.end_of_input()
        assert child.finish() == {"sizes": [1000, 500], "sum": 1_234_500}


# --- the server --------------------------------------------------------------------------------------------------


def test_a_server_that_was_killed_is_started_again():
    before = server()
    os.kill(before, signal.SIGKILL)
    assert call(f"{JOBS}:echo", {"a": 1}, LIMITS) == {"a": 1}
    assert server() != before


def test_a_child_whose_server_is_killed_ends_and_it_is_no_fault_of_the_file():
    with Child(f"{JOBS}:sleep", {"seconds": 60}, LIMITS) as child:
        pid = child.pid
        os.kill(server(), signal.SIGKILL)
        with pytest.raises(Ended, match="was stopped from outside; try again"):
            child.finish()
        assert gone(pid)
    sandbox.warm()


def test_when_the_parent_is_killed_server_and_children_end():
    code = (
        "import os, sys; from lipsync import sandbox; from lipsync.sandbox import Child, Limits\n"
        f"c = Child('{JOBS}:sleep', {{'seconds': 600}}, Limits(1 << 30, 20, 60))\n"
        "print(sandbox._server.process.pid, c.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert all(gone(int(pid)) for pid in done.stdout.split()) and len(done.stdout.split()) == 2


def test_ctrl_c_to_the_parents_group_leaves_the_child_to_the_parent():
    """The parent is interrupted in its waiting; server and child are of another session, and end with it."""
    code = (
        "from lipsync import sandbox; from lipsync.sandbox import Child, Limits\n"
        f"c = Child('{JOBS}:sleep', {{'seconds': 600}}, Limits(1 << 30, 20, 600))\n"
        "try:\n    print(sandbox._server.process.pid, c.pid, flush=True)\n    c.finish()\n"
        "except KeyboardInterrupt:\n    c.close(); print('closed', c._process.wait(1)[0])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout.read() == f"closed {-signal.SIGKILL}\n"
    assert all(gone(pid) for pid in pids)


def test_a_forked_copy_of_the_parent_has_a_server_of_its_own():
    with Child(f"{JOBS}:sleep", {"seconds": 60}, LIMITS) as child:
        before = server()
        copy = os.fork()
        if not copy:
            try:
                fine = sandbox._server is None and call(f"{JOBS}:echo", {"a": 1}, LIMITS) == {"a": 1}
                fine = fine and server() != before
                sandbox._server.stop()
                os._exit(0 if fine else 1)
            finally:
                os._exit(2)
        assert os.waitpid(copy, 0)[1] == 0
        assert server() == before and child.pid in children_of(before)


def test_many_threads_share_the_server():
    def one(n: int) -> bool:
        if n % 3 == 0:
            with Child(f"{JOBS}:sleep", {"seconds": 60}, LIMITS):
                return True
        if n % 3 == 1:
            with pytest.raises(Ended):
                call(f"{JOBS}:abort", {}, LIMITS)
            return True
        return call(f"{JOBS}:echo", {"n": n}, LIMITS) == {"n": n}

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(one, range(60)))
    until = time.monotonic() + 30  # the server tells how a child ended before it closes what it held of it
    while len(os.listdir(f"/proc/{server()}/fd")) >= 10 and time.monotonic() < until:
        time.sleep(0.05)
    assert not children_of(server()) and len(os.listdir(f"/proc/{server()}/fd")) < 10


def test_what_a_job_is_said_to_hold_counts_its_children():
    before = rss_mb()
    with Child(f"{JOBS}:hold", {"megabytes": 300}, LIMITS, data=True) as child:
        child.fill(memoryview(bytearray(1)))
        assert rss_mb() > before + 250


def test_closing_from_another_thread_ends_the_wait():
    with Child(f"{JOBS}:sleep", {"seconds": 60}, LIMITS) as child:
        threading.Timer(0.2, child.close).start()
        began = time.monotonic()
        assert child.finish() is None
        assert time.monotonic() - began < 40


def test_without_a_fork_server_all_is_the_same_but_slower(monkeypatch):
    monkeypatch.setattr(sandbox, "_no_server", True)
    assert call(f"{JOBS}:echo", {"a": 1}, LIMITS) == {"a": 1}
    with pytest.raises(Ended, match="needs more memory"):
        call(f"{JOBS}:swell_natively", {}, LIMITS)
    with Child(f"{JOBS}:trickle", {"blocks": 5}, LIMITS, data=True) as child:
        assert child.fill(memoryview(bytearray(10))) == 5 and child.finish() == {}


def test_where_no_process_can_be_had_it_is_one_sentence(monkeypatch):
    monkeypatch.setattr(sandbox, "_no_server", True)
    monkeypatch.setattr(sandbox.sys, "executable", "/nowhere/python")
    with pytest.raises(LipsyncError, match="No process could be started to read files"):
        call(f"{JOBS}:echo", {}, LIMITS)


def test_a_child_of_the_fork_server_costs_a_small_part_of_an_interpreter(monkeypatch):
    """At least five times less, the quickest of some tries each."""

    def quickest(tries: int) -> float:
        times = []
        for _ in range(tries):
            began = time.perf_counter()
            call("lipsync.sandbox:inside", {}, LIMITS)
            times.append(time.perf_counter() - began)
        return min(times)

    forked = quickest(10)
    monkeypatch.setattr(sandbox, "_no_server", True)
    assert forked < quickest(3) / 2
