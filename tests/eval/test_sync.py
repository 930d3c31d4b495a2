"""Offset, LSE-D and LSE-C on made embeddings: golden numbers, what a shift does, what padding does, what is sure."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics import sync
from eval.metrics.base import MeasureError
from eval.metrics.sync import FEWEST_PAIRS, MEASURES, distance_rows, evaluate, score, validate

ROOM = 40  # windows made beyond both ends, so that a shifted sound is never short


def made(count: int, shift: int = 0, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (count, 32) of picture and sound that agree, the sound `shift` windows late."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((count + 2 * ROOM, 32))
    video, audio = (truth + noise * rng.standard_normal(truth.shape) for _ in range(2))
    video, audio = video[ROOM:][:count], audio[ROOM - shift :][:count]
    return video.astype(np.float32), audio.astype(np.float32)


def foreign(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.random.default_rng(seed).standard_normal((2, count, 32)).astype(np.float32))


def scored(video, audio, shifts=15, padded=True):
    return score(distance_rows(video, audio, shifts=shifts, padded=padded))


def test_golden_scores(golden):
    arrays, cases = np.load(golden / "scores.npz"), json.loads((golden / "scores.json").read_text())
    assert cases
    for wanted in cases:
        case = wanted["case"]
        found = scored(arrays[f"video{case}"], arrays[f"audio{case}"], wanted["vshift"])
        assert found.offset == wanted["offset"]
        assert found.lse_d == pytest.approx(wanted["lse_d"], abs=1e-4)
        assert found.lse_c == pytest.approx(wanted["lse_c"], abs=1e-4)
        np.testing.assert_allclose(found.curve, arrays[f"mean_dist{case}"], atol=1e-4)
        np.testing.assert_allclose(found.confidence, arrays[f"frame_conf{case}"], atol=1e-4)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    shift=st.integers(-7, 7),
    before=st.integers(-3, 3),
    count=st.integers(40, 90),
    padded=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_later_sound_lowers_the_offset(shift, before, count, padded, seed):
    first = scored(*made(count, before, seed), shifts=11, padded=padded)
    second = scored(*made(count, before + shift, seed), shifts=11, padded=padded)
    assert first.offset == -before and second.offset == first.offset - shift
    assert first.sure and second.sure


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(30, 70),
    cuts=st.sets(st.integers(1, 69)),
    shifts=st.integers(1, 15),
    padded=st.booleans(),
    margin=st.integers(0, 3),
)
def test_rows_in_blocks_are_the_rows_at_once(count, cuts, shifts, padded, margin):
    video, audio = made(count)
    wanted = distance_rows(video, audio, shifts=shifts, padded=padded)
    edges = [0, *sorted(c for c in cuts if c < count), count]
    rows = []
    for first, stop in zip(edges[:-1], edges[1:], strict=True):
        low, high = max(first - shifts - margin, 0), min(stop + shifts + margin, count)
        rows.append(distance_rows(video[first:stop], audio[low:high], first, low, count, shifts, padded))
    np.testing.assert_array_equal(np.concatenate(rows), wanted)
    assert np.isnan(wanted).any() == (not padded)


def test_rows_by_hand():
    video, audio = np.zeros((3, 4), np.float32), np.full((3, 4), 2, np.float32)
    padded, bare = (distance_rows(video, audio, shifts=1, padded=p) for p in (True, False))
    np.testing.assert_allclose(padded, [[0, 4, 4], [4, 4, 4], [4, 4, 0]], atol=1e-5)
    np.testing.assert_array_equal(np.isnan(bare), [[1, 0, 0], [0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(bare[~np.isnan(bare)], padded[~np.isnan(bare)])


def test_the_same_embeddings_are_perfect():
    video, _ = made(60)
    found = evaluate(video, video)
    assert list(found) == [m.name for m in MEASURES]
    assert found["offset"] == 0 and found["certainty"] == 1
    assert found["lse_d"] == pytest.approx(0, abs=1e-4) and found["lse_c"] > 5


@pytest.mark.slow
@pytest.mark.parametrize(("shifts", "padded"), [(15, True), (7, False)])
def test_foreign_noise_names_no_offset(shifts, padded):
    """Nearly never, where windows are independent; of 30 to 60 that overlap, one clip in fifteen (100 seeds)."""
    found = [scored(*foreign(100, seed), shifts, padded) for seed in range(40)]
    assert sum(f.sure for f in found) <= 1
    assert np.mean([f.certainty for f in found]) < 0.55
    told = [evaluate(*foreign(100, seed), shifts, padded)["offset"] for seed in range(40)]
    assert told.count(None) >= 39


@pytest.mark.slow
def test_certainty_is_a_share_and_the_same_each_time():
    for seed in range(20):
        rows = distance_rows(*foreign(20 + 3 * seed, seed), shifts=7, padded=False)
        first, second = score(rows), score(rows.copy())
        assert 0 <= first.certainty <= 1 and first.certainty == second.certainty
    assert np.isnan(score(rows, certainty=False).certainty)


@pytest.mark.slow
def test_an_hour_is_scored_in_little_memory():
    rows = np.random.default_rng(0).standard_normal((90_000, 31)).astype(np.float32) + 9  # 11 MB
    tracemalloc.start()
    try:
        score(rows)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_noise_lowers_the_certainty():
    certainty = [
        np.mean([scored(*made(60, 2, seed, noise), 7, False).certainty for seed in range(5)]) for noise in (0.5, 4, 8)
    ]
    assert certainty[0] == 1 and certainty[0] > certainty[1] > certainty[2]


@pytest.mark.slow
def test_padding_favours_long_clips_and_without_it_length_does_not_matter():
    """Protocol.md, section 10: LSE-C is 4.13 at 20 frames, 5.30 at 100 and 5.57 at 500, because of the zeros."""
    lengths = 20, 100, 500
    padded, bare = (
        [np.mean([scored(*made(n, 0, seed), shifts, pad).lse_c for seed in range(8)]) for n in lengths]
        for shifts, pad in ((15, True), (7, False))
    )
    assert padded[0] < 0.85 * padded[1] < 0.85 * padded[2] and padded[1] < 0.98 * padded[2]
    assert np.ptp(bare) < 0.03 * bare[-1]


@pytest.mark.parametrize("shifts", [3, 7])
def test_unpadded_needs_eight_pairs_at_the_furthest_shift(shifts):
    fewest = shifts + FEWEST_PAIRS
    assert not np.isnan(scored(*made(fewest), shifts, False).curve).any()
    assert evaluate(*made(fewest), shifts, False)["offset"] == 0
    with pytest.raises(MeasureError, match=f"{fewest - 1} windows .* {fewest} are needed"):
        evaluate(*made(fewest - 1), shifts, False)
    curve = scored(*made(fewest - 2), shifts, False).curve  # asked all the same, the ends stay empty
    np.testing.assert_array_equal(np.isnan(curve), np.abs(np.arange(-shifts, shifts + 1)) > shifts - 2)


def test_padded_takes_a_single_window():
    video, audio = made(1)
    found = scored(video, audio, 15, True)
    assert found.curve.shape == (31,) and len(found.confidence) == 1


def test_another_length_of_picture_or_sound_is_cut():
    video, audio = made(60)
    assert evaluate(video, audio[:50]) == evaluate(video[:50], audio[:50]) == evaluate(video[:50], audio)


@pytest.mark.parametrize(
    ("video", "audio", "shifts", "said"),
    [
        (np.zeros((20, 4)), np.zeros((20, 5)), 7, r"\(20, 4\) and \(20, 5\)"),
        (np.zeros(20), np.zeros((20, 4)), 7, r"\(N, D\) each"),
        (np.zeros((20, 4)), np.zeros((20, 4)), 0, "At least one shift"),
        (np.zeros((0, 4)), np.zeros((20, 4)), 7, "Only 0 windows"),
        (np.full((20, 4), np.nan), np.zeros((20, 4)), 7, "not numbers"),
    ],
)
@pytest.mark.parametrize("padded", [True, False])
def test_what_cannot_be_scored_is_a_sentence(video, audio, shifts, said, padded):
    with pytest.raises(MeasureError, match=said):
        validate(video, audio, shifts, padded)


def test_rows_without_a_usable_shift():
    with pytest.raises(MeasureError, match="no shift has the 8 pairs"):
        score(np.full((9, 15), np.nan, np.float32))


def test_the_offset_is_named_only_when_sure():
    found = sync.SyncScore(3, 1, 1, sync.SURE, np.zeros(15), np.zeros(3))
    assert found.sure and not replace(found, certainty=sync.SURE - 0.01).sure
    assert not replace(found, offset=7).sure and not replace(found, offset=-7).sure


def test_an_offset_at_the_last_shift_is_not_named():
    """A sound nine frames late looks, within seven, as if it were seven late."""
    for late in (7, 9, -9):
        assert evaluate(*made(60, late), shifts=7, padded=False)["offset"] is None
        assert evaluate(*made(60, late), shifts=15, padded=False)["offset"] == -late
