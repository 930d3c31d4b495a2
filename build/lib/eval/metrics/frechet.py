"""How far two sets of pictures lie apart by the features of a network: Fréchet distance, extrapolated, and kernel MMD.

Which network is not decided here (encoders.py); only with the published Inception may the number be called FID.
Sources: Heusel et al., arXiv 1706.08500 (the distance; protocol.md section 6); Chong and Forsyth, arXiv 1911.07023
(its bias falls as 1/n, so it is extrapolated to n = infinity); Binkowski et al., arXiv 1801.01401 (KID, unbiased).
Two samples of one distribution lie well above 0 apart, the less the larger n is: compare at equal n, print n beside it.
"""

from __future__ import annotations

import secrets
import zipfile
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path

import numpy as np

from .base import Measure, MeasureError

KEPT_ROWS = 10_000  # rows of features kept of a set, for the extrapolation and the kernel distance
SIZES = 8  # subsample sizes of the extrapolation, evenly from n / 2 to n
LEAST_ROWS = 40  # for the extrapolation, in the smaller set
SUBSET, SUBSETS = 1000, 100  # rows of a subset of the kernel distance and how many there are, as published
SEED = 0

MEASURES = (
    Measure("frechet", "{encoder}", "", 0, inf, "lower", "arXiv 1706.08500; protocol.md section 6"),
    Measure("frechet_extrapolated", "{encoder}, n to infinity", "", -inf, inf, "lower", "arXiv 1911.07023"),
    Measure("kid", "Kernel distance (as KID) by the features of {encoder}", "", -inf, inf, "lower", "arXiv 1801.01401"),
)


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is kept of a set of pictures, however many they are.

    n           pictures seen
    mean        (D,) float64, of the features
    covariance  (D, D) float64, with n - 1 (zeros where n is 1)
    features    (min(n, 10,000), D) float32: all rows, or a random choice of them (`Accumulator`)
    encoder, sha256  name of the network and sum of its weights
    crop        what of each frame the network saw, in words (encoders.VARIANTS)
    notes       sentences worth a place in a report
    """

    n: int
    mean: np.ndarray
    covariance: np.ndarray
    features: np.ndarray
    encoder: str = ""
    sha256: str = ""
    crop: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, features: np.ndarray, encoder: str = "", sha256: str = "", crop: str = "") -> Statistics:
        """Of features (n, D) that are all at hand. Raises MeasureError as `Accumulator` does."""
        gathered = Accumulator(encoder, sha256, crop)
        gathered.add(features)
        return gathered.finish()

    def save(self, path: Path) -> None:
        """Write an npz that `load` reads; after an error nothing is left. Raises OSError."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with temporary.open("wb") as file:
                stored = {f.name: getattr(self, f.name) for f in fields(self)}
                np.savez(file, **(stored | {"notes": np.array(self.notes, str)}))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, encoder: str = "", sha256: str = "", crop: str = "") -> Statistics:
        """Read what `save` wrote; `encoder`, `sha256`, `crop`: what it must be of ("": anything).

        Raises MeasureError where the file is damaged, or of another network or crop.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                found = {f.name: stored[f.name] for f in fields(cls)}
            words = {key: str(found[key]) for key in ("encoder", "sha256", "crop")}
            loaded = cls(**(found | words | {"n": int(found["n"]), "notes": tuple(map(str, found["notes"]))}))
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise MeasureError(f"The statistics {path} cannot be read ({error}): delete the file.") from error
        for what, wanted in (("encoder", encoder), ("sha256", sha256), ("crop", crop)):
            if wanted and words[what] != wanted:
                raise MeasureError(f"The statistics {path} are of {what} {words[what]!r}, not {wanted!r}: delete them.")
        return loaded


class Accumulator:
    """Takes features a batch at a time; neither the pictures nor all rows are held.

    Mean and covariance are merged batch by batch around their means (Chan, Golub and LeVeque, 1983), in float64. Rows
    are kept by reservoir sampling with a fixed seed: of the first i rows each is kept with probability 10,000 / i. How
    rows are split into batches changes nothing but rounding.
    """

    def __init__(self, encoder: str = "", sha256: str = "", crop: str = "") -> None:
        self.n = 0
        self._of, self._rng = (encoder, sha256, crop), np.random.default_rng(SEED)
        self._mean = self._scatter = self._kept = np.empty(0)

    def add(self, features: np.ndarray) -> None:
        """Features (B, D), of any float type; B may be 0. Raises MeasureError for another D or values not finite."""
        if features.ndim != 2 or self.n and features.shape[1] != len(self._mean):
            width = len(self._mean) if self.n else "D"
            raise MeasureError(f"Features come as an array (B, {width}), not {features.shape}.")
        if not np.isfinite(features).all():
            raise MeasureError(f"Features of pictures {self.n} to {self.n + len(features) - 1} are not all finite.")
        count, width = features.shape
        if not count:
            return
        if not self.n:
            self._mean, self._scatter = np.zeros(width), np.zeros((width, width))
            self._kept = np.empty((KEPT_ROWS, width), np.float32)
        rows = np.asarray(features, np.float64)
        mean = rows.mean(0)
        away, step, total = rows - mean, mean - self._mean, self.n + count
        self._scatter += away.T @ away + np.outer(step, step) * (self.n * count / total)
        self._mean = self._mean + step * (count / total)
        arrival = np.arange(self.n, total)
        place = (self._rng.random(count) * (arrival + 1)).astype(np.int64)
        place = np.where(arrival < KEPT_ROWS, arrival, place)
        for row in np.flatnonzero(place < KEPT_ROWS):
            self._kept[place[row]] = features[row]
        self.n = total

    def finish(self, notes: tuple[str, ...] = ()) -> Statistics:
        """The statistics so far. Raises MeasureError where nothing was added."""
        if not self.n:
            raise MeasureError("There is no picture in the set: nothing can be said of its features.")
        covariance = self._scatter / max(self.n - 1, 1)
        return Statistics(self.n, self._mean, covariance, self._kept[: self.n].copy(), *self._of, notes)


def frechet_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), >= 0, of two Gaussians.

    mean_*, cov_*  (D,) and (D, D) float64, symmetric and not negative; they may be singular
    The trace of the root is taken from the eigenvalues of the symmetric S1^(1/2) S2 S1^(1/2), which are those of S1 S2
    (torchmetrics takes them from S1 S2 itself): no complex numbers, and at D = 2048 seconds, not minutes.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    step = mean_a - mean_b
    return max(float(step @ step + np.trace(cov_a) + np.trace(cov_b) - 2 * shared), 0.0)


def sample_distance(a: np.ndarray, b: np.ndarray) -> float:
    """`frechet_distance` of the Gaussians fitted to two samples, rows (n, D) and (m, D), n and m >= 2.

    Where there are fewer rows than columns the trace of the root is the sum of the singular values of the (n, m)
    matrix A B', A and B centred, over sqrt((n - 1)(m - 1)): the same number, faster.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean_a, mean_b = a.mean(0), b.mean(0)
    if min(len(a), len(b)) > a.shape[1]:
        return frechet_distance(mean_a, np.cov(a.T, ddof=1), mean_b, np.cov(b.T, ddof=1))
    a, b, step = a - mean_a, b - mean_b, mean_a - mean_b
    left, right = len(a) - 1, len(b) - 1
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum() / np.sqrt(left * right)
    return max(float(step @ step + (a**2).sum() / left + (b**2).sum() / right - 2 * shared), 0.0)


