"""Files that lie, swell or break off: a result or one sentence, in bounded time, and nothing is left of the reading.

The suite tries some of each kind; `make sweep` tries them all.
"""

import gc
import os
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import psutil
import pytest

from lipsync import sandbox
from lipsync.errors import LipsyncError
from lipsync.label.manifest import Status, sign, verify
from tests.helpers.hostile import MEDIA, cuts, examine, label_attacks, lies, make_media, mutations, unhashed
from tests.helpers.media_maker import count_up, write_media

pytestmark = pytest.mark.slow
GROWTH_BYTES = 300 << 20  # of the parent: what readers hold, and what Python keeps of it


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Plain media of every kind."""
    folder = tmp_path_factory.mktemp("hostile")
    for ending in MEDIA:
        make_media(folder, ending)
    return folder


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """No child, descriptor, thread or large piece of memory stays."""
    sandbox.warm()
    me, server = psutil.Process(), sandbox._server.process.pid
    gc.collect()
    before, size = len(os.listdir("/proc/self/fd")), me.memory_info().rss
    threads = threading.active_count()
    yield
    gc.collect()
    assert sandbox._server.process.pid == server, "the server broke down"
    assert not psutil.Process(server).children()
    assert len(os.listdir(f"/proc/{server}/fd")) < 10
    assert len(os.listdir("/proc/self/fd")) <= before and threading.active_count() <= threads
    assert me.memory_info().rss - size < GROWTH_BYTES


def try_all(files: Iterable[tuple[str, Path]]) -> Counter:
    """Examine each, two at a time; how often each outcome came."""

    def one(what: str, path: Path) -> str:
        try:
            return examine(path)
        except BaseException as error:
            raise AssertionError(f"{what} ({path.name}): {error!r}") from error
        finally:
            path.unlink()

    outcomes: Counter = Counter()
    with ThreadPoolExecutor(2) as pool:
        for said in pool.map(lambda pair: one(*pair), files):
            outcomes["read" if said.startswith("fine") else "refused"] += 1
            outcomes["broke down"] += "broke down" in said
            outcomes["memory"] += "more memory" in said
            outcomes["time"] += "more time" in said
    print(dict(outcomes))
    return outcomes


@pytest.mark.parametrize("ending", MEDIA)
def test_plain_media_of_every_kind_are_read(folder, ending):
    """So that the rest of this file tries what real files go through."""
    assert examine(folder / f"plain.{ending}").count("fine") >= 2


def test_some_lies_of_each_kind(folder):
    some = list(islice(lies(folder), 4, None, 9))
    assert len(some) >= 25 and try_all(some)["refused"] >= 10


def test_some_cut_files(folder):
    assert sum(try_all(cuts(folder, len(MEDIA)))[k] for k in ("read", "refused")) == len(MEDIA)


def test_some_mutated_files(folder):
    assert sum(try_all(mutations(folder, 2 * len(MEDIA)))[k] for k in ("read", "refused")) == 2 * len(MEDIA)


def try_labels(folder: Path, tmp_path: Path, count: int) -> int:
    """Attack a label; how many attempts were made."""
    plain = {}
    for name, pictures in (("one", count_up(25)), ("two", count_up(50)[25:])):
        plain[name] = write_media(folder / f"{name}.mp4", pictures, container_options={"movflags": "faststart"})
        sign(plain[name], tmp_path / f"{name}.mp4", source=plain[name], model="m", checkpoint_sha256="ab" * 32)
    signed, other = ((tmp_path / f"{name}.mp4").read_bytes() for name in plain)

    true, spared = verify(tmp_path / "one.mp4"), unhashed(signed)

    def one(number: int, what: str, data: bytes) -> None:
        path = tmp_path / f"attack{number}.mp4"
        path.write_bytes(data)
        try:
            # The label's own padding may change, as long as content and words are those that were signed.
            same = len(data) == len(signed) and all(
                data[at] == signed[at] for at in range(len(data)) if at not in spared
            )
            verdict = verify(path)
            assert verdict.status is not Status.INTACT or (same and verdict == true), what
        except LipsyncError as error:
            assert "\n" not in str(error), what
        path.unlink()

    with ThreadPoolExecutor(2) as pool:
        return len(list(pool.map(lambda item: one(item[0], *item[1]), enumerate(label_attacks(signed, other, count)))))


def test_some_attacks_on_a_label(folder, tmp_path):
    assert try_labels(folder, tmp_path, 40) > 30


# --- the sweep -----------------------------------------------------------------------------------------------------


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_every_lie(folder):
    outcomes = try_all(lies(folder))
    assert outcomes["read"] + outcomes["refused"] >= 140


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_five_hundred_cut_files(folder):
    assert sum(try_all(cuts(folder, 500))[k] for k in ("read", "refused")) == 500


@pytest.mark.sweep
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(1, 6))
def test_two_thousand_five_hundred_mutated_files(folder, seed):
    assert sum(try_all(mutations(folder, 500, seed))[k] for k in ("read", "refused")) == 500


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_nine_hundred_attacks_on_a_label(folder, tmp_path):
    assert try_labels(folder, tmp_path, 960) >= 887
