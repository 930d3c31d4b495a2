"""How like its reference is a generated face, and how sharp: PSNR, SSIM, variance of the Laplacian.

Each is told twice, inside the mouth region and outside it: a generator paints the mouth, and a mean over the whole
face would mostly praise pixels that were copied. Faces are crops (T, S, S, 3) uint8 RGB of any S from 16 px on, cut by
the same rule from the reference and from the generated video.
Everything is stored as sums and counts (`ImageSums`) and divided at the end: PSNR comes from the pooled squared error,
never from a mean of PSNRs; error and sharpness are sums of whole numbers, so the order of batches cannot matter.
SSIM is scikit-image's map in the form of Wang et al. 2004 (Gaussian window, sigma 1.5, no sample correction, L = 255),
a mean over colours and over the region; the window's half, 5 px at the border of the crop, is left out as they do.
Sharpness is Pech-Pacheco et al. 2000's, on grey pictures. Windows and Laplacians at the border of the mouth see both
sides of it: no false edge is made by cutting the region out first.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
from skimage.metrics import structural_similarity

from .base import Measure, MeasureError

MOUTH = (0.0, 0.5, 1.0, 1.0)  # left, top, right, bottom as shares of the crop: the lower half, which networks paint
CAP_DB = 100.0  # PSNR of equal pictures would be infinite; from here on they are as good as equal
SMALLEST_PX = 16  # SSIM's window of 11 px needs room
SIGMA = 1.5
EDGE_PX = int(3.5 * SIGMA + 0.5)  # half of SSIM's window

_SSIM, _LAPLACIAN = "Wang et al. 2004", "Pech-Pacheco et al. 2000"
MEASURES = (
    Measure("psnr_mouth", "PSNR, mouth", "dB", 0, CAP_DB, "higher", "10 log10(255^2 / MSE), capped at 100"),
    Measure("psnr_rest", "PSNR, rest of face", "dB", 0, CAP_DB, "higher", "10 log10(255^2 / MSE), capped at 100"),
    Measure("ssim_mouth", "SSIM, mouth", "", -1, 1, "higher", _SSIM),
    Measure("ssim_rest", "SSIM, rest of face", "", -1, 1, "higher", _SSIM),
    # Neither way is better: 1 is as sharp as the reference, less is blurred, more is noise or over-sharpened.
    Measure("sharpness_mouth", "sharpness / reference, mouth", "", 0, np.inf, "", _LAPLACIAN),
    Measure("sharpness_rest", "sharpness / reference, rest of face", "", 0, np.inf, "", _LAPLACIAN),
)


def validate(reference: np.ndarray, generated: np.ndarray, mouth: np.ndarray | None = None) -> None:
    """Raise MeasureError where these are not two equally long runs of square uint8 faces with masks that fit."""
    for name, faces in (("reference", reference), ("generated", generated)):
        if faces.dtype != np.uint8:
            raise MeasureError(f"The {name} faces are {faces.dtype}, not uint8: give RGB crops of 0..255.")
    if reference.shape != generated.shape:
        raise MeasureError(
            f"The faces differ in shape, {reference.shape} for the reference and {generated.shape} for the generated "
            f"ones: cut both by the same rule and to the same number of frames."
        )
    if reference.ndim != 4 or reference.shape[3] != 3 or reference.shape[1] != reference.shape[2]:
        raise MeasureError(f"Faces of shape {reference.shape} are not square RGB crops (T, S, S, 3).")
    if not len(reference):
        raise MeasureError("There is no frame to measure: give at least one.")
    if reference.shape[1] < SMALLEST_PX:
        raise MeasureError(f"Crops of {reference.shape[1]} px are too small: {SMALLEST_PX} px or more are needed.")
    if mouth is not None and (mouth.dtype != bool or mouth.shape != reference.shape[:3]):
        raise MeasureError(
            f"The mouth masks are {mouth.dtype} of shape {mouth.shape}: give bool of shape {reference.shape[:3]}."
        )


def default_mouth(frames: int, size_px: int) -> np.ndarray:
    """The mouth region MOUTH for so many crops: (frames, size_px, size_px) bool."""
    left, top, right, bottom = (round(share * size_px) for share in MOUTH)
    mask = np.zeros((size_px, size_px), bool)
    mask[top:bottom, left:right] = True
    return np.broadcast_to(mask, (frames, size_px, size_px))


def squared_error(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Squared difference summed over colours: two (S, S, 3) uint8 -> (S, S) int64, 0..3 * 255^2."""
    return ((reference.astype(np.int64) - generated) ** 2).sum(2)


