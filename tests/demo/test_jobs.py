"""Job queue: isolation, lanes, caps, cancel, delete, expiry, restart, full disks. The work is a fake."""

import json
import os
import stat
import threading
import time

import numpy as np
import pytest

from demo.jobs import BROKEN, UNWRITABLE, Ages, FolderSweeper, JobQueue, Memory, held_bytes
from lipsync.errors import Cancelled, InputError
from lipsync.progress import Progress


class Clock:
    """A wall clock and a monotonic one that only move when told to."""

    def __init__(self):
        self.now, self.since = 1_000_000.0, 50.0

    def ages(self):
        return Ages(lambda: self.now, lambda: self.since)

    def go(self, seconds):
        self.now += seconds
        self.since += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    store = JobQueue(tmp_path / "jobs", keep_s=3600, ages=clock.ages())
    yield store
    store.close()


def settle(store, job_id, state=None):
    """Wait for the end of a job's work (or for a state) and return the job."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        job = store.get(job_id)
        if job is None or (job.state == state if state else not job.busy):
            return job
        time.sleep(0.005)
    raise AssertionError(f"still {store.get(job_id).state}")


def writes(name, text="made"):
    def work(job, progress, cancelled):
        (work.store.folder(job.id) / name).write_text(text)
        work.store.update(job.id, result=name)

    return work


def waits(gate):
    """Work that ends when the gate opens, or is cancelled."""

    def work(job, progress, cancelled):
        progress(Progress("sync", 3, 10, 1.5))
        while not gate.wait(0.01):
            if cancelled():
                raise Cancelled("stopped")

    return work


def test_a_job_runs_and_keeps_its_facts(store):
    job = store.create()
    work = writes("result.mp4")
    work.store = store
    store.submit(job.id, "sync", work)
    done = settle(store, job.id)
    assert (done.state, done.task, done.facts) == ("done", "sync", {"result": "result.mp4"})
    on_disk = json.loads((store.folder(job.id) / "job.json").read_text())
    assert on_disk["state"] == "done" and on_disk["facts"] == done.facts


def test_ids_are_unguessable_and_folders_are_private(store):
    ids = {store.create().id for _ in range(20)}
    assert len(ids) == 20 and all(len(i) == 32 for i in ids)
    assert stat.S_IMODE(os.stat(store.folder(ids.pop())).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(store.folder_of_all).st_mode) == 0o700


@pytest.mark.parametrize("wrong", ["", "..", "../x", "a" * 32, "a/b", None, 7, ["x"]])
def test_a_wrong_id_finds_nothing(store, wrong):
    store.create()
    assert store.get(wrong) is None


def test_a_path_in_an_id_is_refused(store):
    with pytest.raises(ValueError, match="no job id"):
        store.folder("../../etc/passwd")


def test_two_visitors_have_two_folders(store):
    one, two = store.create(), store.create()
    (store.folder(one.id) / "face.mp4").write_text("one")
    (store.folder(two.id) / "face.mp4").write_text("two")
    store.delete(one.id)
    assert not store.folder(one.id).exists()
    assert (store.folder(two.id) / "face.mp4").read_text() == "two"


def test_one_at_a_time_in_order(store):
    gate, order = threading.Event(), []
    jobs = [store.create() for _ in range(3)]
    store.submit(jobs[0].id, "sync", waits(gate))
    settle(store, jobs[0].id, "running")
    for job in jobs[1:]:
        store.submit(job.id, "sync", lambda job, *_: order.append(job.id))
    assert [store.ahead(j.id) for j in jobs] == [0, 1, 2]
    assert [store.get(j.id).state for j in jobs] == ["running", "waiting", "waiting"]
    gate.set()
    settle(store, jobs[2].id)
    assert order == [jobs[1].id, jobs[2].id]


def test_two_at_once(tmp_path):
    store, both = JobQueue(tmp_path / "jobs", at_once=2), threading.Barrier(2, timeout=5)
    jobs = [store.create(), store.create()]
    for job in jobs:
        store.submit(job.id, "sync", lambda *_: both.wait())
    assert [settle(store, j.id).state for j in jobs] == ["done", "done"]
    store.close()


def test_progress_is_told_and_forgotten(store):
    gate, job = threading.Event(), store.create()
    store.submit(job.id, "sync", waits(gate))
    until = time.monotonic() + 5
    while store.progress(job.id) is None and time.monotonic() < until:
        time.sleep(0.005)
    assert store.progress(job.id) == Progress("sync", 3, 10, 1.5)
    gate.set()
    settle(store, job.id)
    assert store.progress(job.id) is None


def test_cancel_running_and_waiting(store):
    gate, ran = threading.Event(), []
    first, second = store.create(), store.create()
    store.submit(first.id, "sync", waits(gate))
    store.submit(second.id, "sync", lambda *_: ran.append(1))
    settle(store, first.id, "running")
    store.cancel(second.id)
    assert store.get(second.id).state == "cancelled" and store.ahead(second.id) == 0
    store.cancel(first.id)
    assert settle(store, first.id).state == "cancelled"
    store.submit(second.id, "sync", lambda *_: ran.append(2))  # and it can be started again
    assert settle(store, second.id).state == "done" and ran == [2]
    assert store.folder(first.id).is_dir()


def test_a_busy_job_is_not_started_twice(store):
    gate, job, ran = threading.Event(), store.create(), []
    store.submit(job.id, "sync", waits(gate))
    store.submit(job.id, "sync", lambda *_: ran.append(1))
    gate.set()
    settle(store, job.id)
    assert not ran


def test_errors_become_sentences(store, caplog):
    def known(*_):
        raise InputError("clip.mp4 is empty.")

    def unknown(*_):
        raise ZeroDivisionError("secret path /home/x")

    one, two = store.create(), store.create()
    store.submit(one.id, "faces", known)
    store.submit(two.id, "faces", unknown)
    assert (settle(store, one.id).state, store.get(one.id).error) == ("failed", "clip.mp4 is empty.")
    assert settle(store, two.id).error == BROKEN
    assert "ZeroDivisionError" in caplog.text


def test_delete_while_running_leaves_nothing(store):
    gate, job = threading.Event(), store.create()

    def work(job, progress, cancelled):
        gate.wait(5)
        folder = store.folder(job.id)
        folder.mkdir(exist_ok=True)
        (folder / "late.mp4").write_text("x")

    store.submit(job.id, "sync", work)
    settle(store, job.id, "running")
    store.delete(job.id)
    assert store.get(job.id) is None
    gate.set()
    until = time.monotonic() + 5
    while (store._stop or store.folder(job.id).exists()) and time.monotonic() < until:
        time.sleep(0.005)
    assert not store.folder(job.id).exists()


def test_files_go_after_their_time_but_not_under_work(store, clock):
    gate, old, busy = threading.Event(), store.create(), store.create()
    store.memory.put(old.id, "faces")
    store.submit(busy.id, "sync", waits(gate))
    settle(store, busy.id, "running")
    (store.folder_of_all / "stray").mkdir()
    clock.go(3601)
    assert store.get(old.id) is None  # also before the sweeper has come
    young = store.create()
    assert store.sweep() == 2
    assert not store.folder(old.id).exists() and old.id not in store.memory
    assert store.folder(busy.id).is_dir() and store.folder(young.id).is_dir()
    gate.set()
    assert settle(store, busy.id).state == "done"
    clock.go(3000)
    assert store.get(busy.id) is not None  # an hour from the end of its work
    clock.go(700)
    assert store.get(busy.id) is None


def test_an_upload_of_two_visitors_is_named_by_both(store):
    """Gradio keeps one copy of the same file under the same name: who deletes his must leave the other's."""
    mine, other = store.create(), store.create()
    store.update(mine.id, uploads=["/up/a.png", "/up/voice.wav"])
    store.update(other.id, uploads=["/up/a.png"], given={"voice": "/up/voice.wav"})
    assert store.named_by_others(mine.id) == {"/up/a.png", "/up/voice.wav"}
    store.delete(other.id)
    assert store.named_by_others(mine.id) == set()


