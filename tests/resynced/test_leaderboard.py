"""The leaderboard: arithmetic by hand, ranks as groups, floors and ceilings, what is never mixed, what is cached."""

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import event, select

from eval.results import VERSION
from eval.stats import bootstrap, bootstrap_ratio
from resynced import leaderboard as board
from resynced.leaderboard import changes_needed, clips, failures, find_view, flat, groups, leaderboard, views
from resynced.records import BenchmarkError
from resynced.store import CheckFact, DistanceFact, ScoreFact, Store
from tests.helpers.rows import facts, fill, made_set, sha

SET = sha("made6")
SPREAD = [0.0, 0.3, -0.2, 0.1, -0.1, 0.2, -0.3, 0.05, -0.05, 0.15, -0.15, 0.0]


def around(mean, width=1.0):
    return [mean + width * s for s in SPREAD]


def by_name(table):
    return {row["label"]: row for row in table["rows"]}


def check(store, found, tried=8):
    store.add(
        CheckFact,
        [
            {
                "key": sha(f"{found}"),
                "run": "",
                "set_sha256": SET,
                "measure_version": VERSION,
                "evaluator": "syncnet-lab",
                "evaluator_sha256": sha("evaluator"),
                "protocol": "short",
                "protocol_hash": "0123456789ab",
                "tried": tried,
                "found": found,
                "record": {},
            }
        ],
    )


def test_means_shares_failures_and_speed_are_those_of_the_rows(store):
    store.add_row(facts("p0", lse_d=6.0, offset=1, frames=50, seconds=2.0, speaker="x"))
    store.add_row(facts("p1", lse_d=8.0, offset=2, frames=100, seconds=1.0, speaker="x", identity=None))
    store.add_row(facts("p2", lse_d=10.0, offset=None, speaker="y", frames=30, seconds=None))
    store.add_row(
        facts(
            "p3",
            lse_d=None,
            lse_c=None,
            offset=None,
            reason="It broke.",
            speaker="y",
            seconds=9.0,
            identity=None,
            sharpness=None,
            movement=None,
            coverage=None,
        )
    )
    row = leaderboard(store)["rows"][0]
    values = row["values"]
    assert (row["tried"], row["scored"], row["failed"]) == (4, 3, 1)
    assert values["lse_d"]["mean"] == pytest.approx(8.0) and values["lse_d"]["n"] == 3
    assert values["in_sync"]["mean"] == 0.5 and values["in_sync"]["n"] == 2
    assert values["identity"]["mean"] == pytest.approx(0.9) and values["identity"]["n"] == 2
    assert values["speed"]["mean"] == pytest.approx(150 / 3)
    assert row["unranked"] == "Scored on 3 of 4 clips: systems are ranked from 90% on."
    assert failures(store, find_view(store)).to_dict("records") == [
        {"system": "A", "category": "random", "reason": "It broke.", "clips": 1}
    ]


def test_systems_that_differ_surely_are_ranked_and_others_share_their_ranks(store):
    fill(
        store,
        {"A": around(6.0), "B": around(6.01)[::-1], "C": around(7.0), "untouched": around(12.0), "real": around(5.0)},
    )
    table = leaderboard(store)
    rows = by_name(table)
    assert [rows[s]["rank"] for s in "ABC"] == [[1, 2], [1, 2], [3, 3]]
    assert [r["role"] for r in table["rows"]] == ["", "", "", "floor", "ceiling"]
    assert rows["untouched"]["rank"] is None and rows["untouched"]["unranked"] is None
    assert table["answer"]["text"] == "On 12 clips, A and B cannot be told apart in sync."
    assert table["changes"] == 1
    low, high = rows["C"]["values"]["lse_d"]["low"], rows["C"]["values"]["lse_d"]["high"]
    assert 6.8 < low < 7.0 < high < 7.2


def test_the_answer_names_the_first_or_the_sharper_of_those_alike(store):
    fill(store, {"A": around(6.0), "C": around(7.0)})
    assert leaderboard(store)["answer"]["text"] == "On 12 clips, A is first in sync."
    fill(store, {"B": around(6.0)}, sharpness=0.95)
    answer = leaderboard(store)["answer"]
    assert answer["text"] == "On 12 clips, A and B cannot be told apart in sync; B is sharper."
    assert answer["others"] == ["C"]


@pytest.mark.slow
def test_one_system_or_none_is_said(store):
    fill(store, {"untouched": around(12.0)})
    assert leaderboard(store)["answer"]["text"] == "No system has been run on this set yet."
    fill(store, {"A": around(6.0)})
    assert leaderboard(store)["answer"]["text"] == "On 12 clips, A is the only system."
    assert leaderboard(store)["rows"][0]["rank"] == [1, 1]


