"""Intervals against scipy and by hand; they hold the truth as often as they say, and are the same twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eval.metrics.base import MeasureError
from eval.stats import bootstrap, wilson

numbers = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20)


def test_it_is_scipys():
    values = np.random.default_rng(0).exponential(1, 30)
    for statistic in (np.mean, np.median):
        expected = stats.bootstrap(
            (values,), statistic, n_resamples=500, method="percentile", rng=np.random.default_rng(4), axis=0
        ).confidence_interval
        assert bootstrap(values, statistic=statistic, n=500, seed=4) == pytest.approx(tuple(expected))


@settings(max_examples=20, deadline=None)
@given(numbers, st.integers(0, 100))
def test_it_lies_among_the_values_and_is_the_same_twice(values, seed):
    low, high = bootstrap(values, n=100, seed=seed)
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= low <= high <= max(values) + slack
    assert bootstrap(values, n=100, seed=seed) == (low, high)


@pytest.mark.slow
def test_it_holds_the_mean_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for _ in range(100):
        low, high = bootstrap(rng.normal(3, 2, 40), n=200, seed=1)
        held += low <= 3 <= high
    assert 88 <= held <= 100  # of 100 at 95 %


def test_a_higher_level_is_wider_and_another_seed_is_another_draw():
    values = np.random.default_rng(0).normal(0, 1, 20)
    narrow, wide = bootstrap(values, n=500, level=0.5), bootstrap(values, n=500, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert bootstrap(values, n=500, seed=1) != bootstrap(values, n=500)


def test_groups_that_agree_within_are_wider():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(8), 20)
    values = np.repeat(rng.normal(0, 1, 8), 20) + rng.normal(0, 0.1, 160)
    alone, together = bootstrap(values, n=500), bootstrap(values, people, n=500)
    assert together[1] - together[0] > 2.5 * (alone[1] - alone[0])
    assert together[0] <= values.mean() <= together[1]


def test_a_group_each_is_no_grouping():
    values = np.random.default_rng(0).normal(0, 1, 15)
    assert bootstrap(values, np.arange(15), n=300) == pytest.approx(bootstrap(values, n=300))
    assert bootstrap(values, [f"s{i:02}" for i in range(15)], n=300) == pytest.approx(bootstrap(values, n=300))


def test_values_of_drawn_groups_are_pooled():
    # Two groups: both drawn from one, or one of each; a mean of means would give 5 in the middle, pooling gives 1.
    values, groups = np.array([0.0] * 9 + [10]), np.array(["a"] * 9 + ["b"])
    seen = set()
    bootstrap(values, groups, statistic=lambda v: seen.add(round(v.mean(), 9)) or v.mean(), n=50)
    assert seen == {0, 1, 10}


def test_too_few_to_tell():
    assert bootstrap([]) is None and bootstrap([1.0]) is None
    assert bootstrap([1.0, 2.0, 3.0], ["a"] * 3) is None
    assert bootstrap([2.0, 2.0]) == (2, 2)


@pytest.mark.parametrize(("hits", "n", "expected"), [(8, 10, (0.490, 0.943)), (0, 10, (0, 0.278)), (5, 5, (0.566, 1))])
def test_wilson_by_hand(hits, n, expected):
    assert wilson(hits, n) == pytest.approx(expected, abs=6e-4)


@pytest.mark.slow
@given(st.integers(1, 500), st.data())
def test_wilson_is_the_formula(n, data):
    hits = data.draw(st.integers(0, n))
    low, high = wilson(hits, n)
    z, p = stats.norm.ppf(0.975), hits / n
    middle, half = p + z * z / 2 / n, z * np.sqrt(p * (1 - p) / n + z * z / 4 / n**2)
    expected = np.array([middle - half, middle + half]) / (1 + z * z / n)
    np.testing.assert_allclose((low, high), np.clip(expected, 0, 1), atol=1e-9)
    assert 0 <= low <= p <= high <= 1


def test_wilson_of_nothing():
    assert wilson(0, 0) is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bootstrap(np.zeros((2, 2))), "not one number for each clip"),
        (lambda: bootstrap([1.0, np.nan]), "1 of 2 values are not numbers"),
        (lambda: bootstrap([1.0, 2.0], ["a"]), "groups of shape"),
        (lambda: bootstrap([1.0, 2.0], n=0), "0 draws"),
        (lambda: bootstrap([1.0, 2.0], level=95), "level of 95"),
        (lambda: wilson(3, 2), "3 hits of 2"),
        (lambda: wilson(-1, 2), "-1 hits of 2"),
        (lambda: wilson(1, 2, level=1), "level of 1"),
    ],
)
def test_what_cannot_be_told_is_said(call, said):
    with pytest.raises(MeasureError, match=said) as caught:
        call()
    assert str(caught.value).endswith(".")
