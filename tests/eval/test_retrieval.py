"""Ranks on hand-made distances; perfect for twins, at chance for strangers, ties against."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import binom, rankdata

from eval.metrics import retrieval
from eval.metrics.base import MeasureError
from eval.metrics.retrieval import MEASURES, distances, evaluate, ranks


def test_by_hand():
    distance = np.array(
        [
            [1, 2, 3, 4, 5, 6],  # first
            [1, 2, 3, 4, 5, 6],  # second
            [9, 9, 1, 1, 9, 9],  # second: a tie counts against
            [1, 1, 1, 9, 1, 1],  # last
            [5, 5, 5, 5, 5, 5],  # last
            [7, 7, 7, 7, 7, 1],  # first
        ]
    )
    assert ranks(distance).tolist() == [1, 2, 2, 6, 6, 1]
    found = evaluate(distance)
    assert list(found) == [m.name for m in MEASURES]
    assert found == {
        "recall_at_1": pytest.approx(2 / 6),
        "recall_at_5": pytest.approx(4 / 6),
        "chance_at_1": pytest.approx(1 / 6),
        "chance_at_5": pytest.approx(5 / 6),
        "median_rank": 2,
    }


@given(st.integers(1, 30))
def test_the_identity_is_perfect(count):
    found = evaluate(1 - np.eye(count))
    assert found["recall_at_1"] == found["recall_at_5"] == found["median_rank"] == 1
    assert found["chance_at_1"] == 1 / count and found["chance_at_5"] == min(5, count) / count


@given(st.integers(2, 30))
def test_all_equally_near_is_no_find(count):
    found = evaluate(np.ones((count, count)))
    assert found["recall_at_1"] == 0 and found["median_rank"] == count
    assert found["recall_at_5"] == (1 if count <= 5 else 0)


def test_strangers_are_at_chance():
    rng, count, trials = np.random.default_rng(0), 25, 40
    found = [evaluate(rng.random((count, count))) for _ in range(trials)]
    asked = count * trials
    for at in (1, 5):
        hits = round(sum(f[f"recall_at_{at}"] for f in found) * count)
        low, high = binom.interval(0.999, asked, found[0][f"chance_at_{at}"])
        assert low <= hits <= high
    assert np.mean([f["median_rank"] for f in found]) == pytest.approx(13, abs=1.5)


@pytest.mark.slow
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_ranks_are_scipys_and_clips_have_no_order(seed, count):
    rng = np.random.default_rng(seed)
    distance = rng.integers(0, 6, (count, count))
    expected = [rankdata(row, method="max")[i] for i, row in enumerate(distance)]
    assert ranks(distance).tolist() == expected
    order = rng.permutation(count)
    assert evaluate(distance[np.ix_(order, order)]) == evaluate(distance)
    found = evaluate(distance)
    assert all(m.low <= found[m.name] <= m.high for m in MEASURES) and found["recall_at_1"] <= found["recall_at_5"]


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_distances_are_scipys_on_the_shorter(seed):
    rng = np.random.default_rng(seed)
    video = [rng.standard_normal((n, 4)).astype(np.float32) for n in rng.integers(1, 9, 3)]
    audio = [rng.standard_normal((n, 4)).astype(np.float32) for n in rng.integers(1, 9, 3)]
    found = distances(video, audio)
    for i in range(3):
        for j in range(3):
            count = min(len(video[i]), len(audio[j]))
            assert found[i, j] == pytest.approx(cdist(video[i][:count], audio[j][:count]).diagonal().mean(), rel=1e-6)


def test_twins_are_found():
    rng = np.random.default_rng(0)
    audio = [rng.standard_normal((n, 16)) for n in (5, 9, 30, 12)]
    video = [a[: len(a) - 2] + rng.normal(0, 0.1, (len(a) - 2, 16)) for a in audio]
    assert evaluate(distances(video, audio))["recall_at_1"] == 1


@pytest.mark.parametrize(
    ("distance", "said"),
    [
        (np.zeros((2, 3)), "cannot be ranked"),
        (np.zeros(4), "cannot be ranked"),
        (np.zeros((0, 0)), "cannot be ranked"),
        (np.array([[0, np.nan], [1, 0]]), "1 of 4 distances are not numbers"),
    ],
)
def test_what_cannot_be_measured_is_said(distance, said):
    with pytest.raises(MeasureError, match=said) as caught:
        retrieval.evaluate(distance)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("bad", [np.zeros((0, 4)), np.zeros((3, 5)), np.zeros(4)])
def test_clips_without_windows_are_said(bad):
    with pytest.raises(MeasureError, match="at least one window"):
        distances([np.zeros((3, 4)), bad], [np.zeros((3, 4))] * 2)