def test_where_the_evaluator_fails_its_check_nothing_is_ranked(store):
    fill(store, {"A": around(6.0), "B": around(7.0)})
    assert any("not checked" in note for note in leaderboard(store)["notes"])
    check(store, 5)
    table = leaderboard(store)
    assert table["cannot_rank"] == (
        "Cannot be ranked: on this set's real clips syncnet-lab found 5 of 8 known shifts of the sound; 6 are needed."
    )
    assert table["answer"]["text"] == table["cannot_rank"] and not any(r["rank"] for r in table["rows"])


@pytest.mark.slow
def test_a_check_that_was_passed_or_could_not_be_made(store):
    fill(store, {"A": around(6.0)})
    check(store, 6)
    assert leaderboard(store)["cannot_rank"] is None
    assert "could score none" in board.failed_check(CheckFact(tried=0, found=0, evaluator="E", protocol="lrs"))


@pytest.mark.slow
def test_evaluators_protocols_versions_and_sets_are_never_mixed(store):
    for changed in (
        {},
        {"evaluator_sha256": sha("other")},
        {"protocol_hash": "f" * 12},
        {"measure_version": "3"},
        {"set_sha256": sha("other set"), "set_name": "other"},
    ):
        fill(store, {"A": around(6.0 + len(str(changed)))}, work=sha(str(changed)), **changed)
    found = views(store)
    assert len(found) == 5 and found[0].set_name == "other"
    for view in found:
        table = leaderboard(store, view)
        assert table["n"] == 12 and len(table["rows"]) == 1
    assert find_view(store, "made").measure_version == "3" and find_view(store, id=found[2].id) == found[2]
    assert "version 3" in " ".join(leaderboard(store, find_view(store, "made"))["notes"])
    with pytest.raises(BenchmarkError, match="no scores of the set 'none'"):
        find_view(store, "none")


@pytest.mark.slow
def test_rows_that_come_later_and_rows_withdrawn_are_seen_and_nothing_is_read_twice(store):
    fill(store, {"A": around(6.0)})
    assert leaderboard(store)["rows"][0]["values"]["lse_d"]["n"] == 12
    store.add_row(facts("q", "A", lse_d=18.0))
    table = leaderboard(store)
    assert table["n"] == 13 and table["rows"][0]["values"]["lse_d"]["mean"] == pytest.approx(90.0 / 13, abs=0.01)
    read = []
    event.listen(store.engine, "before_cursor_execute", lambda c, cur, sql, *_: read.append(sql))
    assert leaderboard(store) == table
    assert not [sql for sql in read if "GROUP BY" in sql]
    with store.read() as session:
        key = session.scalar(select(ScoreFact.key).where(ScoreFact.pair == "q"))
    store.withdraw("score", key, "It was cut.")
    assert leaderboard(store)["n"] == 12
    store.withdraw("system", sha("A"), "Its authors asked.")
    assert leaderboard(store)["rows"] == []


def test_sums_that_grew_are_those_of_all_rows(store, monkeypatch):
    monkeypatch.setattr(board, "BUCKETS", 5)
    fill(store, {"A": around(6.0)[:6]})
    groups(store, find_view(store))
    fill(store, {"A": around(6.0), "B": around(7.0)})
    grown = groups(store, find_view(store))
    assert grown["rows"].sum() == 24 and grown["speaker"].nunique() <= 5
    assert grown.loc[grown.system == "A", "lse_d_s"].sum() == pytest.approx(sum(around(6.0)))


@pytest.mark.slow
def test_a_category_is_a_table_of_its_own_and_a_missing_value_never_comes_first(store):
    store.add_set(made_set())
    fill(store, {"A": around(6.0), "B": around(7.0)}, category="tts")
    fill(store, {"A": around(8.0)}, category="random", work=sha("r"), identity=None, attempt=1)
    tts = leaderboard(store, category="tts")
    assert tts["n"] == 12 and tts["footer"] == "Made for tests." and tts["version"] == "1"
    random = leaderboard(store, category="random", rank_by="identity")
    assert random["rows"][0]["rank"] is None and "no value of identity" in random["rows"][0]["unranked"]
    with pytest.raises(BenchmarkError, match="Nothing is ranked by 'sharpness'"):
        leaderboard(store, rank_by="sharpness")