def test_a_restart_finds_jobs_again(tmp_path, clock):
    gate = threading.Event()
    before = JobQueue(tmp_path / "jobs", ages=clock.ages())
    done, running, waiting = before.create(), before.create(), before.create()
    before.submit(done.id, "sync", lambda *_: before.update(done.id, result="r.mp4"))
    settle(before, done.id)
    before.submit(running.id, "sync", waits(gate))
    settle(before, running.id, "running")
    before.submit(waiting.id, "sync", lambda *_: None)
    (tmp_path / "jobs" / ("b" * 32)).mkdir()
    (tmp_path / "jobs" / ("b" * 32) / "job.json").write_text("not json")

    after = JobQueue(tmp_path / "jobs", ages=clock.ages())
    assert after.get(done.id).facts == {"result": "r.mp4"} and after.get(done.id).state == "done"
    assert after.get(running.id).state == after.get(waiting.id).state == "interrupted"
    after.submit(running.id, "sync", lambda *_: None)
    assert settle(after, running.id).state == "done"
    after.sweep()
    assert not (tmp_path / "jobs" / ("b" * 32)).exists()
    before.close()
    after.close()


def test_a_server_that_ends_in_order_interrupts_and_does_not_cancel(tmp_path):
    before = JobQueue(tmp_path / "jobs")
    one, two = before.create(), before.create()
    before.submit(one.id, "sync", waits(threading.Event()))
    settle(before, one.id, "running")
    before.submit(two.id, "sync", lambda *_: None)
    before.close()
    after = JobQueue(tmp_path / "jobs")
    assert after.get(one.id).state == after.get(two.id).state == "interrupted"
    after.close()


