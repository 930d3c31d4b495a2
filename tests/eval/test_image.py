"""PSNR, SSIM and sharpness against scikit-image and scipy, and what must hold for any picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.data import astronaut
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from eval.metrics import image
from eval.metrics.base import MeasureError
from eval.metrics.image import CAP_DB, MEASURES, ImageSums, default_mouth, evaluate

BEST = {"psnr": CAP_DB, "ssim": 1, "sharpness": 1}


def faces(frames: int = 3) -> np.ndarray:
    """The astronaut's face, each time a pixel further right: (frames, 96, 96, 3) uint8."""
    return np.stack([astronaut()[60:156, 170 + i : 266 + i] for i in range(frames)])


def noisy(reference: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, reference.shape)
    return np.clip(reference + noise, 0, 255).round().astype(np.uint8)


def near(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[k] == pytest.approx(b[k], rel=1e-12) for k in a)


def test_the_same_faces_are_perfect():
    found = evaluate(faces(), faces())
    assert list(found) == [m.name for m in MEASURES]
    for name, value in found.items():
        assert value == pytest.approx(BEST[name.split("_")[0]], abs=1e-12)


def test_psnr_is_scikit_images():
    a, b = faces(), noisy(faces(), 12)
    found = evaluate(a, b)
    assert found["psnr_mouth"] == pytest.approx(peak_signal_noise_ratio(a[:, 48:], b[:, 48:]), abs=1e-9)
    assert found["psnr_rest"] == pytest.approx(peak_signal_noise_ratio(a[:, :48], b[:, :48]), abs=1e-9)


def test_ssim_of_the_whole_crop_is_scikit_images():
    a, b = faces(), noisy(faces(), 12)
    every = np.ones(a.shape[:3], bool)
    kwargs = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = np.mean([structural_similarity(x, y, channel_axis=2, **kwargs) for x, y in zip(a, b, strict=True)])
    found = evaluate(a, b, every)
    assert found["ssim_mouth"] == pytest.approx(expected, abs=1e-12)
    assert found["psnr_rest"] is found["ssim_rest"] is found["sharpness_rest"] is None


def test_ssim_of_the_halves_makes_the_whole():
    a, b = faces(), noisy(faces(), 12)
    found, whole = evaluate(a, b), evaluate(a, b, np.ones(a.shape[:3], bool))
    assert (found["ssim_mouth"] + found["ssim_rest"]) / 2 == pytest.approx(whole["ssim_mouth"], abs=1e-12)


def test_sharpness_is_the_variance_of_scipys_laplacian():
    a, b = faces(), noisy(faces(), 12)
    greys = [np.round(x @ np.array([0.299, 0.587, 0.114])).astype(int) for x in (a, b)]
    edges = [np.stack([ndimage.laplace(f, mode="mirror") for f in g]) for g in greys]
    found = evaluate(a, b)
    exact = evaluate(*(np.repeat(g.astype(np.uint8)[..., None], 3, 3) for g in greys))  # no colours left to weigh
    for name, part in (("mouth", slice(48, 96)), ("rest", slice(0, 48))):
        expected = edges[1][:, part].var() / edges[0][:, part].var()
        assert found[f"sharpness_{name}"] == pytest.approx(expected, rel=1e-3)
        assert exact[f"sharpness_{name}"] == pytest.approx(expected, rel=1e-12)


def test_a_blurred_mouth_is_told_from_a_sharp_one():
    a = faces()
    b = a.copy()
    b[:, 53:] = ndimage.gaussian_filter(a, (0, 2, 2, 0))[:, 53:]
    found = evaluate(a, b)
    assert found["sharpness_mouth"] < 0.6 and found["psnr_mouth"] < 40
    assert found["sharpness_rest"] == 1 and found["psnr_rest"] == CAP_DB
    assert 0.999 < found["ssim_rest"] < 1.001  # its windows reach 5 px into the mouth region, here left alone