def psnr_db(squared: int, values: int) -> float | None:
    """PSNR of a summed squared error over so many colour values, dB, 0..CAP_DB, higher is better; None of no values."""
    if not values:
        return None
    return CAP_DB if not squared else min(float(10 * np.log10(255**2 * values / squared)), CAP_DB)


def ssim_map(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """SSIM at each pixel, mean over colours: two (S, S, 3) uint8 -> (S, S) float64, -1..1, NaN within EDGE_PX."""
    _, every = structural_similarity(
        reference,
        generated,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    out = np.full(reference.shape[:2], np.nan)
    inner = slice(EDGE_PX, -EDGE_PX)
    out[inner, inner] = every[inner, inner].mean(2)
    return out


def laplacian(face: np.ndarray) -> np.ndarray:
    """Four-neighbour Laplacian of the grey picture: (S, S, 3) uint8 -> (S, S) int64, -1020..1020 grey levels."""
    return cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_16S).astype(np.int64)


def variance(total: int, squares: int, count: int) -> float | None:
    """Variance from whole sums: no rounding until the division. None of nothing."""
    return (squares * count - total * total) / count**2 if count else None


@dataclass
class _Region:
    """Sums over the pixels of one region."""

    squared: int = 0  # error, over colour values
    values: int = 0
    similarity: float = 0.0  # SSIM, over windows
    windows: int = 0
    pixels: int = 0  # of the Laplacians
    reference: int = 0
    reference_squares: int = 0
    generated: int = 0
    generated_squares: int = 0

    def add(self, region: np.ndarray, error: np.ndarray, similar: np.ndarray, edges: list[np.ndarray]) -> None:
        count, windows = int(region.sum()), region & ~np.isnan(similar)
        self.squared += int(error[region].sum())
        self.values += 3 * count
        self.similarity += float(similar[windows].sum())
        self.windows += int(windows.sum())
        self.pixels += count
        ours, made = (e[region] for e in edges)
        self.reference += int(ours.sum())
        self.reference_squares += int((ours * ours).sum())
        self.generated += int(made.sum())
        self.generated_squares += int((made * made).sum())

    def result(self, name: str) -> dict[str, float | None]:
        ours = variance(self.reference, self.reference_squares, self.pixels)
        made = variance(self.generated, self.generated_squares, self.pixels)
        return {
            f"psnr_{name}": psnr_db(self.squared, self.values),
            f"ssim_{name}": self.similarity / self.windows if self.windows else None,
            f"sharpness_{name}": made / ours if ours and made is not None else None,
        }


class ImageSums:
    """Sums over any number of batches, of one clip or of many; `result` divides them."""

    def __init__(self) -> None:
        self.frames = 0
        self._regions = {"mouth": _Region(), "rest": _Region()}

    def add(self, reference: np.ndarray, generated: np.ndarray, mouth: np.ndarray | None = None) -> ImageSums:
        """Take a batch of frames.

        reference, generated  (T, S, S, 3) uint8 RGB
        mouth                 (T, S, S) bool, True inside the mouth region; None: the lower half (MOUTH)
        returns               itself
        Raises MeasureError; then nothing was taken.
        """
        validate(reference, generated, mouth)
        mouth = default_mouth(len(reference), reference.shape[1]) if mouth is None else mouth
        for ours, made, inside in zip(reference, generated, mouth, strict=True):
            found = squared_error(ours, made), ssim_map(ours, made), [laplacian(ours), laplacian(made)]
            self._regions["mouth"].add(inside, *found)
            self._regions["rest"].add(~inside, *found)
        self.frames += len(reference)
        return self

    def merge(self, other: ImageSums) -> ImageSums:
        """Take the sums of another, such as those of one clip into those of a set; returns itself."""
        self.frames += other.frames
        for name, region in self._regions.items():
            for field in fields(_Region):
                setattr(region, field.name, getattr(region, field.name) + getattr(other._regions[name], field.name))
        return self

    def result(self) -> dict[str, float | None]:
        """Every name of MEASURES; None where a region has no pixel, or the reference no edge to be compared with."""
        found = self._regions["mouth"].result("mouth") | self._regions["rest"].result("rest")
        return {m.name: found[m.name] for m in MEASURES}


def evaluate(reference: np.ndarray, generated: np.ndarray, mouth: np.ndarray | None = None) -> dict[str, float | None]:
    """All measures of one run of frames; arguments as `ImageSums.add`. Raises MeasureError."""
    return ImageSums().add(reference, generated, mouth).result()
