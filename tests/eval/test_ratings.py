"""Statistics of people's answers: made votes with a known truth, and the libraries' own answers."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.miscmodels.ordinal_model import OrderedModel

from eval import ratings
from eval.metrics.base import MeasureError


def preferences(n=3000, systems=4, ties=0.3, spread=1.5, raters=60, items=20, seed=0, left=0.0) -> pd.DataFrame:
    """Votes by Davidson's model; `left`: log odds by which the left side is favoured."""
    rng = np.random.default_rng(seed)
    worth = np.linspace(-spread / 2, spread / 2, systems)
    a = rng.integers(0, systems, n)
    b = (a + rng.integers(1, systems, n)) % systems
    apart = worth[a] - worth[b] + left
    first, second = np.exp(apart / 2), np.exp(-apart / 2)
    draw = rng.random(n) * (first + second + 2 * ties)
    answer = np.select([draw < first, draw < first + second], ["left", "right"], "tie")
    return pd.DataFrame(
        {
            "rater": rng.integers(0, raters, n).astype(str),
            "item": rng.integers(0, items, n).astype(str),
            "left": [f"s{k}" for k in a],
            "right": [f"s{k}" for k in b],
            "answer": answer,
            "order": rng.integers(0, 30, n),
        }
    )


def scores(n=2000, effects=(0.0, 0.7, 1.4), rater_sd=1.0, raters=60, seed=0) -> pd.DataFrame:
    """Scores 0 .. 5 by a cumulative logit model with raters of different severity."""
    rng = np.random.default_rng(seed)
    system, rater = rng.integers(0, len(effects), n), rng.integers(0, raters, n)
    latent = np.array(effects)[system] + rng.normal(0, rater_sd, raters)[rater] + rng.logistic(size=n)
    return pd.DataFrame(
        {
            "rater": rater.astype(str),
            "item": rng.integers(0, 12, n).astype(str),
            "system": [f"s{k}" for k in system],
            "value": np.searchsorted([-2.0, -0.8, 0.6, 1.6, 3.0], latent),
            "order": rng.integers(0, 30, n),
        }
    )