def test_sweep_folder_removes_old_uploads_and_empty_folders(tmp_path):
    old, new = tmp_path / "a" / "old.mp4", tmp_path / "b" / "new.mp4"
    for path in (old, new):
        path.parent.mkdir()
        path.write_text("x")
    now = time.time()
    os.utime(old, (now - 4000, now - 4000))
    assert FolderSweeper(tmp_path, 3600).sweep() == 1
    assert not old.exists() and new.exists()
    os.utime(old.parent, (now - 4000, now - 4000))
    FolderSweeper(tmp_path, 3600).sweep()
    assert not old.parent.exists() and new.exists()


@pytest.mark.parametrize("jump", [3600, 30 * 24 * 3600, -24 * 3600])
def test_a_clock_that_jumps_neither_deletes_nor_keeps(tmp_path, clock, jump):
    """Files go an hour after they came, whatever the wall clock says meanwhile."""
    store = JobQueue(tmp_path / "jobs", keep_s=3600, ages=clock.ages())
    file = tmp_path / "gradio" / "a" / "clip.mp4"
    file.parent.mkdir(parents=True)
    sweeper, job = FolderSweeper(tmp_path / "gradio", 3600, clock.ages()), store.create()
    sweeper.sweep()
    file.write_text("x")
    os.utime(file, (clock.now, clock.now))
    clock.go(30)
    clock.now += jump
    store.sweep()
    sweeper.sweep()
    assert store.get(job.id) is not None and file.exists()
    clock.go(3500)
    store.sweep()
    sweeper.sweep()
    assert store.get(job.id) is not None and file.exists()
    clock.go(200)
    store.sweep()
    sweeper.sweep()
    assert store.get(job.id) is None and not store.folder(job.id).exists() and not file.exists()
    store.close()


def test_faces_are_found_while_videos_are_made(store):
    gate, film, face = threading.Event(), store.create(), store.create()
    store.submit(film.id, "sync", waits(gate))
    settle(store, film.id, "running")
    store.submit(face.id, "faces", lambda *_: None)
    assert settle(store, face.id).state == "done" and store.get(film.id).state == "running"
    gate.set()


def test_videos_come_before_measuring(store):
    gate, order, first = threading.Event(), [], store.create()
    store.submit(first.id, "sync", waits(gate))
    settle(store, first.id, "running")
    measured, made = store.create(), store.create()
    store.submit(measured.id, "evaluate", lambda *_: order.append("evaluate"))
    store.submit(made.id, "sync", lambda *_: order.append("sync"))
    assert store.ahead(made.id) == 1  # the running one: what is only measured gives way
    gate.set()
    settle(store, measured.id)
    assert order == ["sync", "evaluate"]


def test_a_video_asked_for_while_faces_are_looked_for_comes_next(store):
    gate, ran, job = threading.Event(), [], store.create()
    store.submit(job.id, "faces", waits(gate))
    settle(store, job.id, "running")
    store.submit(job.id, "sync", lambda *_: ran.append("sync"))
    assert store.pending(job.id) and store.get(job.id).task == "faces"
    gate.set()
    until = time.monotonic() + 5
    while not ran and time.monotonic() < until:
        time.sleep(0.005)
    done = settle(store, job.id)
    assert ran == ["sync"] and (done.task, done.state) == ("sync", "done") and not store.pending(job.id)


def test_a_new_video_ends_the_measuring_of_the_old(store):
    ran, job = [], store.create()
    store.submit(job.id, "evaluate", waits(threading.Event()))
    settle(store, job.id, "running")
    store.submit(job.id, "sync", lambda *_: ran.append("sync"))
    until = time.monotonic() + 5
    while not ran and time.monotonic() < until:
        time.sleep(0.005)
    assert settle(store, job.id).task == "sync" and ran == ["sync"]