def extrapolated_distance(a: np.ndarray, b: np.ndarray, paired: bool = False, seed: int = SEED) -> float | None:
    """The Fréchet distance that infinitely many pictures would give, by arXiv 1911.07023: may be a little below 0.

    a, b     rows (n, D), (m, D); both are subsampled to the same 8 sizes, from half of the smaller set to all of it
             (the paper starts at a tenth), and a line in 1/size is fitted: its value at 0
    paired   row i of b was made from what row i of a shows: take the same rows of both. Else the shared chance of such
             sets counts as bias, and the result is too low: -0.067 for 48 faces and the same blurred, truly 0.008
    returns  None below 40 rows
    Two samples of one Gaussian: D = 64: n = 100 from 0.97 to -0.03 +- 0.10, n = 1000 from 0.094 to -0.001 +- 0.007;
    but D = 256 at n = 300 from 1.22 only to 0.14: with n near D or below it the law is not 1/n.
    """
    n = min(len(a), len(b))
    if n < LEAST_ROWS:
        return None
    rng = np.random.default_rng(seed)
    sizes = np.linspace(n / 2, n, SIZES).round().astype(int)
    distances = []
    for size in sizes:
        left = rng.choice(len(a), size, replace=False)
        right = left if paired else rng.choice(len(b), size, replace=False)
        distances.append(sample_distance(a[left], b[right]))
    return float(np.polyfit(1 / sizes, distances, 1)[1])