class TestPreferences:
    @pytest.mark.slow
    def test_ranking_finds_strengths_and_ties_of_the_model(self):
        found = ratings.rank(preferences(20_000), n=100)
        assert found.systems == ("s3", "s2", "s1", "s0")
        assert np.allclose(found.scores, [0.75, 0.25, -0.25, -0.75], atol=0.08)
        assert found.ties == pytest.approx(0.3, abs=0.03)
        assert (found.low < found.scores).all() and (found.scores < found.high).all()

    @pytest.mark.slow
    def test_ranks_are_groups_where_votes_are_few_and_part_where_they_are_many(self):
        few, many = (ratings.rank(preferences(n, spread=0.6), n=100) for n in (150, 20_000))
        assert few.ranks[0][1] > 1
        assert many.ranks == ((1, 1), (2, 2), (3, 3), (4, 4))

    @pytest.mark.slow
    def test_raters_who_differ_widen_the_intervals(self):
        votes = preferences(3000, spread=0.0)
        alike = ratings.rank(votes, n=200)
        fans = votes.copy()  # each rater votes for a favourite of theirs
        favourite = "s" + (fans["rater"].astype(int) % 4).astype(str)
        fans["answer"] = np.select([fans["left"] == favourite, fans["right"] == favourite], ["left", "right"], "tie")
        assert np.diag(ratings.rank(fans, n=200).covariance).mean() > 4 * np.diag(alike.covariance).mean()

    @pytest.mark.slow
    def test_a_system_that_won_everything_has_a_finite_score(self):
        votes = preferences(200)
        votes["answer"] = np.where(votes["left"] > votes["right"], "left", "right")
        assert np.isfinite(ratings.rank(votes, n=50).scores).all()

    def test_systems_that_no_votes_connect_cannot_be_ranked(self):
        votes = preferences(50, systems=2)
        other = votes.assign(left=votes["left"] + "x", right=votes["right"] + "x")
        with pytest.raises(MeasureError, match="No chain of votes"):
            ratings.rank(pd.concat([votes, other]))

    def test_win_matrix_counts_ties_as_halves(self):
        votes = pd.DataFrame(
            {
                "rater": list("abcd"),
                "item": ["i"] * 4,
                "left": ["x", "y", "x", "x"],
                "right": ["y", "x", "y", "y"],
                "answer": ["left", "left", "tie", "both_bad"],
            }
        )
        found = ratings.win_matrix(votes)
        assert found.loc["x", "y"] == found.loc["y", "x"] == 0.5
        assert ratings.answer_counts(votes).set_index("system").loc["x"].tolist() == [4, 1, 1, 1, 1]

    def test_first_place_falls_when_so_many_votes_are_turned_and_no_sooner(self):
        votes = preferences(400, systems=3)
        flip = ratings.votes_to_flip(votes)
        won = votes[(votes["left"] == flip["first"]) & (votes["answer"] == "left")]
        won = pd.concat([won, votes[(votes["right"] == flip["first"]) & (votes["answer"] == "right")]])
        second_first = won[(won["left"] == flip["second"]) | (won["right"] == flip["second"])]
        order = list(second_first.index) + [k for k in won.index if k not in set(second_first.index)]
        for turned, still in ((flip["flipped"] - 1, True), (flip["flipped"], False)):
            changed = votes.copy()
            at = order[:turned]
            changed.loc[at, "answer"] = changed.loc[at, "answer"].map({"left": "right", "right": "left"})
            strengths, _ = ratings.strengths(changed)
            assert (max(strengths, key=strengths.get) == flip["first"]) is still
        assert flip["dropped"] is None or flip["dropped"] >= flip["flipped"]

    @pytest.mark.slow
    def test_more_votes_are_asked_for_until_two_systems_part(self):
        few = ratings.rank(preferences(300, spread=0.5), n=200)
        assert few.ranks[0][1] > 1
        assert 0 < ratings.votes_to_part(few, few.systems[0], few.systems[1]) < 20_000
        many = ratings.rank(preferences(20_000), n=100)
        assert ratings.votes_to_part(many, "s3", "s0") == 0

    @pytest.mark.slow
    def test_a_favoured_side_is_found_and_a_fair_one_is_not(self):
        assert ratings.side_effect(preferences(3000)).p > 0.01
        tilted = ratings.side_effect(preferences(3000, left=0.4))
        assert tilted.p < 1e-4 and tilted.low < 0.4 < tilted.high

    def test_ties_that_grow_during_a_session_are_found(self):
        votes = preferences(3000)
        assert ratings.order_effect(votes).p > 0.01
        votes.loc[(votes["order"] > 20) & (np.arange(3000) % 3 == 0), "answer"] = "tie"
        assert ratings.order_effect(votes).p < 1e-4

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda v: v.drop(columns="item"), "no column item"),
            (lambda v: v.iloc[:0], "no votes"),
            (lambda v: v.assign(answer="better"), "'better' is none of"),
            (lambda v: v.assign(right=v["left"]), "compared with itself"),
            (lambda v: v.assign(rater=None), "empty fields"),
        ],
    )
    def test_votes_that_cannot_be_are_refused_with_a_sentence(self, change, message):
        with pytest.raises(MeasureError, match=message):
            ratings.rank(change(preferences(50)))


class TestScales:
    def test_mean_opinion_scores_have_their_means_and_wider_intervals_than_single_votes(self):
        votes = scores()
        found = ratings.mos(votes).set_index("system")
        plain = votes.groupby("system")["value"]
        assert np.allclose(found["mean"], plain.mean().reindex(found.index))
        assert ((found["high"] - found["low"]) / 2 > 1.96 * plain.sem().reindex(found.index)).all()

    @pytest.mark.slow
    def test_ordinal_model_finds_effects_and_severity(self):
        found = ratings.ordinal(scores(6000))
        assert np.allclose(found.table["effect"], [0, 0.7, 1.4], atol=0.25)
        assert found.rater_sd == pytest.approx(1.0, abs=0.25)
        assert np.allclose(found.thresholds[[0, -1]], [-2, 3], atol=0.4)

    @pytest.mark.slow
    def test_without_rater_effects_it_is_statsmodels_ordered_model(self):
        votes = scores(2500, rater_sd=0.0)
        found = ratings.ordinal(votes)
        dummies = pd.get_dummies(votes["system"], dtype=float).iloc[:, 1:]
        other = OrderedModel(votes["value"], dummies, distr="logit").fit(method="bfgs", disp=False)
        assert found.rater_sd < 0.25
        assert np.allclose(found.table["effect"][1:], other.params[:2], atol=0.03)
        assert other.llf - 0.01 < found.log_likelihood < other.llf + 3  # it holds the other as a special case

    def test_a_rater_who_answers_at_random_is_screened_out_and_the_careful_are_not(self):
        rng = np.random.default_rng(0)
        clips = pd.MultiIndex.from_product([range(10), ["a", "b", "c"]]).to_frame(index=False, name=["item", "system"])
        quality = clips["system"].map({"a": 1.0, "b": 3.0, "c": 4.0}) + rng.normal(0, 0.3, len(clips))
        people = [
            clips.assign(rater=f"r{k}", value=np.clip(np.round(quality + rng.normal(0, 0.4, len(clips))), 0, 5))
            for k in range(20)
        ]
        votes = pd.concat([*people, clips.assign(rater="bot", value=rng.integers(0, 6, len(clips)))])
        votes["item"] = votes["item"].astype(str)
        assert set(ratings.screen(votes)) == {"bot"}
        assert set(ratings.screen(votes, "p910")) == {"bot"}
        with pytest.raises(MeasureError, match="no screening"):
            ratings.screen(votes, "taste")

    def test_agreement_is_one_where_all_agree_and_about_none_by_chance(self):
        votes = scores()
        same = votes.assign(value=votes.groupby(["item", "system"])["value"].transform("first"))
        assert ratings.agreement(same, n=50)[0] == pytest.approx(1.0)
        rng = np.random.default_rng(99)
        alpha, (low, high) = ratings.agreement(votes.assign(value=rng.integers(0, 6, len(votes))), n=100)
        assert abs(alpha) < 0.05 and low < alpha < high

    def test_drift_of_scores_is_found(self):
        votes = scores()
        assert ratings.order_effect(votes).p > 0.01
        drifting = votes.assign(value=np.clip(votes["value"] - (votes["order"] > 20), 0, 5))
        assert ratings.order_effect(drifting).size < -0.5

    def test_a_score_off_the_scale_is_refused(self):
        with pytest.raises(MeasureError, match="score 6"):
            ratings.mos(scores(20).assign(value=6))


