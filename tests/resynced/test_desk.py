"""The desk of studies on a real SQLite and a real PostgreSQL: rules, crowds, and a server that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pandas as pd
import pytest

from resynced import raters
from resynced.ballots_tables import Database
from resynced.desk import Served, StudyDesk, playback, secret_key
from resynced.store import Store
from resynced.studies import DESIGNS, SCALES, Study, StudyError
from resynced.study_export import methods, read_hemvip2, study_of_hemvip2, write_zip
from resynced.study_results import compute

KEY = b"k" * 32
PLAYED = {"answer_s": 2.5, "left_played_s": 4.0, "left_length_s": 4.0, "right_played_s": 4.0, "right_length_s": 4.0}
NUMBERS = count()


def study(design="preference", **changes) -> Study:
    values = dict(
        name=f"trial-{next(NUMBERS)}",
        title="A trial",
        design=design,
        set_name="made",
        set_sha256="0" * 64,
        systems=("a", "b", "c"),
        items=tuple(f"i{k}" for k in range(8)),
        per_rater=6,
        gold=1,
        traps=1,
        repeats=1,
        training=1,
        training_items=("t0",),
        votes_per_pair=60,
    )
    return Study(**(values | changes))


@pytest.fixture
def desk(store):
    return StudyDesk(Database(store), KEY, least_seconds=0)


def opened(desk: StudyDesk, made: Study) -> str:
    desk.create(made)
    desk.open(made.name)
    return made.name


def reply(served: Served, made: Study) -> dict:
    """An attentive rater who follows instructions and says so little that any design takes it."""
    said = {}
    for question in made.questions:
        if question.key in SCALES:
            for side in ("left_", "right_") if made.two_systems else ("",):
                said[side + question.key] = int(served.instruction) if served.instruction.isdigit() else 2
        else:
            said[question.key] = served.instruction or "left"
    return said


def answer_all(desk: StudyDesk, token: str, made: Study) -> int:
    done = 0
    while served := desk.next_ballot(token):
        desk.submit(served.token, reply(served, made), PLAYED)
        done += 1
    return done


def test_a_rater_goes_from_consent_to_code_and_every_answer_is_kept(desk):
    made = study()
    name = opened(desk, made)
    with pytest.raises(StudyError, match="agree"):
        desk.join(name, consent=False)
    token = desk.join(name, consent=True)
    desk.tell(token, "description", {"age_group": "25-34"})
    with pytest.raises(StudyError, match="videos left"):
        desk.finished(token)
    first = desk.next_ballot(token)
    assert first.training and (first.number, first.of) == (1, 1)
    saved = desk.submit(first.token, {"preference": "left"}, PLAYED)
    assert saved.explanation in ("left", "right") and not saved.finished
    second = desk.next_ballot(token)
    assert not second.training and (second.number, second.of) == (1, 9)
    assert answer_all(desk, token, made) == 9
    assert desk.next_ballot(token) is None
    assert desk.finished(token) == raters.completion_code(KEY, name, raters.rater_id(token))
    tables = desk.tables(name)
    assert len(tables["votes"]) == 10 and tables["votes"]["ballot"].is_unique
    assert set(tables["facts"]["fact"]) == {"consent", "description"}
    assert token not in tables["raters"].to_json() and json.loads(tables["votes"]["timings"][0]) == PLAYED


def test_one_vote_a_ballot_and_one_correction_of_the_last(desk):
    name = opened(desk, study())
    token = desk.join(name, True)
    desk.submit(desk.next_ballot(token).token, {"preference": "left"})
    assert desk.previous_ballot(token) is None  # training was explained: there is nothing to correct
    served = desk.next_ballot(token)
    desk.submit(served.token, {"preference": "left"})
    with pytest.raises(StudyError, match="answered already"):
        desk.submit(served.token, {"preference": "right"})
    back = desk.previous_ballot(token)
    desk.submit(back.token, {"preference": "right"}, again=True)
    assert desk.previous_ballot(token) is None
    for again in (False, True):
        with pytest.raises(StudyError, match="answered already|once"):
            desk.submit(back.token, {"preference": "left"}, again=again)
    votes = desk.tables(name)["votes"]
    assert len(votes) == 3 and json.loads(votes["answer"].iloc[-1]) == {"preference": "right"}


def test_forged_foreign_hasty_and_late_answers_are_refused(desk):
    name = opened(desk, study())
    one, two = desk.join(name, True), desk.join(name, True)
    served = desk.next_ballot(one)
    with pytest.raises(StudyError, match="not one of ours"):
        desk.submit(served.token[:-3] + "abc", {"preference": "left"})
    foreign = StudyDesk(desk.database, b"o" * 32, 0).next_ballot(two)
    with pytest.raises(StudyError, match="not one of ours"):
        desk.submit(foreign.token, {"preference": "left"})
    with pytest.raises(StudyError, match="watch to the end"):
        StudyDesk(desk.database, KEY, least_seconds=5).submit(served.token, {"preference": "left"})
    desk.close(name)
    for call in (lambda: desk.submit(served.token, {"preference": "left"}), lambda: desk.next_ballot(one)):
        with pytest.raises(StudyError, match="closed"):
            call()
    with pytest.raises(StudyError, match="closed"):
        desk.join(name, True)
    desk.open(name)
    assert desk.next_ballot(one).videos.keys() == {"left", "right"}  # back at the same place
    assert desk.tables(name)["votes"].empty


def test_nothing_served_names_a_system_or_a_check(desk):
    made = study(systems=("wav2lip-secret", "rival-secret", "real-secret"))
    name = opened(desk, made)
    token = desk.join(name, True)
    while served := desk.next_ballot(token):
        shown = json.dumps([served.token, served.videos, [q.text for q in served.questions], served.instruction])
        assert "secret" not in shown and "gold" not in shown and "late" not in shown
        seen = {side: desk.video(video) for side, video in served.videos.items()}
        assert seen["left"] != seen["right"]
        desk.submit(served.token, reply(served, made), PLAYED)
        last = served
    assert desk.video(last.videos["left"])  # may still be corrected
    with pytest.raises(StudyError, match="not one of ours"):
        desk.video("left.mp4")


def test_a_video_is_gone_once_the_next_ballot_is_answered(desk):
    name = opened(desk, study())
    token = desk.join(name, True)
    first = desk.next_ballot(token)
    desk.submit(first.token, {"preference": "left"})
    with pytest.raises(StudyError, match="answered already"):
        desk.video(first.videos["left"])


def test_a_panels_rater_comes_back_to_the_same_session(desk):
    name = opened(desk, study())
    first = desk.join(name, True, {"PROLIFIC_PID": "5f1a2b"})
    desk.submit(desk.next_ballot(first).token, {"preference": "left"})
    assert desk.join(name, True, {"PROLIFIC_PID": "5f1a2b"}) == first
    assert desk.next_ballot(first).number == 1 and len(desk.tables(name)["raters"]) == 1
    assert "5f1a2b" not in json.dumps({k: t.to_json() for k, t in desk.tables(name).items()})


def test_who_withdraws_is_deleted_and_cannot_go_on(desk):
    name = opened(desk, study())
    stays, goes = desk.join(name, True), desk.join(name, True)
    served = desk.next_ballot(goes)
    for token in (stays, goes):
        desk.submit(desk.next_ballot(token).token, {"preference": "left"})
    assert desk.withdraw(goes) == 1
    for call in (lambda: desk.next_ballot(goes), lambda: desk.submit(served.token, {"preference": "left"})):
        with pytest.raises(StudyError, match="withdrawn"):
            call()
    tables = desk.tables(name)
    assert list(tables["votes"]["rater"]) == [raters.rater_id(stays)]
    assert "consent" not in set(tables["facts"].loc[tables["facts"]["rater"] == raters.rater_id(goes), "fact"])


def test_a_study_cannot_be_made_twice_and_ends_when_full(desk):
    made = study(votes_per_pair=2)
    name = opened(desk, made)
    with pytest.raises(StudyError, match="already"):
        desk.create(made)
    with pytest.raises(StudyError, match="no study"):
        desk.open("nothing")
    desk.join(name, True)
    with pytest.raises(StudyError, match="all the answers it needs"):
        desk.join(name, True)
    row = next(r for r in desk.studies() if r["name"] == name)
    assert row["open"] and row["raters"] == 1 and row["sha256"] == made.sha256


def test_playback_has_three_outcomes():
    sides = ("left", "right")
    assert playback(PLAYED, sides) == "passed"
    assert playback({}, sides) == "not_made"
    for change in ({"left_played_s": 1.0}, {"right_played_s": 9.0}, {"muted": True}, {"rate": 2.0}):
        assert playback({**PLAYED, **change}, sides) == "failed"


def test_an_answer_from_a_narrow_window_is_asked_for_again(desk):
    made = study(least_width_px=800)
    token = desk.join(opened(desk, made), True)
    served = desk.next_ballot(token)
    with pytest.raises(StudyError, match="800 pixels wide"):
        desk.submit(served.token, reply(served, made), {**PLAYED, "width": 375})
    desk.submit(served.token, reply(served, made), {**PLAYED, "width": 1280})
    with pytest.raises(StudyError, match="0 to 3840"):
        study(least_width_px=5000)


@pytest.mark.slow
def test_a_crowd_at_once_loses_and_doubles_nothing(desk):
    made = study(per_rater=3, votes_per_pair=1000)
    name = opened(desk, made)

    def rate(_: int) -> int:
        token, done = desk.join(name, True), 0
        while served := desk.next_ballot(token):
            with ThreadPoolExecutor(2) as both:  # an impatient rater: twice at the same moment
                sent = [both.submit(desk.submit, served.token, reply(served, made), PLAYED) for _ in range(2)]
            assert sum(s.exception() is None for s in sent) == 1
            assert all(isinstance(s.exception(), StudyError | type(None)) for s in sent)
            done += 1
        return done

    with ThreadPoolExecutor(16) as crowd:
        done = sum(crowd.map(rate, range(24)))
    tables = desk.tables(name)
    assert done == 24 * 7 == len(tables["votes"]) and tables["votes"]["ballot"].is_unique
    counted = tables["ballots"][tables["ballots"]["kind"] == "counted"]
    pairs = counted.apply(lambda b: " ".join(sorted((b["left_system"], b["right_system"]))), axis=1).value_counts()
    assert pairs.max() - pairs.min() <= 1


SERVER = """
import sys
from resynced.ballots_tables import Database
from resynced.desk import StudyDesk
from resynced.store import Store
from concurrent.futures import ThreadPoolExecutor
desk = StudyDesk(Database(Store(sys.argv[1])), b"k" * 32, 0)
def rate(_):
    token = desk.join(sys.argv[2], True)
    while served := desk.next_ballot(token):
        said = {"preference": served.instruction or "left"}
        desk.submit(served.token, said)
        print(desk._tokens.read_ballot(served.token)[0], flush=True)