def kernel_distance(a: np.ndarray, b: np.ndarray, seed: int = SEED) -> tuple[float, float | None]:
    """KID's unbiased squared MMD with the kernel (x y / D + 1)^3, by torchmetrics: mean and deviation over subsets.

    a, b  rows (n, D), (m, D), n and m >= 2. The mean of two samples of one distribution is 0, so that half are below
    A subset takes min(n, m, 1000) rows of each without repeats, by the seed; there are 100. So up to 1000 rows the
    smaller set is whole in each, and the deviation tells too little; where both are whole there is one subset, and
    the deviation is None.
    """
    import torch
    from torchmetrics.image.kid import poly_mmd

    size = min(len(a), len(b), SUBSET)
    whole = size == len(a) == len(b)
    rng = np.random.default_rng(seed)
    x, y = torch.from_numpy(np.asarray(a, np.float64)), torch.from_numpy(np.asarray(b, np.float64))
    values = []
    for _ in range(1 if whole else SUBSETS):
        left, right = rng.permutation(len(a))[:size], rng.permutation(len(b))[:size]
        values.append(float(poly_mmd(x[left], y[right])))
    return float(np.mean(values)), None if whole else float(np.std(values))


def validate(a: Statistics, b: Statistics, paired: bool = False) -> None:
    """Raise MeasureError where two sets cannot be compared: other network, crop or width, n < 2, values not finite."""
    for what in ("encoder", "sha256", "crop"):
        left, right = getattr(a, what), getattr(b, what)
        if left != right:
            raise MeasureError(f"The two sets differ in {what}, {left!r} and {right!r}: compare like with like.")
    width = len(a.mean)
    if len(b.mean) != width:
        raise MeasureError(f"The features have {width} and {len(b.mean)} values: they are of two networks.")
    for which, one in (("first", a), ("second", b)):
        if min(one.n, len(one.features)) < 2:
            raise MeasureError(f"The {which} set has {one.n} picture(s); a distance needs two or more in each set.")
        if not all(np.isfinite(values).all() for values in (one.mean, one.covariance, one.features)):
            raise MeasureError(f"The {which} set's features are not all finite: gather them again.")
    if paired and a.n != b.n:
        raise MeasureError(f"The sets have {a.n} and {b.n} pictures: paired sets have equally many, in one order.")


def evaluate(a: Statistics, b: Statistics, paired: bool = False) -> dict[str, float | int | None]:
    """All MEASURES of two sets, with their counts n_a and n_b, and kid_std (None: cannot be told).

    paired  picture i of b was made from picture i of a (see `extrapolated_distance`; the others do not use it)
    The Fréchet distance is of all pictures, the other two of the rows kept. Raises MeasureError (`validate`).
    """
    validate(a, b, paired)
    kid, deviation = kernel_distance(a.features, b.features)
    return {
        "frechet": frechet_distance(a.mean, a.covariance, b.mean, b.covariance),
        "frechet_extrapolated": extrapolated_distance(a.features, b.features, paired),
        "kid": kid,
        "kid_std": deviation,
        "n_a": a.n,
        "n_b": b.n,
    }