def test_matched_share_of_a_blind_system_holds_one_half():
    rng = np.random.default_rng(1)
    system = rng.integers(0, 2, 1200)
    votes = pd.DataFrame(
        {
            "rater": rng.integers(0, 60, 1200).astype(str),
            "item": rng.integers(0, 20, 1200).astype(str),
            "system": np.where(system, "good", "blind"),
            "correct": rng.random(1200) < np.where(system, 0.74, 0.5),
        }
    )
    found = ratings.matched_share(votes).set_index("system")
    assert found.loc["blind", "low"] < 0.5 < found.loc["blind", "high"] and found.loc["blind", "p"] > 0.01
    assert found.loc["good", "low"] > 0.6 and found.loc["good", "p"] < 1e-6


@pytest.mark.slow
def test_a_measure_that_follows_people_correlates_and_noise_does_not():
    rng = np.random.default_rng(0)
    people = pd.DataFrame([{"item": f"i{i}", "system": f"s{s}"} for i in range(20) for s in range(8)])
    people["value"] = people["system"].str[1].astype(int) + rng.normal(0, 1, len(people))
    measures = people[["item", "system"]].assign(
        lse_d=-people["value"] + rng.normal(0, 1, len(people)), noise=rng.normal(size=len(people))
    )
    measures.loc[0, "lse_d"] = np.nan
    found = ratings.correlate(people, measures, n=200).set_index(["measure", "level", "coefficient"])
    clip = found.loc[("lse_d", "clip", "spearman")]
    assert clip["high"] < -0.7 and clip["n"] == 159
    assert found.loc[("lse_d", "system", "kendall"), "value"] < -0.8
    noise = found.loc[("noise", "clip", "spearman")]
    assert noise["low"] < 0 < noise["high"]
    with pytest.raises(MeasureError, match="share no clip"):
        ratings.correlate(people, measures.assign(item="other"))


def test_crema_d_layout_is_read_and_agreement_computed(tmp_path):
    """A made table in the layout of CREMA-D's finishedResponses.csv."""
    head = ",localid,pos,ans,ttr,queryType,numTries,clipNum,questNum,subType,clipName,sessionNums,respEmo,respLevel"
    rows = [f"{head},dispEmo,dispVal,dispLevel"]
    rng = np.random.default_rng(0)
    for k in range(600):
        clip, session = k % 60, k // 60
        emotion = "ADFHNS"[clip % 6] if rng.random() < 0.7 else "ADFHNS"[rng.integers(6)]
        rows.append(
            f"{k},x{k},1,{emotion}_80,1500,{1 + clip % 3},0,{clip},1,4,10{clip:02d}_DFA_ANG_XX,{session},{emotion},"
            f"{rng.integers(101)},A,80,X"
        )
    path = tmp_path / "finishedResponses.csv"
    path.write_text("\n".join(rows))
    votes = ratings.read_crema_d(path)
    assert len(votes) == 600 and set(votes["channel"]) == {"voice", "face", "both"}
    alpha, interval = ratings.agreement(votes.assign(value=votes["emotion"]), "nominal", n=50)
    assert 0.35 < interval[0] < alpha < interval[1] < 0.75
    path.write_text("a,b\n1,2\n")
    with pytest.raises(MeasureError, match="not laid out as CREMA-D"):
        ratings.read_crema_d(path)
