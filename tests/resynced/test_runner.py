"""The runner: atomic pairs, restarts, failures, copies, claims, processes."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from sqlalchemy import select

from lipsync.errors import Cancelled
from lipsync.progress import Monitor
from resynced import runner
from resynced.leaderboard import leaderboard
from resynced.records import BenchmarkError
from resynced.runner import first_pairs, run, video_path
from resynced.store import CheckFact, Claim, DistanceFact, RunFact, ScoreFact, Store, Withdrawal
from tests.helpers.bench_fakes import FakeScoring, FakeSystem, file_set
from tests.helpers.rows import made_set, sha


def rows(store):
    with store.read() as session:
        return session.scalars(select(ScoreFact).order_by(ScoreFact.system, ScoreFact.pair, ScoreFact.attempt)).all()


def table(store):
    return [(r.system, r.pair, r.lse_d, r.reason, r.video_sha256) for r in rows(store)]


@pytest.fixture
def where(tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    return folder


@pytest.fixture
def own(tmp_path):
    with Store(tmp_path / "own.sqlite") as opened:
        yield opened


@pytest.mark.slow
def test_every_pair_of_every_system_gets_a_row_with_what_made_it(store, where):
    chosen, log = file_set(where), where / "log"
    seen = []
    found = run(
        chosen,
        [FakeSystem("A"), FakeSystem("B")],
        store,
        where / "work",
        FakeScoring(log),
        command="python -m resynced run",
        monitor=Monitor(seen.append),
    )
    assert (found.made, found.failed, found.known, found.copied) == (12, 0, 0, 0)
    made = rows(store)
    assert [(r.system, r.pair) for r in made] == [(s, p.id) for s in "AB" for p in chosen.pairs]
    first = made[0]
    assert first.category == "dubbed" and first.speaker == "s0" and first.frames == 50 and first.seconds > 0
    assert first.sharpness == first.record["values"]["sharpness_mouth"] and first.evaluator == "fake"
    assert first.record["file"] == "p00.mp4"
    kept = video_path(where / "work", "made", chosen.sha256, "A", sha("A"), "p00")
    assert kept.read_text() == "A p00" and first.video_sha256 == sha("A p00")
    with store.read() as session:
        made_by = session.scalars(select(RunFact)).one()
        distances = session.scalars(select(DistanceFact).where(DistanceFact.system == "A")).all()
        assert session.scalars(select(CheckFact)).one().found == 8
        assert not session.scalars(select(Claim)).all()
    assert made_by.key == first.run and made_by.command == "python -m resynced run"
    assert made_by.environment["libraries"]["numpy"] and made_by.settings["protocol"] == "short"
    assert {d.category: d.clips for d in distances} == {"": 6, "dubbed": 2, "random": 2, "tts": 2}
    assert not list((where / "work" / "scratch").iterdir())
    assert {p.stage for p in seen} >= {"pairs", "distances"} and seen[-1].done == seen[-1].total


@pytest.mark.slow
def test_a_second_run_computes_nothing_again_and_a_larger_one_the_rest(own, where):
    chosen, log = file_set(where), where / "log"
    run(chosen, [FakeSystem()], own, where / "work", FakeScoring(log), limit=4)
    again = run(chosen, [FakeSystem(), FakeSystem("B")], own, where / "work", FakeScoring(log))
    assert (again.made, again.known) == (8, 4)
    assert max(Counter(log.read_text().splitlines()).values()) == 1


@pytest.mark.slow
def test_what_another_set_had_is_copied_under_the_new_name(own, where):
    log = where / "log"
    run(file_set(where, 4), [FakeSystem()], own, where / "work", FakeScoring(log))
    found = run(file_set(where, 6, "larger"), [FakeSystem()], own, where / "work", FakeScoring(log))
    assert (found.made, found.copied) == (2, 4)
    assert len([r for r in rows(own) if r.set_name == "larger"]) == 6
    assert max(Counter(log.read_text().splitlines()).values()) == 1


@pytest.mark.slow
def test_another_fingerprint_is_another_system(own, where):
    chosen = file_set(where, 2)
    run(chosen, [FakeSystem()], own, where / "work", FakeScoring())
    assert run(chosen, [FakeSystem(fingerprint=sha("other"))], own, where / "work", FakeScoring()).made == 2


@pytest.mark.slow
def test_a_failed_pair_is_a_row_with_its_reason_and_is_tried_again_when_asked(own, where):
    chosen = file_set(where, 3)
    found = run(chosen, [FakeSystem(broken=("p01",))], own, where / "work", FakeScoring())
    assert found.failed == 1
    failed = rows(own)[1]
    assert failed.reason == "made.mp4 cannot be made of p01." and failed.lse_d is None and not failed.video_sha256
    assert run(chosen, [FakeSystem()], own, where / "work", FakeScoring()).made == 0
    assert run(chosen, [FakeSystem()], own, where / "work", FakeScoring(), again=True).made == 1
    tried = [r for r in rows(own) if r.pair == "p01"]
    assert [(r.attempt, r.reason is None) for r in tried] == [(0, False), (1, True)]
    with own.read() as session:
        assert session.scalars(select(Withdrawal.target)).all() == [failed.key]
    assert run(chosen, [FakeSystem()], own, where / "work", FakeScoring(), again=True).made == 0


def test_a_run_is_cancelled_between_and_within_pairs_and_leaves_no_scratch(own, where):
    chosen, log = file_set(where), where / "log"
    log.touch()
    monitor = Monitor(cancelled=lambda: len(log.read_text().splitlines()) == 2)
    with pytest.raises(Cancelled):
        run(chosen, [FakeSystem(seconds=0.05)], own, where / "work", FakeScoring(log), monitor=monitor)
    assert len(rows(own)) == 2
    assert not list((where / "work" / "scratch").iterdir())
    with own.read() as session:
        assert not session.scalars(select(Claim)).all()


@pytest.mark.slow
def test_two_runners_on_one_store_share_the_work(store, where):
    chosen, log, broken = file_set(where, 12), where / "log", []

    def one() -> None:
        try:
            run(chosen, [FakeSystem(seconds=0.02)], store, where / "work", FakeScoring(log))
        except Exception as error:
            broken.append(error)

    both = [threading.Thread(target=one) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert not broken and len(rows(store)) == 12
    assert max(Counter(log.read_text().splitlines()).values()) == 1


@pytest.mark.slow
def test_a_pair_that_another_runner_has_is_waited_for(own, where, monkeypatch):
    chosen = file_set(where, 2)
    facts = FakeScoring().open().facts
    work = runner.work_key(chosen.pairs[0], sha("A"), facts)
    began = time.monotonic()
    assert own.claim(work, "elsewhere-1-2", 0.8)
    assert run(chosen, [FakeSystem()], own, where / "work", FakeScoring()).made == 2
    assert time.monotonic() - began > 0.7


@pytest.mark.slow
def test_processes_give_the_same_rows_and_one_that_dies_costs_its_pair_alone(own, where, tmp_path):
    chosen, log = file_set(where), where / "log"
    systems = [FakeSystem("A", deadly=("p02",)), FakeSystem("B")]
    found = run(chosen, systems, own, where / "work", FakeScoring(log), workers=2)
    assert (found.made, found.failed) == (12, 1)
    dead = [r for r in rows(own) if r.reason]
    assert [(r.system, r.pair) for r in dead] == [("A", "p02")] and "ended by itself" in dead[0].reason
    with Store(tmp_path / "alone.sqlite") as alone:
        run(chosen, [FakeSystem("A", broken=("p02",)), FakeSystem("B")], alone, where / "other", FakeScoring())
        assert [r for r in table(alone) if not r[3]] == [r for r in table(own) if not r[3]]


def killed_at_random(place, where, workers, wanted) -> int:
    """Run the same command again and again, killed so many times at random moments of its work, until it ends; returns
    how often it was. How fast the machine is does not matter: a kill waits until a pair was begun."""
    log = where / "log"

    def begun() -> int:
        return len(log.read_text().splitlines()) if log.exists() else 0

    command = [sys.executable, "-m", "tests.helpers.bench_fakes", place, str(where), str(workers)]
    draw, kills = random.Random(workers), 0
    for _ in range(60):
        before = begun()
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        if kills < wanted:
            while child.poll() is None and begun() == before:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.06))
            kills += child.poll() is None
            child.kill()
            child.wait()
        elif child.wait() == 0:
            return kills
    raise AssertionError("the run never ended")


def timeless(table):
    """A leaderboard's rows without how fast the machine was."""
    return [row | {"values": {k: v for k, v in row["values"].items() if k != "speed"}} for row in table["rows"]]


