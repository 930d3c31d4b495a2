"""Studies, ballots, raters and simulation: what is pure."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from resynced import raters, simulate
from resynced.ballots import Seen, Tokens, check_answer, outcome, session
from resynced.studies import DESIGNS, KEYS, LANGUAGES, Rule, Study, StudyError, questions, standing

KEY = b"k" * 32


def study(design="preference", **changes) -> Study:
    values = dict(
        name="trial",
        title="A trial",
        design=design,
        set_name="made",
        set_sha256="0" * 64,
        systems=("a", "b", "c", "d"),
        items=tuple(f"i{k}" for k in range(12)),
        per_rater=12,
        gold=3,
        traps=2,
        repeats=3,
        training=2,
        training_items=("t0", "t1"),
        votes_per_pair=50,
    )
    return Study(**(values | changes))


class TestStudy:
    @pytest.mark.parametrize("design", DESIGNS)
    def test_a_record_comes_back_the_same_with_the_same_hash(self, design):
        first = study(design, rule=Rule(least_score=-1.0), plan="We test whether a beats b.")
        again = Study.from_json(first.to_json())
        assert again == first and again.sha256 == first.sha256

    def test_the_hash_changes_with_plan_rule_and_words(self):
        first = study()
        others = [
            replace(first, plan="Another"),
            replace(first, rule=Rule(gold=(0.8, 0.4))),
            replace(first, language="ko"),
        ]
        assert len({first.sha256, *(s.sha256 for s in others)}) == 4

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_every_question_has_words_and_all_anchors(self, language):
        for design in DESIGNS:
            for question in questions(design, language):
                assert question.text and len(question.anchors) == len(set(question.anchors))
                assert len(question.anchors) == {"preference": 4, "mismatching": 2}.get(question.key, 6)
            assert [q.key for q in questions(design, language)] == list(KEYS[design])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"name": "../x"}, "no name"),
            ({"systems": ("a",)}, "needs 2 systems"),
            ({"systems": ("a", "a")}, "each named once"),
            ({"training_items": ("i0",)}, "shown in training"),
            ({"training_items": ()}, "no training items"),
            ({"per_rater": 500}, "showing one twice"),
            ({"language": "xx"}, "no questions in"),
            ({"design": "poll"}, "no design"),
            ({"votes_per_pair": 0}, "under its least"),
            ({"consent": " "}, "no consent text"),
        ],
    )
    def test_a_study_that_cannot_work_is_refused_with_a_sentence(self, changes, message):
        with pytest.raises(StudyError, match=message):
            study(**changes)

    def test_a_broken_record_is_refused(self):
        for text in ("", "[]", "{}", '{"name": "x"}'):
            with pytest.raises(StudyError, match="no record of a study"):
                Study.from_json(text)

    def test_a_system_is_public_from_300_votes_and_hidden_under_100(self):
        assert [standing(n) for n in (0, 99, 100, 299, 300)] == ["hidden"] * 2 + ["preliminary"] * 2 + ["public"]


class TestBallots:
    @pytest.mark.parametrize("design", DESIGNS)
    def test_pairs_systems_items_and_sides_are_balanced(self, design):
        seen, made = Seen(study(design)), study(design)
        ballots = [b for k in range(40) for b in session(made, f"r{k}", seen)]
        totals = seen.pairs.sum(1)
        assert totals.sum() == 40 * 12 and totals.max() - totals.min() <= 1
        assert seen.pairs.max() - seen.pairs.min() <= 6
        if design != "questions":
            assert np.abs(seen.lean).max() <= 1
        again = Seen(made)
        for ballot in ballots:
            if ballot.kind == "counted":
                again.add(ballot.left.item, ballot.left, ballot.right)
        assert (again.pairs == seen.pairs).all() and (again.lean == seen.lean).all()

    @pytest.mark.parametrize("design", DESIGNS)
    def test_nobody_sees_a_comparison_twice_or_a_system_against_itself(self, design):
        made = study(design)
        for rater in ("r1", "r2", "r3"):
            ballots = session(made, rater, Seen(made))
            assert Counter(b.kind for b in ballots) == {"training": 2, "counted": 12, "gold": 3, "trap": 2, "repeat": 3}
            assert [b.position for b in ballots] == list(range(len(ballots)))
            assert {b.kind for b in ballots[:2]} == {"training"}
            counted = [b for b in ballots if b.kind == "counted"]
            shown = [(b.left.item, frozenset({b.left.system, b.right.system if b.right else ""})) for b in counted]
            assert len(set(shown)) == len(shown)
            if made.two_systems:
                assert all(b.left.system != b.right.system for b in counted)

    def test_gold_is_a_clip_against_itself_and_repeats_come_later_with_sides_changed(self):
        ballots = session(study(), "r", Seen(study()))
        by_id = {b.id: b for b in ballots}
        for ballot in ballots:
            if ballot.kind in ("gold", "training"):
                assert ballot.left.system == ballot.right.system == "a"
                assert {ballot.left.variant, ballot.right.variant} == {"", "late"}
                assert getattr(ballot, ballot.expected).variant == ""
            if ballot.kind == "repeat":
                first = by_id[ballot.repeats]
                assert (ballot.left, ballot.right) == (first.right, first.left) and ballot.position > first.position

    def test_the_same_rater_gets_the_same_session_and_another_another(self):
        def shown(rater):
            return [(b.kind, b.left, b.right) for b in session(study(), rater, Seen(study()))]

        assert shown("r1") == shown("r1") != shown("r2")

    def test_answers_must_be_whole_and_in_range(self):
        good = {"left_sync": 3, "left_quality": 0, "left_experience": 5, "preference": "tie"}
        good |= {key.replace("left", "right"): value for key, value in good.items() if "left" in key}
        assert check_answer(study("side_by_side"), {**good, "more": 1}) == good
        for wrong in ({}, {**good, "left_sync": 6}, {**good, "left_sync": True}, {**good, "preference": "x"}):
            with pytest.raises(StudyError, match="every question"):
                check_answer(study("side_by_side"), wrong)
        assert check_answer(study(), {"cannot_play": True, "preference": "left"}) == {"cannot_play": True}
        with pytest.raises(StudyError, match="every question"):
            check_answer(study("mismatching"), {"mismatching": "tie"})

    def test_a_check_has_three_outcomes(self):
        ballots = {b.kind: b for b in session(study(), "r", Seen(study()))}
        right = ballots["gold"].expected
        wrong = {"left": "right", "right": "left"}[right]
        assert outcome(ballots["gold"], {"preference": right}) == "passed"
        assert (
            outcome(ballots["gold"], {"preference": wrong})
            == outcome(ballots["gold"], {"preference": "tie"})
            == "failed"
        )
        assert outcome(ballots["gold"], {"cannot_play": True}) == "not_made"
        assert outcome(ballots["counted"], {"preference": "left"}) == ""
        repeat = ballots["repeat"]
        assert outcome(repeat, {"preference": "left"}, {"preference": "right"}) == "passed"
        assert outcome(repeat, {"preference": "left"}, {"preference": "left"}) == "failed"
        assert outcome(repeat, {"preference": "left"}, None) == "not_made"
        single = {b.kind: b for b in session(study("questions"), "r", Seen(study("questions")))}
        low = {"sync": 1, "quality": 4, "experience": 3}
        assert outcome(single["gold"], low) == "passed" and outcome(single["gold"], {**low, "sync": 3}) == "failed"
        asked = int(single["trap"].expected)
        assert outcome(single["trap"], dict.fromkeys(low, asked)) == "passed"
        assert outcome(single["trap"], {**dict.fromkeys(low, asked), "sync": (asked + 1) % 6}) == "failed"
        assert outcome(single["repeat"], low, {"sync": 2, "quality": 4, "experience": 3}) == "passed"
        assert outcome(single["repeat"], low, {"sync": 5, "quality": 4, "experience": 3}) == "failed"

    def test_tokens_forged_foreign_or_old_are_refused(self):
        tokens, others = Tokens(KEY), Tokens(b"o" * 32)
        token = tokens.ballot("ballot", "rater")
        assert tokens.read_ballot(token)[:2] == ("ballot", "rater")
        for bad in ("", "x", token[:-2] + "zz", others.ballot("ballot", "rater"), tokens.video("ballot", "left")):
            with pytest.raises(StudyError, match="not one of ours"):
                tokens.read_ballot(bad)
        with pytest.raises(StudyError, match="open for too long"):
            Tokens(KEY, seconds=-1).read_ballot(token)
        assert tokens.video("b", "left") != tokens.video("b", "left")
        with pytest.raises(StudyError, match="16 bytes"):
            Tokens(b"short")


class TestRaters:
    def votes(self, **people) -> pd.DataFrame:
        """rater: (gold outcomes, answers, seconds), each answer of a counted ballot."""
        rows = []
        for rater, (outcomes, answers, seconds) in people.items():
            common = {"rater": rater, "answer_s": seconds, "playback": "passed"}
            rows += [{**common, "kind": "gold", "outcome": o, "answer": "left"} for o in outcomes]
            rows += [{**common, "kind": "counted", "outcome": "", "answer": a} for a in answers]
        return pd.DataFrame(rows)

    def test_the_careless_are_set_aside_with_a_reason_and_their_votes_are_kept(self):
        mixed = ["left", "right", "tie"] * 5
        votes = self.votes(good=(["passed"] * 4, mixed, 3.0), bad=(["failed"] * 4, ["left"] * 15, 0.2))
        found = raters.assess(votes)
        assert found.excluded == {"bad"}
        reason = found.table.set_index("rater").loc["bad", "reason"]
        assert "gold 4 of 4" in reason and "speed" in reason and "variance" in reason
        assert set(found.counted(votes)["rater"]) == {"good"} and len(votes) == 38

    def test_checks_that_could_not_be_made_exclude_nobody_and_raise_an_alarm(self):
        mixed = ["left", "right", "tie"] * 5
        votes = self.votes(**{f"r{k}": (["not_made"] * 4, mixed, np.nan) for k in range(30)})
        found = raters.assess(votes)
        assert found.excluded == set()
        assert set(found.table["gold"]) == {"not_made"} and set(found.table["speed"]) == {"not_made"}
        assert any("gold could not be made 120 of 120" in alarm for alarm in found.alarms)

    def test_an_alarm_when_more_are_excluded_than_usual(self):
        votes = self.votes(**{f"r{k}": (["failed"] * 4, ["left"] * 15, 0.2) for k in range(30)})
        assert any("100% of 30 raters are set aside" in alarm for alarm in raters.assess(votes).alarms)

    def test_tokens_are_kept_as_hashes_and_a_panels_person_comes_back_as_the_same(self):
        token = raters.new_token()
        assert len(raters.rater_id(token)) == 32 and token not in raters.rater_id(token)
        pid = {"PROLIFIC_PID": "5f1a"}
        first = raters.panel_token(KEY, "s", pid)
        assert first == raters.panel_token(KEY, "s", dict(pid)) != raters.panel_token(KEY, "t", pid)
        assert first != raters.panel_token(b"o" * 32, "s", pid) and "5f1a" not in first
        for bad in ("", "short", None, "x" * 500):
            with pytest.raises(StudyError, match="no rater's token"):
                raters.rater_id(bad)

    def test_only_what_was_asked_is_kept_of_a_description(self):
        assert raters.description({"age_group": "25-34", "hearing": ""}) == {"age_group": "25-34"}
        for bad in ({"name": "Kim"}, {"device": "x" * 500}):
            with pytest.raises(StudyError):
                raters.description(bad)


class TestSimulation:
    def test_the_population_lies_nearer_together_than_single_choices_and_sums_to_nothing(self):
        world = simulate.World.of(5)
        found = world.population()
        assert found.sum() == pytest.approx(0) and (np.diff(found) > 0).all()
        assert np.ptp(found) < simulate.SPREAD

    @pytest.mark.slow
    def test_a_small_crowd_finds_the_order_and_sets_bots_aside(self):
        found = simulate.simulate(raters=120, votes=4800, systems=5, items=30, seed=1, draws=100)
        assert found["kendall"] == pytest.approx(1.0) and found["covered"] >= 4
        caught = found["bots_set_aside"]
        assert caught["random"][0] >= caught["random"][1] - 1 and caught["lazy"][0] >= caught["lazy"][1] - 1
        assert found["honest_lost"] < 0.05

    @pytest.mark.slow
    def test_a_ring_is_flagged_where_there_is_one_and_nowhere_else(self):
        laid, world = simulate.plan(200, 8000, 6, 30), simulate.World.of(6)
        honest = simulate.answer(laid, world, 0.0, 3)
        assert raters.assess(honest.votes, honest.preferences).rings == {}
        pushed = simulate.answer(laid, world, 0.3, 3)
        rings = raters.assess(pushed.votes, pushed.preferences).rings
        assert list(rings) == ["system-4"]
        assert np.mean([pushed.kinds[r] == "colluding" for r in rings["system-4"]]) > 0.8

    @pytest.mark.slow
    def test_intervals_hold_the_truth_at_about_their_rate(self):
        found = simulate.repeat(20, raters=100, votes=4000, systems=4, items=30, draws=100)
        assert found["coverage"] > 0.86 and found["honest_lost"] < 0.05 and found["order_found"] > 0.8
