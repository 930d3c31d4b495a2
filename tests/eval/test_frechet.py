"""Fréchet distance, extrapolation, kernel distance: golden vector, torchmetrics, Gaussians of known distance, laws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from eval.metrics import frechet
from eval.metrics.base import MeasureError
from eval.metrics.frechet import (
    Accumulator,
    Statistics,
    evaluate,
    extrapolated_distance,
    frechet_distance,
    kernel_distance,
    sample_distance,
    validate,
)

seeds = st.integers(0, 2**32 - 1)


class Identity(torch.nn.Module):
    """Lets torchmetrics measure features as they are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def sample(n: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """n rows of one Gaussian, whose axes are of unlike size and not those of the columns."""
    turn = np.linalg.qr(np.random.default_rng(7).standard_normal((width, width)))[0]
    rows = np.random.default_rng(seed).standard_normal((n, width)) / np.sqrt(np.arange(1, width + 1))
    return rows @ turn + shift


def distance(a: Statistics, b: Statistics) -> float:
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def covariance(rng: np.random.Generator, width: int, rank: int) -> np.ndarray:
    rows = rng.standard_normal((rank, width))
    return rows.T @ rows / rank


# The distance


def test_the_golden_vector(golden: Path) -> None:
    with np.load(golden / "frechet.npz") as vector:
        a, b, value = Statistics.of(vector["a"]), Statistics.of(vector["b"]), float(vector["value"])
    assert (a.n, b.n) == (300, 250)
    assert distance(a, b) == pytest.approx(value, abs=1e-3)
    assert sample_distance(a.features, b.features) == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(("n", "m", "width"), [(300, 250, 16), (40, 60, 50), (20, 30, 64), (200, 20, 64)])
def test_the_same_as_torchmetrics(n: int, m: int, width: int) -> None:
    a, b = sample(n, width, 1), sample(m, width, 2, shift=0.1)
    foreign = FrechetInceptionDistance(feature=Identity(width)).set_dtype(torch.float64)
    foreign.update(torch.from_numpy(a), real=True)
    foreign.update(torch.from_numpy(b), real=False)
    theirs = float(foreign.compute())
    assert distance(Statistics.of(a), Statistics.of(b)) == pytest.approx(theirs, abs=1e-5)
    assert sample_distance(a, b) == pytest.approx(theirs, abs=1e-5)  # below and above as many rows as columns


def test_gaussians_whose_distance_is_known() -> None:
    mean, apart = np.zeros(3), np.array([1.0, -2.0, 2.0])
    first, second = np.diag([1.0, 4.0, 9.0]), np.diag([4.0, 4.0, 0.0])
    assert frechet_distance(mean, first, apart, first) == pytest.approx(9)
    assert frechet_distance(mean, first, mean, second) == pytest.approx(1 + 0 + 9)  # differences of deviations, squared
    # In the plane the trace of the root is sqrt(tr(AB) + 2 sqrt(det(AB))), whether or not A and B commute.
    a, b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a + b) - 2 * root
    assert frechet_distance(np.zeros(2), a, np.zeros(2), b) == pytest.approx(expected)