def same_as_undisturbed(place, where, tmp_path, kills, workers):
    with Store(place) as killed, Store(tmp_path / "whole.sqlite") as whole:
        systems = [FakeSystem("A"), FakeSystem("B", broken=("p03",))]
        run(file_set(where, 12), systems, whole, tmp_path / "work", FakeScoring())
        assert table(killed) == table(whole)
        assert timeless(leaderboard(killed)) == timeless(leaderboard(whole))
        with killed.read() as session:
            assert not session.scalars(select(Claim)).all()
    scored = Counter((where / "log").read_text().splitlines())
    assert sum(scored.values()) <= 23 + kills * workers  # what was in work when it was killed, and no more
    assert not list((where / "work" / "scratch").iterdir())


@pytest.mark.slow
def test_ten_kills_at_random_moments_lose_and_double_nothing(place, where, tmp_path):
    wanted = 3 if "postgresql" in place else 10
    kills = killed_at_random(place, where, 1, wanted)
    assert kills == wanted
    same_as_undisturbed(place, where, tmp_path, kills, 1)


@pytest.mark.slow
def test_kills_of_a_run_with_two_processes_leave_none_and_lose_nothing(where, tmp_path):
    place = str(tmp_path / "killed.sqlite")
    kills = killed_at_random(place, where, 2, 2)
    same_as_undisturbed(place, where, tmp_path, kills, 2)


