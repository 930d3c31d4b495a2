"""From a face box to a network's input, and from its output back into the frame.

A model's card states its crop as fractions of the face box (`CropRule`); training, inference and scoring all cut with
`cut`. Frames are RGB up to here: only `to_network` and `from_network` know that the published networks want BGR.
The new mouth is put back through a soft mask that follows the jaw line, after its colours were matched to the picture
around it: the difference between old and new outside the mask, where it is small enough to be light, is carried
smoothly into it, a cheap relative of Poisson blending, so that no rectangle shows. Pixels where the mask is zero are
not touched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .faces.landmarks import CORNERS, INNER_LIPS, JAW, NOSE_BASE

if TYPE_CHECKING:  # trainers use this module where PyAV is not
    from .detail import Detail
    from .media.reader import Frame

SIZE_PX = 96
FAR_OFF = 16.0  # grey levels: a difference of skin under another light is smaller


@dataclass(frozen=True)
class CropRule:
    """Where a model's crop lies, in box heights from the centre of the face box: left, top, right, bottom."""

    left: float = -0.5
    top: float = -0.575
    right: float = 0.5
    bottom: float = 0.545

    @classmethod
    def from_card(cls, crop: dict) -> CropRule:
        """Read the rule of a card: `"x": ["cx - 0.5 s", "cx + 0.5 s"], "y": [...]` (ValueError where it is none)."""

        def number(text: str) -> float:
            match = re.fullmatch(r"c[xy] ([+-]) ([\d.]+) s", text)
            if match is None:
                raise ValueError(f"a crop bound reads like 'cx - 0.5 s', not {text!r}")
            return float(match[1] + match[2])

        (left, right), (top, bottom) = map(number, crop["x"]), map(number, crop["y"])
        return cls(left, top, right, bottom)

    def region(self, box: np.ndarray, pad: float = 0.0) -> np.ndarray:
        """Face box (4,) -> region (4,) float32 x0 y0 x1 y1, pixels; `pad` enlarges the box by that share a side."""
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * pad)
        offsets = np.array([self.left, self.top, self.right, self.bottom], np.float32) * side
        return (np.array([x, y, x, y], np.float32) + offsets).astype(np.float32)