with ThreadPoolExecutor(8) as crowd:
    list(crowd.map(rate, range(1000)))
"""


@pytest.mark.slow
def test_no_acknowledged_vote_is_lost_when_the_server_is_killed(desk, place):
    name = opened(desk, study(votes_per_pair=100_000))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SERVER, place, name]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    acknowledged = [server.stdout.readline().strip() for _ in range(60)]
    server.send_signal(signal.SIGKILL)
    acknowledged += [line.strip() for line in server.stdout if line.endswith("\n")]
    server.wait()
    time.sleep(0.2)  # PostgreSQL notices that its client is gone
    kept = desk.tables(name)["votes"]["ballot"]
    assert kept.is_unique and {a for a in acknowledged if len(a) == 32} <= set(kept)
    token = desk.join(name, True)  # and the desk goes on
    assert desk.submit(desk.next_ballot(token).token, {"preference": "left"}).number == 1


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_results_and_export_are_whole_for_every_design(tmp_path, design):
    store = Store(tmp_path / "s.db")
    desk, made = StudyDesk(Database(store), KEY, 0), study(design)
    name = opened(desk, made)
    for _ in range(12):
        answer_all(desk, desk.join(name, True), made)
    facts = desk.tables(name)
    measures = pd.DataFrame([{"item": i, "system": s, "lse_d": len(i + s)} for i in made.items for s in made.systems])
    results = compute(made, facts, measures, draws=30)
    assert results.facts["answers"] == 12 * 10 and set(results.quality.table["trap"]) == {"passed"}
    expected = {
        "preference": {"ranking", "wins"},
        "questions": {"mos_sync"},
        "side_by_side": {"ranking", "mos_sync"},
        "mismatching": {"matched"},
    }
    assert expected[design] <= set(results.tables) or results.quality.excluded
    out = write_zip(results, facts, tmp_path / "study.zip")
    with zipfile.ZipFile(out) as archive:
        files = {Path(n).name: archive.read(n).decode() for n in archive.namelist()}
    assert {"study.json", "ballots.csv", "answers.csv", "raters.csv", "results.json", "methods.md"} <= set(files)
    assert Study.from_json(files["study.json"]) == made and len(files["answers.csv"].splitlines()) == 121
    json.loads(files["results.json"])
    assert made.sha256 in methods(results) and "12 raters" in files["methods.md"]
    if design != "questions":
        path = tmp_path / "hemvip2.csv"
        path.write_text(files["hemvip2.csv"])
        assert len(read_hemvip2(path)) == 72
    store.close()


def test_hemvip2_tables_of_both_kinds_become_studies(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("clip_name, system_1, system_2,\nclip_1, SA, SB\nclip_2, SC, NA\n")
    made = study_of_hemvip2(path, "genea", "GENEA", "genea", "0" * 64, training=0, per_rater=4)
    assert (
        made.design == "preference" and made.systems == ("NA", "SA", "SB", "SC") and made.items == ("clip_1", "clip_2")
    )
    path.write_text("clip_name, system, mismatch_type, mismatch_data\nclip_1, SA, speech, clip_2\n")
    again = study_of_hemvip2(path, "m", "M", "g", "0" * 64, training=0, per_rater=1, gold=1, repeats=0)
    assert again.design == "mismatching"
    for text, message in (("a,b\n1,2\n", "no table of HEMVIP2"), ("", "cannot be read")):
        path.write_text(text)
        with pytest.raises(StudyError, match=message):
            read_hemvip2(path)


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path):
    key = secret_key(tmp_path / "keys" / "ballots")
    assert len(key) == 32 and secret_key(tmp_path / "keys" / "ballots") == key
    assert (tmp_path / "keys" / "ballots").stat().st_mode & 0o777 == 0o600
    (tmp_path / "keys" / "ballots").write_bytes(b"short")
    with pytest.raises(StudyError, match="no key of ours"):
        secret_key(tmp_path / "keys" / "ballots")