def test_a_limit_takes_from_the_categories_in_turn():
    chosen = made_set(9, ("tts", "tts", "random"))
    assert [p.id for p in first_pairs(chosen, 4)] == ["p00", "p01", "p02", "p05"]
    assert len(first_pairs(chosen, None)) == len(first_pairs(chosen, 99)) == 9


def test_what_cannot_be_run_is_said(own, where):
    chosen = file_set(where, 2)
    for systems, options, match in (
        ([], {}, "No system"),
        ([FakeSystem(), FakeSystem()], {}, "same name"),
        ([FakeSystem(), FakeSystem("B", fingerprint=sha("A"))], {}, "same fingerprint"),
        ([FakeSystem()], {"limit": 0}, "leaves no pair"),
        ([FakeSystem()], {"workers": 0}, "Workers must be"),
    ):
        with pytest.raises(BenchmarkError, match=match):
            run(chosen, systems, own, where / "work", FakeScoring(), **options)


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_rows(own, where, tmp_path):
    pytest.importorskip("ray", reason="Ray is an extra (cluster): this test is skipped without it")
    chosen = file_set(where)
    systems = [FakeSystem("A", deadly=("p02",)), FakeSystem("B", broken=("p04",))]
    found = run(chosen, systems, own, where / "work", FakeScoring(), workers=2, ray="local")
    assert (found.made, found.failed) == (12, 2)
    with Store(tmp_path / "alone.sqlite") as alone:
        run(chosen, [FakeSystem("A"), FakeSystem("B")], alone, where / "other", FakeScoring())
        assert [r for r in table(own) if not r[3]] == [
            r for r in table(alone) if (r[0], r[1]) not in (("A", "p02"), ("B", "p04"))
        ]
