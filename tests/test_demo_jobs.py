"""The job store: isolation, queue, cancel, delete, expiry, restart. The work is a fake."""

import json
import os
import stat
import threading
import time

import pytest

from demo.jobs import BROKEN, Store, sweep_folder
from lipsync.errors import Cancelled, InputError
from lipsync.records import Progress


class Clock:
    """A clock that only moves when told to."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    store = Store(tmp_path / "jobs", keep_s=3600, clock=clock)
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
    store, both = Store(tmp_path / "jobs", at_once=2), threading.Barrier(2, timeout=5)
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
    store.memory[old.id] = "faces"
    store.submit(busy.id, "sync", waits(gate))
    settle(store, busy.id, "running")
    (store.folder_of_all / "stray").mkdir()
    clock.now += 3601
    assert store.get(old.id) is None  # also before the sweeper has come
    young = store.create()
    assert store.sweep() == 2
    assert not store.folder(old.id).exists() and old.id not in store.memory
    assert store.folder(busy.id).is_dir() and store.folder(young.id).is_dir()
    gate.set()
    assert settle(store, busy.id).state == "done"
    clock.now += 3000
    assert store.get(busy.id) is not None  # an hour from the end of its work
    clock.now += 700
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
    before = Store(tmp_path / "jobs", clock=clock)
    done, running, waiting = before.create(), before.create(), before.create()
    before.submit(done.id, "sync", lambda *_: before.update(done.id, result="r.mp4"))
    settle(before, done.id)
    before.submit(running.id, "sync", waits(gate))
    settle(before, running.id, "running")
    before.submit(waiting.id, "sync", lambda *_: None)
    (tmp_path / "jobs" / ("b" * 32)).mkdir()
    (tmp_path / "jobs" / ("b" * 32) / "job.json").write_text("not json")

    after = Store(tmp_path / "jobs", clock=clock)
    assert after.get(done.id).facts == {"result": "r.mp4"} and after.get(done.id).state == "done"
    assert after.get(running.id).state == after.get(waiting.id).state == "interrupted"
    after.submit(running.id, "sync", lambda *_: None)
    assert settle(after, running.id).state == "done"
    after.sweep()
    assert not (tmp_path / "jobs" / ("b" * 32)).exists()
    before.close()
    after.close()


def test_a_server_that_ends_in_order_interrupts_and_does_not_cancel(tmp_path):
    before = Store(tmp_path / "jobs")
    one, two = before.create(), before.create()
    before.submit(one.id, "sync", waits(threading.Event()))
    settle(before, one.id, "running")
    before.submit(two.id, "sync", lambda *_: None)
    before.close()
    after = Store(tmp_path / "jobs")
    assert after.get(one.id).state == after.get(two.id).state == "interrupted"
    after.close()


def test_sweep_folder_removes_old_uploads_and_empty_folders(tmp_path):
    old, new = tmp_path / "a" / "old.mp4", tmp_path / "b" / "new.mp4"
    for path in (old, new):
        path.parent.mkdir()
        path.write_text("x")
    now = time.time()
    os.utime(old, (now - 4000, now - 4000))
    assert sweep_folder(tmp_path, 3600, now) == 1
    assert not old.exists() and new.exists()
    os.utime(old.parent, (now - 4000, now - 4000))
    sweep_folder(tmp_path, 3600, now)
    assert not old.parent.exists() and new.exists()