@given(seeds, st.integers(1, 12), st.integers(1, 15), st.integers(1, 15))
@settings(max_examples=60, deadline=None)
def test_zero_for_the_same_and_symmetric(seed: int, width: int, rank: int, other: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = covariance(rng, width, rank), covariance(rng, width, other)  # often singular
    p, q = rng.standard_normal((2, width))
    assert frechet_distance(p, a, p, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(p, a, q, b) == pytest.approx(frechet_distance(q, b, p, a), abs=1e-6)
    assert frechet_distance(p, a, q, b) >= float((p - q) @ (p - q)) - 1e-6


@given(seeds, st.floats(0, 10), st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_grows_with_the_shift_by_its_square(seed: int, shift: float, more: float) -> None:
    a, b = sample(30, 6, seed), sample(40, 6, seed + 1)
    step = np.eye(6)[2] * shift
    here, there = sample_distance(a, b + step), sample_distance(a, b + step + np.eye(6)[2] * more)
    gap = float((b.mean(0) + step - a.mean(0))[2])
    assert there - here == pytest.approx((gap + more) ** 2 - gap**2, abs=1e-6)


@given(seeds, st.lists(st.integers(0, 40), max_size=5), st.floats(-1e4, 1e4))
@settings(max_examples=40, deadline=None)
def test_batches_and_order_do_not_matter(seed: int, cuts: list[int], offset: float) -> None:
    rows = sample(40, 5, seed) + offset
    whole, parts = Statistics.of(rows), Accumulator()
    for part in np.split(rows, sorted(cuts)):
        parts.add(part)
    shuffled = Statistics.of(np.random.default_rng(seed).permutation(rows))
    np.testing.assert_allclose(whole.covariance, np.cov(rows.T), atol=1e-9)
    np.testing.assert_array_equal(parts.finish().features, whole.features)
    for other in (parts.finish(), shuffled):
        np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(other.covariance, whole.covariance, atol=1e-9)
        assert distance(whole, other) == pytest.approx(0, abs=1e-6)


def test_a_large_mean_does_not_drown_the_covariance() -> None:
    rows = sample(500, 4, 3)
    far = Accumulator()
    for part in np.split(rows + 1e7, 10):
        far.add(part)
    np.testing.assert_allclose(far.finish().covariance, np.cov(rows.T), atol=1e-6)


# The number of pictures


@pytest.mark.slow
def test_the_bias_falls_with_n_and_the_extrapolation_is_nearer() -> None:
    plain, extrapolated = [], []
    for n in (100, 300, 900):
        pairs = [(sample(n, 32, 2 * k), sample(n, 32, 2 * k + 1)) for k in range(3)]
        plain.append(np.mean([sample_distance(a, b) for a, b in pairs]))
        extrapolated.append(np.mean([extrapolated_distance(a, b) for a, b in pairs]))
    assert plain[0] > 2 * plain[1] > 4 * plain[2] > 0
    assert all(abs(e) < p / 3 for e, p in zip(extrapolated, plain, strict=True))


def test_the_extrapolation_keeps_a_true_distance() -> None:
    a, b = sample(800, 16, 1), sample(600, 16, 2, shift=0.5)
    assert extrapolated_distance(a, b) == pytest.approx(16 * 0.5**2, rel=0.05)
    assert extrapolated_distance(a, b) == extrapolated_distance(a, b)
    assert extrapolated_distance(a[:39], b) is None


def test_paired_sets_share_their_chance() -> None:
    a = sample(60, 16, 1)
    b = a * 1.1
    plain = sample_distance(a, b)
    assert extrapolated_distance(a, b, paired=True) == pytest.approx(plain, rel=0.2)
    assert extrapolated_distance(a, b) < 0  # as if they were two samples
    assert extrapolated_distance(a, a, paired=True) == pytest.approx(0, abs=1e-9)


def test_many_rows_are_kept_by_chance_and_splits_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frechet, "KEPT_ROWS", 200)
    rows = np.arange(4000.0)[:, None]
    parts = Accumulator()
    for part in np.array_split(rows, 37):
        parts.add(part)
    kept, whole = parts.finish().features[:, 0], Statistics.of(rows).features[:, 0]
    np.testing.assert_array_equal(kept, whole)
    assert len(set(kept)) == 200
    counts = np.histogram(kept, 4, (0, 4000))[0]
    assert counts.min() > 30 and counts.max() < 75  # 50 expected, deviation 6
    assert parts.finish().n == 4000 and parts.finish().mean[0] == pytest.approx(1999.5)


# The kernel distance


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_the_kernel_distance_is_torchmetrics_own() -> None:
    a, b = sample(50, 8, 1), sample(50, 8, 2, shift=0.3)
    foreign = KernelInceptionDistance(feature=Identity(8), subsets=1, subset_size=50).set_dtype(torch.float64)
    foreign.update(torch.from_numpy(a), real=True)
    foreign.update(torch.from_numpy(b), real=False)
    mean, deviation = kernel_distance(a, b)
    assert mean == pytest.approx(float(foreign.compute()[0]), rel=1e-9) and deviation is None


@pytest.mark.slow
def test_the_kernel_distance_is_near_zero_within_one_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frechet, "SUBSET", 100)
    monkeypatch.setattr(frechet, "SUBSETS", 10)
    same, deviation = kernel_distance(sample(300, 16, 1), sample(400, 16, 2))
    other, _ = kernel_distance(sample(300, 16, 1), sample(400, 16, 2, shift=0.3))
    assert deviation is not None and 0 < deviation < 0.1
    assert abs(same) < 0.02 < 0.1 < other
    assert kernel_distance(sample(300, 16, 1), sample(400, 16, 2)) == (same, deviation)
    assert all(np.isfinite(kernel_distance(sample(2, 16, 1), sample(9, 16, 2))))


# Statistics and sentences


def stated(n: int = 60, seed: int = 1, **of: str) -> Statistics:
    return Statistics.of(sample(n, 8, seed), **({"encoder": "fake", "sha256": "ab" * 32, "crop": "whole"} | of))


@pytest.mark.slow
def test_evaluate_gives_every_measure() -> None:
    a, b = stated(), stated(50, 2)
    row = evaluate(a, b)
    assert {m.name for m in frechet.MEASURES} <= row.keys() and (row["n_a"], row["n_b"]) == (60, 50)
    for measure in frechet.MEASURES:
        assert measure.low <= row[measure.name] <= measure.high
    few = evaluate(stated(2), stated(2, 2))
    assert few["frechet_extrapolated"] is None and few["kid_std"] is None and few["frechet"] > 0
    titles = [m.title.format(encoder="Fréchet (lab encoder)") for m in frechet.MEASURES]
    assert len(set(titles)) == 3 and not any("FID" in title for title in titles)


def test_statistics_survive_a_file(tmp_path: Path) -> None:
    notes = ("clip.mp4 shows no face.",)
    gathered = Accumulator("fake", "ab" * 32, "whole")
    gathered.add(sample(60, 8, 1).astype(np.float32))
    before = gathered.finish(notes)
    before.save(tmp_path / "set.npz")
    after = Statistics.load(tmp_path / "set.npz", "fake", "ab" * 32, "whole")
    assert (after.n, after.encoder, after.sha256, after.crop, after.notes) == (60, "fake", "ab" * 32, "whole", notes)
    for key in ("mean", "covariance", "features"):
        np.testing.assert_array_equal(getattr(after, key), getattr(before, key))
        assert getattr(after, key).dtype == getattr(before, key).dtype
    assert [p.name for p in tmp_path.iterdir()] == ["set.npz"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"encoder": "inception"}, "are of encoder 'fake', not 'inception': delete"),
        ({"sha256": "cd" * 32}, "are of sha256 'abab.*, not 'cdcd"),
        ({"crop": "faces"}, "are of crop 'whole', not 'faces'"),
    ],
)
def test_statistics_of_something_else_are_refused(tmp_path: Path, wanted: dict[str, str], words: str) -> None:
    stated().save(tmp_path / "set.npz")
    assert Statistics.load(tmp_path / "set.npz").n == 60
    with pytest.raises(MeasureError, match=words):
        Statistics.load(tmp_path / "set.npz", **wanted)