def test_no_video_follows_faces_that_failed(store):
    gate, ran, job = threading.Event(), [], store.create()

    def fails(*_):
        gate.wait(5)
        raise InputError("clip.mp4 is empty.")

    store.submit(job.id, "faces", fails)
    settle(store, job.id, "running")
    store.submit(job.id, "sync", lambda *_: ran.append(1))
    gate.set()
    assert settle(store, job.id).error == "clip.mp4 is empty." and not ran


def test_waiting_work_is_capped_in_all_and_for_each_address(tmp_path):
    store, gate = JobQueue(tmp_path / "jobs", max_waiting=4, max_waiting_each=2), threading.Event()
    first = store.create()
    store.submit(first.id, "sync", waits(gate), "10.0.0.1")
    settle(store, first.id, "running")
    for address in ("10.0.0.1", "10.0.0.1"):
        store.submit(store.create().id, "sync", waits(gate), address)
    with pytest.raises(InputError, match="2 clips wait here already"):
        store.submit(store.create().id, "sync", waits(gate), "10.0.0.1")
    for address in ("10.0.0.2", "10.0.0.3"):
        store.submit(store.create().id, "sync", waits(gate), address)
    with pytest.raises(InputError, match="4 clips wait here already"):
        store.submit(store.create().id, "sync", waits(gate), "10.0.0.4")
    face = store.create()
    store.submit(face.id, "faces", lambda *_: None, "10.0.0.1")  # a lane of its own
    assert settle(store, face.id).state == "done"
    store.submit(store.get(first.id).id, "evaluate", waits(gate))
    gate.set()
    store.close()


def test_work_that_takes_too_long_is_ended_with_a_sentence(tmp_path):
    store = JobQueue(tmp_path / "jobs", budget_s=0.05)
    job = store.create()
    store.submit(job.id, "sync", waits(threading.Event()))
    ended = settle(store, job.id)
    assert ended.state == "failed" and "took longer than" in ended.error
    store.close()


def test_too_little_memory_ends_the_job_and_not_the_server(store, caplog):
    def greedy(*_):
        raise MemoryError

    one, two = store.create(), store.create()
    store.submit(one.id, "sync", greedy)
    assert "more memory than the server has" in settle(store, one.id).error
    store.submit(two.id, "sync", lambda *_: None)
    assert settle(store, two.id).state == "done"


def test_a_job_whose_state_cannot_be_written_is_ended_and_says_so(store, monkeypatch, caplog):
    def full(job):
        raise OSError(28, "No space left on device")

    gate, job = threading.Event(), store.create()
    with monkeypatch.context() as patch:
        patch.setattr(store, "_save", full)
        with pytest.raises(InputError, match="disk is full"):
            store.create()
        store.submit(job.id, "sync", waits(gate))
        assert (settle(store, job.id).state, store.get(job.id).error) == ("failed", UNWRITABLE)
        with pytest.raises(InputError, match="disk is full"):
            store.update(job.id, more=1)
    store.submit(job.id, "sync", lambda *_: None)  # and once there is room again
    assert settle(store, job.id).state == "done"
    assert [p.name for p in store.folder_of_all.iterdir()] == [job.id]


def test_what_a_killed_server_left_half_written_goes_at_the_next_start(tmp_path):
    before = JobQueue(tmp_path / "jobs")
    job = before.create()
    folder = before.folder(job.id)
    before.close()
    (folder / "job.part").write_text("{")
    for name in ("source.new", ".lipsync-abc"):
        (folder / name).mkdir()
        (folder / name / "half.mp4").write_text("x")
    after = JobQueue(tmp_path / "jobs")
    assert [p.name for p in folder.iterdir()] == ["job.json"] and after.get(job.id) is not None
    after.close()


def test_files_are_viewed_under_another_name_than_the_owners(store):
    job = store.create()
    assert len(job.view) == 32 and job.view != job.id and store.viewed(job.view) is job
    assert store.get(job.view) is None and store.viewed(job.id) is None
    store.delete(job.id)
    assert store.viewed(job.view) is None


def test_face_maps_in_memory_are_bounded_by_bytes():
    memory = Memory(most=3000)
    for name in "abcd":
        memory.put(name, ({"boxes": np.zeros(100, np.float64)}, [b"x" * 200]))  # 1,000 bytes
    assert "a" not in memory and memory.get("b") is not None
    memory.put("e", None)
    assert "b" in memory  # used a moment ago
    memory.put("huge", np.zeros(5000, np.uint8))
    assert "huge" in memory and len(memory) == 1
    assert held_bytes(((np.zeros(3, np.float32), 7), [{"x": b"12"}])) == 14