def cut(frame: Frame, region: np.ndarray, size_px: int = SIZE_PX) -> Frame:
    """Cut a region x0 y0 x1 y1 (float pixels, may leave the frame) and resize it to (size_px, size_px, 3) uint8 RGB.

    Bilinear, after a box blur where the picture shrinks by 2 or more; beyond the edge the last pixels repeat.
    """
    x0, y0, x1, y1 = (float(v) for v in region)
    fx, fy = size_px / (x1 - x0), size_px / (y1 - y0)
    kx, ky = max(int(1 / fx), 1), max(int(1 / fy), 1)
    left, top = max(int(x0) - kx - 1, 0), max(int(y0) - ky - 1, 0)
    part = frame[top : int(np.ceil(y1)) + ky + 1, left : int(np.ceil(x1)) + kx + 1]
    if not part.size:  # wholly outside
        part, left, top = frame, 0, 0
    if kx > 1 or ky > 1:
        part = cv2.blur(part, (kx, ky))
    # Pixel centres: output pixel j looks at x0 + (j + 0.5) / fx - 0.5.
    move = np.array([[1 / fx, 0, x0 + 0.5 / fx - 0.5 - left], [0, 1 / fy, y0 + 0.5 / fy - 0.5 - top]], np.float64)
    return cv2.warpAffine(
        part,
        move,
        (size_px, size_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def to_network(crops: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Crops (B, S, S, 3) and R references (B, S, S, 3 R), uint8 RGB -> (B, 3 + 3 R, S, S) float32 BGR 0..1: crops with
    the lower half 0, then references."""
    pictures = [crops, *np.split(references, references.shape[3] // 3, axis=3)]
    both = np.concatenate([p[..., ::-1] for p in pictures], axis=3)
    both[:, both.shape[1] // 2 :, :, :3] = 0
    return np.ascontiguousarray(both.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def from_network(out: np.ndarray) -> np.ndarray:
    """(B, 3, S, S) float32 BGR 0..1 -> (B, S, S, 3) uint8 RGB."""
    return (np.clip(out, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)[..., ::-1]


def mouth_mask(points: np.ndarray, region: np.ndarray, softness: float = 0.04, size_px: int = SIZE_PX) -> np.ndarray:
    """The soft mask of the lower face in the coordinates of its crop.

    points    (25, 2) float32, pixels, from Track.points
    region    crop region, pixels
    softness  width of the feather, share of the crop's height
    returns   (size_px, size_px) float32, 0..1: below the nose and within the jaw, below a little beyond it, since the
              new jaw may hang lower than the old; 0 on the border of the crop
    """
    scale = size_px / (region[2:] - region[:2])
    local = (points - region[:2]) * scale
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
    sigma = max(softness * size_px, 0.5)
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
    trust /= 1 + (np.abs(difference).max(2) / FAR_OFF) ** 2  # hair or background that the network guessed: no light
    difference *= trust[..., None]
    small = cv2.resize(cv2.merge([difference, trust]), coarse, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 2.4)
    carried = np.clip(small[..., :3] / (small[..., 3:] + 1e-3), -40, 40)
    return cv2.add(generated, cv2.resize(carried, (size, size), interpolation=cv2.INTER_CUBIC), dtype=cv2.CV_8U)


def paste(
    frame: Frame, region: np.ndarray, generated: np.ndarray, mask: np.ndarray, detail: Detail | None = None
) -> None:
    """Blend a generated crop (S, S, 3) uint8 RGB into its region of the frame, in place, through mask (S, S) float32.

    detail  what the speaker's own frames add at the frame's resolution (detail.DetailTransfer)
    Pixels where the mask is 0, and all outside the region, keep their values.
    """
    height, width = frame.shape[:2]
    size = generated.shape[0]
    # Only where the mask is not 0: about a third of the region.
    x, y, w, h = cv2.boundingRect((mask > 0).astype(np.uint8))
    step = (region[2:] - region[:2]) / size
    left, top = (max(int(np.floor(v)), 0) for v in region[:2] + (np.array([x, y]) - 0.5) * step)
    right, bottom = (int(np.ceil(v)) for v in region[:2] + (np.array([x + w, y + h]) + 0.5) * step)
    right, bottom = min(right, width), min(bottom, height)
    if not w or right <= left or bottom <= top:
        return
    fx, fy = 1 / step
    move = np.array(
        [[fx, 0, (left + 0.5 - region[0]) * fx - 0.5], [0, fy, (top + 0.5 - region[1]) * fy - 0.5]],
        np.float64,
    )
    shape = (right - left, bottom - top)
    how = cv2.WARP_INVERSE_MAP
    big = cv2.warpAffine(
        generated,
        move,
        shape,
        flags=how | (cv2.INTER_CUBIC if fx < 1 else cv2.INTER_LINEAR),
        borderMode=cv2.BORDER_REPLICATE,
    )
    if detail is not None:
        big = detail.add(big, move)
    alpha = cv2.warpAffine(mask, move, shape, flags=how | cv2.INTER_LINEAR)
    part = frame[top:bottom, left:right]
    part[:] = cv2.blendLinear(big, np.ascontiguousarray(part), alpha, 1 - alpha)


# --- the reference -------------------------------------------------------------------------------------------


def upper(crop: Frame) -> np.ndarray:
    """The upper half of a crop, coarse: (12, 24, 3) float32."""
    return cv2.resize(crop[: len(crop) // 2], (24, 12), interpolation=cv2.INTER_AREA).astype(np.float32)


def unlike(uppers: np.ndarray, wanted: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """How unfit each of some pictures is as a reference: unlike above the mouth, or with the mouth open.

    Choosing by the upper half alone follows pose and light but not the old mouth, which therefore cannot leak through
    the choice.

    uppers   (N, 12, 24, 3), from `upper`; wanted (12, 24, 3), of the frame in question
    gaps     (N,) height of the open mouth in box sides
    returns  (N,) float32
    """
    return np.abs(uppers.astype(np.float32) - wanted).mean((1, 2, 3)) + 100 * gaps


def better(unfit: np.ndarray, now: int) -> int:
    """The reference to take next: the one in use, until another is clearly more fit."""
    best = int(unfit.argmin())
    return best if unfit[best] < 0.85 * unfit[now] else now