def test_distances_are_of_one_encoder_and_people_stand_beside(store):
    fill(store, {"A": around(6.0), "B": around(7.0)})
    same = {
        "run": "",
        "set_sha256": SET,
        "category": "",
        "title": "Fréchet (lab encoder)",
        "crop": "faces",
        "clips": 12,
        "n_real": 90,
        "n_made": 90,
        "extrapolated": None,
        "kid": None,
    }
    for k, (system, encoder, value) in enumerate([("A", "old", 1.0), ("A", "lab", 2.0), ("B", "lab", 3.0)]):
        store.add(
            DistanceFact,
            [
                {
                    **same,
                    "key": sha(str(k)),
                    "system": system,
                    "fingerprint": sha(system),
                    "encoder": encoder,
                    "encoder_sha256": sha(encoder),
                    "frechet": value,
                }
            ],
        )
    rows = by_name(leaderboard(store, human={sha("A"): {"votes": 120, "win_rate": 0.6}}))
    assert rows["A"]["distance"]["frechet"] == 2.0 and rows["B"]["distance"]["encoder"] == "lab"
    assert rows["A"]["human"] == {"votes": 120, "win_rate": 0.6} and rows["B"]["human"] is None
    lines = flat(leaderboard(store, human={sha("A"): {"votes": 120}}))
    assert lines["frechet"].tolist() == [2.0, 3.0] and lines["rank_first"].tolist() == [1, 2]
    assert lines["human_votes"].tolist()[0] == 120


def test_two_fingerprints_of_one_name_are_two_rows(store):
    fill(store, {"A": around(6.0)})
    fill(store, {"A": around(7.0)}, fingerprint=sha("A2"), work=sha("2"))
    assert {r["label"] for r in leaderboard(store)["rows"]} == {f"A ({sha('A')[:6]})", f"A ({sha('A2')[:6]})"}


def test_single_clips_are_listed_by_pair(store):
    fill(store, {"A": around(6.0), "B": [None, *around(7.0)[1:]]})
    view = find_view(store)
    found = clips(store, view, pair="p00")
    assert found.sort_values("system")["reason"].tolist()[1] == "It broke." and len(found) == 2
    assert len(clips(store, view, fingerprints=[sha("A")], most=5)) == 5


@pytest.mark.parametrize(
    ("first", "second", "better", "needed"),
    [
        ([1, 1, 1], [2, 2, 2], "lower", 2),  # 3 ahead: one exchange leaves 1, two leave -1
        ([5, 5, 5, 5], [1, 6, 6, 6], "higher", 1),  # 4 - 1 - 1 - 1 = 1 ahead
        ([1, 1], [1, 1], "lower", 0),
        ([1, np.nan], [3, 4], "lower", 1),
        ([2, 2], [1, 1], "lower", 0),
    ],
)
def test_how_many_clips_would_have_to_change(first, second, better, needed):
    assert changes_needed(pd.Series(first), pd.Series(second), better) == needed


def test_no_shared_clip_gives_no_number_of_changes():
    assert changes_needed(pd.Series({"a": 1.0}), pd.Series({"b": 1.0}), "lower") is None


def test_the_interval_from_sums_is_that_from_values():
    rng = np.random.default_rng(3)
    speakers = np.repeat(np.arange(30), rng.integers(1, 6, 30))
    values = rng.normal(7, 1, len(speakers)) + speakers / 10
    known = bootstrap(values, groups=speakers)
    sums, counts = np.bincount(speakers, values), np.bincount(speakers)
    drawn = bootstrap_ratio(sums[None], counts[None])
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx(known, abs=0.06)
    assert np.isnan(bootstrap_ratio(np.ones((2, 1)), np.ones((2, 1)))).all()


@pytest.mark.slow
def test_a_later_run_of_few_pairs_does_not_replace_the_distance_of_the_whole_set(tmp_path):
    with Store(str(tmp_path / "store.sqlite")) as few:
        fill(few, {"A": [6.0, 6.1]})
        same = {
            "run": "",
            "set_sha256": sha("made6"),
            "system": "A",
            "fingerprint": sha("A"),
            "category": "",
            "encoder": "e",
            "encoder_sha256": "e",
            "title": "Fréchet",
            "crop": "faces",
            "n_real": 9,
            "n_made": 9,
            "extrapolated": None,
            "kid": None,
        }
        few.add(DistanceFact, [same | {"key": "a" * 64, "clips": 6, "frechet": 1.0}])
        few.add(DistanceFact, [same | {"key": "b" * 64, "clips": 1, "frechet": 9.0}])
        assert leaderboard(few)["rows"][0]["distance"]["frechet"] == 1.0
