"""Processes that make pairs: one that ends by itself, at the worst moment."""

import multiprocessing
import os
import time

import pytest

from resynced.pools import Lost, Processes


def end_or_say(cancelled):
    """What a worker does here: a job named "end" ends its process, another gives its number."""
    return lambda job: os._exit(1) if job == "end" else (os.getpid(), job)


def threads_of(cancelled):
    """What a worker may take of the cores."""
    return lambda job: os.environ["OMP_NUM_THREADS"]


def wait_until(true):
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_a_pool_that_breaks_while_it_begins_a_process_begins_anew():
    """The thread that finds one process dead closes the pipes, just as another job begins a second process."""
    pool = Processes(end_or_say, 2)
    try:
        broken = pool._pool
        begin = broken._spawn_process

        def begin_too_late():
            wait_until(lambda: broken._call_queue._reader.closed)
            begin()

        lost = pool.submit("end")
        broken._spawn_process = begin_too_late
        broken._idle_worker_semaphore.acquire(blocking=False)  # none is free: a second process is begun
        assert pool.submit("one").result(60)[1] == "one"
        assert isinstance(lost.exception(60), Lost)
        assert pool._pool is not broken
        assert pool.submit("two").result(60)[1] == "two"
    finally:
        pool.close()
    wait_until(lambda: not multiprocessing.active_children())


@pytest.mark.slow
def test_processes_share_the_cores(monkeypatch):
    for said, threads in ((None, str(max(1, os.cpu_count() // 2))), ("3", "3")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if said:
            monkeypatch.setenv("OMP_NUM_THREADS", said)
        pool = Processes(threads_of, 2)
        try:
            assert pool.submit("any").result(60) == threads
        finally:
            pool.close()
