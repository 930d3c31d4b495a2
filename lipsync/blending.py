"""Blending: a made crop back into its frame.

The new mouth is put back through a soft mask that follows the jaw line, after its colours were matched to the picture
around it: the difference between old and new outside the mask, where it is small enough to be light, is carried
smoothly into it, a cheap relative of Poisson blending, so that no rectangle shows. Pixels where the mask is zero are
not touched. Two other ways for models that ask for them: Poisson blending by OpenCV, and replacing the whole crop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from .faces.landmarks import CORNERS, INNER_LIPS, JAW, NOSE_BASE
from .geometry import to_crop

if TYPE_CHECKING:  # trainers use this module where PyAV is not
    from .detail import Detail
    from .media.reader import Frame

REDDEST, MORE_RED = 99.8, 4  # percentile of the red chroma of a face that counts as its own; levels beyond
FAR_OFF = 16.0  # grey levels: a difference of skin under another light is smaller


def mouth_mask(landmarks: np.ndarray, alignment: np.ndarray, feather: float = 0.04, size_px: int = 96) -> np.ndarray:
    """The soft mask of the lower face in the coordinates of its crop.

    landmarks (29, 2) float32, pixels, from Track.landmarks
    alignment of the crop, (2, 3)
    feather  width of the feather, share of the crop's height
    returns   (size_px, size_px) float32, 0..1: below the nose and within the jaw, below a little beyond it, since the
              new jaw may hang lower than the old; 0 on the border of the crop
    """
    local = to_crop(landmarks, alignment, size_px)
    nose, mouth = local[NOSE_BASE], local[INNER_LIPS].mean(0)
    across = local[CORNERS][1] - local[CORNERS][0]
    across = across / max(float(np.linalg.norm(across)), 1e-6)
    down = np.array([-across[1], across[0]])
    # Below, a little beyond the jaw; at the sides well within it, where speech moves little and the picture is sharper.
    arm = local[JAW] - mouth
    aside, below = arm @ across, arm @ down
    outline = mouth + 0.8 * aside[:, None] * across + (below + 0.06 * np.clip(below, 0, None))[:, None] * down
    # Cut off what lies above the line that runs just under the nose.
    level = float((nose + 0.15 * (mouth - nose)) @ down)
    lift = np.clip(level - outline @ down, 0, None)
    outline = outline + lift[:, None] * down
    mask = np.zeros((size_px, size_px), np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    sigma = max(feather * size_px, 0.5)
    soft = cv2.GaussianBlur(mask, (0, 0), sigma).astype(np.float32) / 255
    ramp = np.clip(np.minimum(np.arange(size_px), np.arange(size_px)[::-1]) / (2 * sigma), 0, 1).astype(np.float32)
    soft *= ramp[None, :]
    soft *= np.clip((size_px - 1 - np.arange(size_px)) / (2 * sigma), 0, 1).astype(np.float32)[:, None]
    soft[soft < 0.01] = 0
    return soft


def match_colour(generated: np.ndarray, original: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Shift the colours of a generated crop so that it meets the original around the mask.

    generated, original  (S, S, 3) uint8 RGB; mask (S, S) float32 0..1
    returns              (S, S, 3) uint8 RGB
    """
    size, coarse = mask.shape[0], (24, 24)  # what is carried is smooth: a coarse grid holds it
    trust = (1 - mask) ** 2
    trust[size - size // 24 :] = 0  # the last rows are neck and collar, which the network guesses
    difference = cv2.subtract(original, generated, dtype=cv2.CV_32F)
    red, green, blue = cv2.split(cv2.absdiff(original, generated))
    furthest = cv2.max(cv2.max(red, green), blue).astype(np.float32)
    trust /= 1 + (furthest / FAR_OFF) ** 2  # hair or background that the network guessed: no light
    difference *= trust[..., None]
    small = cv2.resize(cv2.merge([difference, trust]), coarse, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 2.4)
    carried = np.clip(small[..., :3] / (small[..., 3:] + 1e-3), -40, 40)
    return cv2.add(generated, cv2.resize(carried, (size, size), interpolation=cv2.INTER_CUBIC), dtype=cv2.CV_8U)


def widened(made: np.ndarray, rest: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Pictures (B, S, S, 3) uint8 moved away from those made under silence: rest + gain (made - rest); gain (B,)."""
    rest = rest.astype(np.float32)
    moved = rest + np.asarray(gain, np.float32)[:, None, None, None] * (made - rest)
    return np.clip(moved + 0.5, 0, 255).astype(np.uint8)


def natural_red(generated: np.ndarray, references: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Keep a generated crop no redder than the speaker's own lips and skin; luma stays.

    Networks answer doubt about a lowered lip with a red that nobody has.

    generated   (S, S, 3) uint8 RGB; references (S, S, 3 R) uint8 RGB, of the same face; mask (S, S) float32 0..1
    returns     (S, S, 3) uint8 RGB
    """
    own = references[mask > 0.5].reshape(1, -1, 3)
    if not own.size:
        return generated
    reddest = np.percentile(cv2.cvtColor(own, cv2.COLOR_RGB2YCrCb)[..., 1], REDDEST) + MORE_RED
    seen = cv2.cvtColor(generated, cv2.COLOR_RGB2YCrCb)
    if seen[..., 1].max() <= reddest:
        return generated
    seen[..., 1] = np.minimum(seen[..., 1], max(reddest, 128))  # 128 is grey
    return cv2.cvtColor(seen, cv2.COLOR_YCrCb2RGB)


def place(frame: Frame, alignment: np.ndarray, mask: np.ndarray) -> tuple[tuple[int, int, int, int], np.ndarray] | None:
    """Where a crop's mask (S, S) is not 0 in a frame: left, top, right, bottom in whole pixels, and the matrix (2, 3)
    from the index of a pixel there to that of a pixel of the crop; None where it is nowhere."""
    height, width = frame.shape[:2]
    size = len(mask)
    x, y, w, h = cv2.boundingRect((mask > 0).astype(np.uint8))  # about a third of the crop
    u0, v0, u1, v1 = np.array([x - 0.5, y - 0.5, x + w + 0.5, y + h + 0.5]) / size
    corners = np.array([[u0, v0], [u1, v0], [u0, v1], [u1, v1]]) @ alignment[:, :2].T + alignment[:, 2]
    left, top = (max(int(np.floor(v)), 0) for v in corners.min(0))
    right, bottom = (int(np.ceil(v)) for v in corners.max(0))
    right, bottom = min(right, width), min(bottom, height)
    if not w or right <= left or bottom <= top:
        return None
    inverse = np.linalg.inv(alignment[:, :2]) * size
    first = inverse @ (np.array([left, top]) + 0.5 - alignment[:, 2]) - 0.5
    return (left, top, right, bottom), np.concatenate([inverse, first[:, None]], axis=1)


def paste(
    frame: Frame, alignment: np.ndarray, generated: np.ndarray, mask: np.ndarray, detail: Detail | None = None
) -> None:
    """Blend a generated crop (S, S, 3) uint8 RGB into its place in the frame, in place, through mask (S, S) float32.

    detail  what the speaker's own frames add at the frame's resolution (detail.DetailTransfer)
    Pixels where the mask is 0, and all outside the crop, keep their values.
    """
    placed = place(frame, alignment, mask)
    if placed is None:
        return
    (left, top, right, bottom), move = placed
    shape = (right - left, bottom - top)
    how, enlarged = cv2.WARP_INVERSE_MAP, np.linalg.det(move[:, :2]) < 1
    big = cv2.warpAffine(
        generated,
        move,
        shape,
        flags=how | (cv2.INTER_CUBIC if enlarged else cv2.INTER_LINEAR),
        borderMode=cv2.BORDER_REPLICATE,
    )
    if detail is not None:
        big = detail.add(big, move)
    alpha = cv2.warpAffine(mask, move, shape, flags=how | cv2.INTER_LINEAR)
    part = frame[top:bottom, left:right]
    part[:] = cv2.blendLinear(big, np.ascontiguousarray(part), alpha, 1 - alpha)


def paste_poisson(frame: Frame, alignment: np.ndarray, generated: np.ndarray, mask: np.ndarray) -> None:
    """Blend a generated crop into the frame, in place, by Poisson editing (Perez et al. 2003; OpenCV's seamlessClone):
    gradients are the crop's, the values around the mask are the frame's. Arguments as for `paste`."""
    placed = place(frame, alignment, mask)
    if placed is None:
        return
    (left, top, right, bottom), move = placed
    shape, how = (right - left, bottom - top), cv2.WARP_INVERSE_MAP
    big = cv2.warpAffine(generated, move, shape, flags=how | cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = (cv2.warpAffine(mask, move, shape, flags=how | cv2.INTER_LINEAR) > 0.5).astype(np.uint8) * 255
    inside[[0, -1]], inside[:, [0, -1]] = 0, 0  # the clone reads a border of one pixel
    x, y, w, h = cv2.boundingRect(inside)
    if min(w, h) < 3:
        return
    part = np.ascontiguousarray(frame[top:bottom, left:right])
    frame[top:bottom, left:right] = cv2.seamlessClone(big, part, inside, (x + w // 2, y + h // 2), cv2.NORMAL_CLONE)


def crop_mask(size_px: int, feather: float = 0.04) -> np.ndarray:
    """The mask of a model that replaces its whole crop: (size_px, size_px) float32, 1 but for a ramp to 0 at the
    border."""
    width = max(2 * feather * size_px, 1.0)
    line = np.clip(np.minimum(np.arange(size_px), np.arange(size_px)[::-1]) / width, 0, 1).astype(np.float32)
    return np.minimum(line, line[:, None])
