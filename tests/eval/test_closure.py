"""Closure at p, b and m: what it sees in made gaps, in real speech, and in a mouth that does not know the words."""

from pathlib import Path

import numpy as np
import pytest

from eval.closure import closures, spoken_at
from eval.metrics.base import MeasureError
from eval.metrics.closure import FEWEST, against_neighbours, evaluate, moments, shut

CLIPS = Path(__file__).parents[2] / "resynced" / "sets" / "starter" / "clips"
# Middles of p, b and m in the starter set's real clips, seconds, as the recogniser hama 1.7.0 hears them.
SAID = {
    "grid-s10": [0.69],
    "grid-s2": [0.55, 1.81],
    "grid-s20": [0.59, 1.05],
    "grid-s22": [0.79, 1.05],
    "grid-s23": [1.41],
    "grid-s3": [0.91],
    "grid-s30": [0.67],
    "grid-s31": [0.51],
    "grid-s32": [0.84],
    "grid-s33": [0.43],
    "grid-s34": [1.01],
    "grid-s5": [0.83],
}


def test_moments_are_the_middles_of_closures():
    spoken = [(" ", 0, 0.1), ("m", 0.1, 0.2), ("p", 0.2, 0.26), ("a", 0.26, 0.5), ("b", 0.5, 0.6), ("ʃ", 0.6, 0.7)]
    np.testing.assert_allclose(moments(spoken), [0.15, 0.55])  # mp is one closure
    assert len(moments([])) == 0


@pytest.mark.parametrize("fps", [25, 50])
def test_a_mouth_that_shuts_in_time_is_told_from_one_that_does_not(fps):
    rng = np.random.default_rng(0)
    at = np.arange(0.6, 9.0, 0.41)
    seconds = (np.arange(10 * fps) + 0.5) / fps
    gap = 3 + rng.normal(0, 0.3, len(seconds))
    for moment in at:
        gap[np.abs(seconds - (moment - 0.08)) < 0.05] = 0.2
    assert shut(gap, fps, at).mean() > 1.2
    assert shut(gap, fps, at + 0.2).mean() < 0.1  # a fifth of a second late
    assert abs(shut(3 + rng.normal(0, 0.3, len(seconds)), fps, at).mean()) < 0.25
    assert (shut(np.full(len(seconds), 1.0), fps, at) == 0).all()  # it does not move


def test_what_is_not_seen_does_not_count():
    gap = np.full(100, 2.0)
    gap[20:40] = np.nan
    assert np.isnan(against_neighbours(gap, 25)[20:40]).all()
    assert len(shut(gap, 25, np.array([0.05, 1.2, 2.5, 9.0]))) == 1
    with pytest.raises(MeasureError, match="not one number for each frame"):
        shut(gap[:, None], 25, np.array([1.0]))


def test_a_figure_needs_events():
    few = evaluate([np.ones(FEWEST - 1)])
    assert few["closure"] is None and few["events"] == FEWEST - 1
    clips = [np.full(5, 0.5 + 0.01 * k) for k in range(20)]
    found = evaluate([*clips, np.zeros(0)])
    assert found["clips"] == 20 and found["events"] == 100
    assert found["closure_low"] < found["closure"] < found["closure_high"]


@pytest.mark.slow
def test_real_speakers_shut_their_lips():
    found = [closures(CLIPS / f"{name}.mp4", np.array(at)) for name, at in SAID.items()]
    assert np.concatenate(found).mean() > 0.6  # 0.95
    late = [closures(CLIPS / f"{name}.mp4", np.array(at) + 0.24) for name, at in list(SAID.items())[:5]]
    assert np.concatenate(late).mean() < 0.3


def test_times_that_are_none_are_a_sentence(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(MeasureError, match="x.json holds no phoneme times"):
        spoken_at(tmp_path / "x.json")