def test_psnr_pools_errors_and_not_decibels():
    a = np.full((2, 16, 16, 3), 100, np.uint8)
    b = a.copy()
    b[1] += 10  # one frame perfect, one with an error of 10: MSE 50
    assert evaluate(a, b)["psnr_mouth"] == pytest.approx(10 * np.log10(255**2 / 50))


def test_a_flat_reference_has_no_sharpness():
    flat = np.full((1, 16, 16, 3), 9, np.uint8)
    found = evaluate(flat, flat)
    assert found["sharpness_mouth"] is None and found["sharpness_rest"] is None and found["psnr_mouth"] == CAP_DB


def test_no_frames_no_numbers():
    assert ImageSums().result() == {m.name: None for m in MEASURES}


def test_the_worst_picture_has_zero_decibels():
    black = np.zeros((1, 16, 16, 3), np.uint8)
    assert evaluate(black, 255 - black)["psnr_mouth"] == 0


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(5)), st.integers(1, 5))
def test_batches_and_their_order_do_not_matter(seed, order, size):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (5, 20, 20, 3)).astype(np.uint8)
    b, mouth = noisy(a, 30, seed), rng.random((5, 20, 20)) < 0.4
    whole = evaluate(a, b, mouth)
    order, sums, merged = np.array(order), ImageSums(), ImageSums()
    for i in range(0, 5, size):
        part = order[i : i + size]
        sums.add(a[part], b[part], mouth[part])
        merged.merge(ImageSums().add(a[part], b[part], mouth[part]))
    assert near(sums.result(), whole) and near(merged.result(), whole) and sums.frames == merged.frames == 5
    assert sums.result()["psnr_mouth"] == whole["psnr_mouth"]  # of whole numbers: to the last bit
    assert all(m.low <= whole[m.name] <= m.high for m in MEASURES)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.floats(2, 20), st.floats(1.3, 3))
def test_more_noise_is_worse(seed, sigma, factor):
    a = faces(1)
    little, much = (evaluate(a, noisy(a, s, seed)) for s in (sigma, sigma * factor))
    for name in ("psnr_mouth", "psnr_rest", "ssim_mouth", "ssim_rest"):
        assert much[name] < little[name] < BEST[name.split("_")[0]]


def test_the_default_mouth_is_the_lower_half():
    mask = default_mouth(2, 96)
    assert mask.shape == (2, 96, 96) and not mask[:, :48].any() and mask[:, 48:].all()


def test_masks_are_taken_frame_by_frame():
    a = faces(2)
    b, mouth = a.copy(), np.zeros((2, 96, 96), bool)
    mouth[0, 60:80, 30:60] = mouth[1, 10:20, 10:20] = True
    b[0][~mouth[0]] = 0
    assert evaluate(a, b, mouth)["psnr_mouth"] == CAP_DB
    assert evaluate(a, b, mouth[::-1])["psnr_mouth"] < CAP_DB


GOOD = np.zeros((2, 16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("reference", "generated", "mouth", "said"),
    [
        (GOOD.astype(np.float32), GOOD, None, "reference faces are float32"),
        (GOOD, GOOD / 255, None, "generated faces are float64"),
        (GOOD, GOOD[:1], None, "differ in shape"),
        (GOOD[..., 0], GOOD[..., 0], None, "not square RGB"),
        (GOOD[:, :, :12], GOOD[:, :, :12], None, "not square RGB"),
        (GOOD[:0], GOOD[:0], None, "no frame"),
        (GOOD[:, :15, :15], GOOD[:, :15, :15], None, "15 px are too small"),
        (GOOD, GOOD, np.zeros((2, 16, 16)), "masks are float64"),
        (GOOD, GOOD, np.zeros((1, 16, 16), bool), "masks are bool of shape"),
    ],
)
def test_what_cannot_be_measured_is_said(reference, generated, mouth, said):
    with pytest.raises(MeasureError, match=said) as caught:
        image.validate(reference, generated, mouth)
    assert str(caught.value).endswith(".")
    sums = ImageSums()
    with pytest.raises(MeasureError):
        sums.add(reference, generated, mouth)
    assert sums.frames == 0