def test_a_damaged_or_missing_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with pytest.raises(MeasureError, match="cannot be read"):
        Statistics.load(path)
    stated().save(path)
    for data in (path.read_bytes()[:3000], b"", b"nonsense"):
        path.write_bytes(data)
        with pytest.raises(MeasureError, match="cannot be read .*: delete the file"):
            Statistics.load(path)
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(MeasureError, match="cannot be read"):
        Statistics.load(path)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (stated(encoder="lab"), "differ in encoder, 'fake' and 'lab'"),
        (stated(sha256="cd"), "differ in sha256"),
        (stated(crop="faces"), "differ in crop, 'whole' and 'faces'"),
        (stated(1), "The second set has 1 picture.*two or more"),
        (Statistics.of(sample(20, 5, 1), "fake", "ab" * 32, "whole"), "have 8 and 5 values"),
    ],
)
def test_sets_that_cannot_be_compared(other: Statistics, words: str) -> None:
    with pytest.raises(MeasureError, match=words):
        evaluate(stated(), other)


def test_features_that_are_none() -> None:
    gathered = Accumulator()
    with pytest.raises(MeasureError, match="no picture in the set"):
        gathered.finish()
    gathered.add(np.empty((0, 4)))
    gathered.add(np.ones((3, 4)))
    with pytest.raises(MeasureError, match=r"\(B, 4\), not \(2, 5\)"):
        gathered.add(np.ones((2, 5)))
    with pytest.raises(MeasureError, match=r"\(B, 4\), not \(4,\)"):
        gathered.add(np.ones(4))
    with pytest.raises(MeasureError, match="pictures 3 to 4 are not all finite"):
        gathered.add(np.array([[1, 2, 3, np.nan], [0, 0, 0, 0]]))
    assert gathered.finish().n == 3
    broken = stated()
    broken.mean[0] = np.inf
    with pytest.raises(MeasureError, match="first set's features are not all finite"):
        validate(broken, stated())
    with pytest.raises(MeasureError, match="have 60 and 50 pictures: paired sets"):
        evaluate(stated(), stated(50), paired=True)
