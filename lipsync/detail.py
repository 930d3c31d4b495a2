"""Detail for a made mouth from the speaker's own frames.

A network of 96 pixels makes the shape of a mouth; skin, lip line, single teeth and beard above that resolution are in
no network's output, whatever the size of the face. So the first pass keeps `Exemplar` frames of each face at the size
they have, unlike one another and bounded in memory (`Exemplars`). For each made mouth `DetailTransfer` chooses the
exemplar that looks most like it at low resolution, aligns it by optical flow between the two low bands, and adds its
high band, where both agree and the flow does not fold.

Nothing here looks at the mouth that the frame had: the choice sees the made mouth and the frame above the mouth, and an
exemplar taken within `BARRED_S` of the frame is never its source. A still picture therefore has no exemplar.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .geometry import CropRule, box_alignment, crop_face, sampling, to_crop, top_half

if TYPE_CHECKING:
    from .media.reader import Frame

SIZE_PX = 96  # side of the crops that all below is tuned to
SMALLEST_PX = 110  # faces whose box is no higher: the network's own resolution is all that there is to see
BARRED_S = 0.16  # seconds around a frame whose exemplars are not its source
MOST = 64  # exemplars a track
BYTES = 64 << 20  # of the exemplars of all tracks of a video
REACH = np.array([-0.62, -0.16, 0.62, 0.68], np.float32)  # what is kept of a face, in box heights from the box's centre
PATCH_PX, PATCH_SCALE = 256, 1.7  # picture of the whole face; its side in box heights
_INSET = PATCH_PX / 2 * (1 - 1 / PATCH_SCALE)
PATCH_BOX = np.array([_INSET, _INSET, PATCH_PX - _INSET, PATCH_PX - _INSET], np.float32)  # the face box in a patch
THUMB = (32, 16)  # width and height of what is compared of the lower half of a crop
STICKY = 0.85  # another exemplar must cost less than this share of the one in use
# All that follows is in pixels of the 96 x 96 crop, or in grey levels.
TOP = 40  # first row that is aligned; masks begin at 48
SPLIT = 0.9  # sigma that parts the low band, which is the network's, from the high band, which is the speaker's own
SMOOTH = 1.7  # sigma of the flow: lips move as a whole
AREA = (0.4, 2.5)  # how much a pixel's area may change before the flow counts as folded
RETURN = (1.0, 2.0)  # distance between forward and backward flow: whole detail, none
MIDDLE = 1.5  # sigma under which both pictures must show the same lines
NOISE = 6.0  # variance of those lines: less is no contradiction, skin agrees with skin
AGREEMENT = (0.3, 0.8)  # local correlation at which detail begins, and is whole
UNIT = np.ones((3, 5), np.uint8)  # one doubtful pixel takes its neighbours along: no half teeth
GAIN = (0.3, 1.2)  # of detail, where the frame is less or more sharp than its exemplar


@dataclass(frozen=True)
class Exemplar:
    """One frame of a face, as sharp as the camera made it.

    frame      index in the video
    luma       (h, w) uint8, the lower face at the frame's own resolution; (0, 0) where the face is small
    box        (4,) float32 x0 y0 x1 y1, the face box in pixels of `luma`
    patch      (256, 256, 3) uint8 RGB, the whole face, 1.7 boxes wide: references are cut from it
    opening, width  of the lips, in box heights
    sharpness  of the face above the mouth, see `sharpness`
    landmarks  (K, 2) float32, pixels of `patch`
    traits     (D,) float32, how the mouth and head stand and when, in steps that can be told apart
    """

    frame: int
    luma: np.ndarray
    box: np.ndarray
    patch: Frame
    sharpness: float
    traits: np.ndarray
    landmarks: np.ndarray
    opening: float = 0.0
    width: float = 0.0

    @property
    def nbytes(self) -> int:
        return self.luma.nbytes + self.patch.nbytes


class Exemplars:
    """The exemplars of all tracks of a video: MOST a track, BYTES in all; of those most alike the sharper one stays."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, list[Exemplar]] = {}
        self.nbytes = 0

    def add(self, track: Hashable, exemplar: Exemplar) -> None:
        self._kept.setdefault(track, []).append(exemplar)
        self.nbytes += exemplar.nbytes
        if len(self._kept[track]) > MOST:
            self._drop(track)
        while self.nbytes > BYTES:
            self._drop(max(self._kept, key=lambda t: sum(e.nbytes for e in self._kept[t])))

    def of(self, track: Hashable) -> tuple[Exemplar, ...]:
        return tuple(self._kept.get(track, ()))

    def _drop(self, track: Hashable) -> None:
        kept = self._kept[track]
        traits = np.stack([e.traits for e in kept])
        apart = np.linalg.norm(traits[:, None] - traits[None], axis=2)
        np.fill_diagonal(apart, np.inf)
        pair = np.unravel_index(apart.argmin(), apart.shape)
        self.nbytes -= kept.pop(int(min(pair, key=lambda i: kept[i].sharpness))).nbytes


def take(
    index: int,
    frame: Frame,
    box: np.ndarray,
    landmarks: np.ndarray,
    opening: float,
    width: float,
    pose: tuple[float, float],
) -> Exemplar:
    """The exemplar of one frame with face box (4,) and landmarks (K, 2); opening, width of the lips and pose in box
    heights."""
    side = float(box[3] - box[1])
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left, top, right, bottom = np.round(np.array([x, y, x, y]) + REACH * side).astype(int)
    left, top = max(left, 0), max(top, 0)
    part = frame[top : max(bottom, 0), left : max(right, 0)]
    luma = np.zeros((0, 0), np.uint8)
    if side > SMALLEST_PX and part.size:
        luma = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
    half = side * PATCH_SCALE / 2
    place = box_alignment(x - half, y - half, x + half, y + half)
    patch = crop_face(frame, place, PATCH_PX)
    own = (box - np.array([left, top, left, top])).astype(np.float32)
    traits = np.array([opening / 0.02, width / 0.03, pose[0] / 0.05, pose[1] / 0.05, index / 100], np.float32)
    local = to_crop(landmarks, place, PATCH_PX).astype(np.float32)
    return Exemplar(index, luma, own, patch, sharpness(frame, box), traits, local, opening, width)


def sharpness(frame: Frame, box: np.ndarray) -> float:
    """How sharp a face is between eyes and mouth: deviation of the Laplacian of its luma, grey levels."""
    side = float(box[3] - box[1])
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    top, bottom = max(int(y - 0.3 * side), 0), max(int(y - 0.03 * side), 0)
    part = frame[top:bottom, max(int(x - 0.32 * side), 0) : max(int(x + 0.32 * side), 0)]
    if min(part.shape[:2]) < 8:
        return 1.0
    return float(cv2.Laplacian(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std()) + 0.1


@dataclass(frozen=True)
class Detail:
    """What one exemplar adds to one made mouth, for `blending.paste`.

    high   (h, w) float32, the exemplar's high band, grey levels
    still  (2, 3) float64, pixels of the crop -> pixels of `high`, were nothing moved
    flow   (96, 96, 2) float32, pixels of `high`, what moved besides
    share  (96, 96) float32, how much of it is added
    """

    high: np.ndarray
    still: np.ndarray
    flow: np.ndarray
    share: np.ndarray

    def add(self, picture: Frame, move: np.ndarray) -> Frame:
        """Add it to a crop enlarged to (H, W, 3) uint8 RGB; `move` (2, 3): pixels of the picture -> of the crop."""
        shape, how = (picture.shape[1], picture.shape[0]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        across, down = cv2.split(cv2.warpAffine(self.flow, move, shape, flags=how, borderMode=cv2.BORDER_REPLICATE))
        share = cv2.warpAffine(self.share, move, shape, flags=how)
        place = self.still @ np.concatenate([move, [[0, 0, 1]]])  # where its pixels lie in `high`, were nothing moved
        x, y = (np.arange(n, dtype=np.float32) for n in shape)
        for line, (right, lower, start) in zip((across, down), place.astype(np.float32), strict=True):
            line += right * x + start
            line += (lower * y)[:, None]
        added = cv2.remap(self.high, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
        added *= share
        return cv2.add(picture, cv2.cvtColor(added, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U)


class DetailTransfer:
    """The detail of one track's made mouths, frame after frame: it remembers which exemplar is in use."""

    def __init__(self, exemplars: tuple[Exemplar, ...], rule: CropRule, pad: float, fps: Fraction) -> None:
        self._exemplars, self._rule, self._pad = exemplars, rule, pad
        self._barred = float(BARRED_S * fps)
        crops = [crop_face(e.patch, rule.alignment(PATCH_BOX, e.landmarks, pad), SIZE_PX) for e in exemplars]
        self._uppers = np.stack([_centred(top_half(c)) for c in crops])
        self._mouths = np.stack([mouth_of(c) for c in crops])
        self._frames = np.array([e.frame for e in exemplars])
        sharp = np.array([e.sharpness for e in exemplars])
        self._blur = np.log2(sharp.max() / sharp)
        self._sides = np.array([e.box[3] - e.box[1] for e in exemplars])
        self._now: int | None = None
        self._used: tuple[int, np.ndarray, np.ndarray] | None = None  # exemplar, its low band, its high band
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._flow.setFinestScale(1)  # half the crop's resolution: the finest one is twice the time and trembles

    def __call__(
        self, made: Frame, crop: Frame, mask: np.ndarray, frame: Frame, box: np.ndarray, source: int
    ) -> tuple[Frame, Detail | None]:
        """Detail for one made mouth.

        made    (96, 96, 3) uint8 RGB, in the frame's colours
        crop    (96, 96, 3) uint8 RGB, of the frame; only its upper half is looked at
        mask    (96, 96) float32 0..1
        frame   (H, W, 3) uint8 RGB; only what lies above the mouth is looked at
        box     (4,) face box; source: index of the frame in the video
        returns what to paste, and what to add to it; the crop as it was, and None, where no exemplar serves
        """
        side = float(box[3] - box[1])
        chosen = self._choose(made, crop, mask, source, side) if side > SMALLEST_PX else None
        if chosen is None:
            return made, None
        exemplar = self._exemplars[chosen]
        alignment = self._rule.alignment(exemplar.box, exemplar.landmarks, self._pad)
        low, high = self._bands(chosen, alignment)
        luma = cv2.cvtColor(made, cv2.COLOR_RGB2GRAY)
        own = cv2.GaussianBlur(luma, (0, 0), SPLIT)
        flow, fits = self._align(own[TOP:], low[TOP:])
        fits *= np.clip(sharpness(frame, box) / exemplar.sharpness, *GAIN)
        share = np.zeros((SIZE_PX, SIZE_PX), np.float32)
        share[TOP:] = fits
        still = sampling(alignment, SIZE_PX)
        moved = np.zeros((SIZE_PX, SIZE_PX, 2), np.float32)
        moved[TOP:] = flow @ still[:, :2].T.astype(np.float32)
        # The band between the split and the network's own limit is the exemplar's where it is trusted.
        band = (cv2.subtract(luma, own, dtype=cv2.CV_32F)) * np.minimum(share, 1)
        made = cv2.subtract(made, cv2.cvtColor(band, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U)
        return made, Detail(high, still, moved, share)

    def _choose(self, made: Frame, crop: Frame, mask: np.ndarray, source: int, side: float) -> int | None:
        """The exemplar most like the made mouth, and like the frame above it; the one in use unless another is clearly
        better; None where all are barred."""
        cost = unlike(self._mouths, mouth_of(made), mask)
        cost += 0.3 * np.abs(self._uppers - _centred(top_half(crop))).mean((1, 2, 3))
        cost += 2 * self._blur + 4 * np.log2(np.maximum(side / self._sides, 1))
        if self._now is not None:
            cost[self._now] *= STICKY
        cost[np.abs(self._frames - source) <= self._barred] = np.inf
        best = int(cost.argmin())
        self._now = best if np.isfinite(cost[best]) else None
        return self._now

    def _bands(self, chosen: int, alignment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An exemplar's low band (96, 96) uint8, in the crop, and its high band (h, w) float32, at its own size."""
        if self._used is None or self._used[0] != chosen:
            luma = self._exemplars[chosen].luma
            low = cv2.GaussianBlur(crop_face(luma, alignment, SIZE_PX), (0, 0), SPLIT)
            move = cv2.invertAffineTransform(sampling(alignment, SIZE_PX))
            big = cv2.warpAffine(
                low,
                move,
                luma.shape[::-1],
                flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            self._used = chosen, low, cv2.subtract(luma, big, dtype=cv2.CV_32F)
        return self._used[1:]

    def _align(self, made: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flow (h, w, 2) from a made low band to an exemplar's, both (h, w) uint8, and how far to trust it, 0..1."""
        there, back = (
            cv2.GaussianBlur(self._flow.calc(*pair, None), (0, 0), SMOOTH) for pair in ((made, low), (low, made))
        )
        reached = _GRID + there
        home = cv2.remap(back, reached, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        astray = np.hypot(*cv2.split(there + home))
        fits = np.clip((RETURN[1] - astray) / (RETURN[1] - RETURN[0]), 0, 1)
        moved = cv2.remap(low, reached, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        fits *= unfolded(there) * agreement(made, moved)
        return there, cv2.GaussianBlur(cv2.erode(fits, UNIT), (0, 0), 1.5)


def unfolded(flow: np.ndarray) -> np.ndarray:
    """Where a flow (h, w, 2), pixels, keeps areas within AREA: (h, w) float32, 0 or 1."""
    across, down = cv2.split(flow)
    xx, xy = cv2.Scharr(across, cv2.CV_32F, 1, 0, scale=1 / 32), cv2.Scharr(across, cv2.CV_32F, 0, 1, scale=1 / 32)
    yx, yy = cv2.Scharr(down, cv2.CV_32F, 1, 0, scale=1 / 32), cv2.Scharr(down, cv2.CV_32F, 0, 1, scale=1 / 32)
    area = (1 + xx) * (1 + yy) - xy * yx
    return ((area > AREA[0]) & (area < AREA[1])).astype(np.float32)


def agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Local agreement of the middle bands of two pictures (h, w) uint8: (h, w) float32, 0 none .. 1 whole.

    Flat skin in both agrees: what is weaker than NOISE is no contradiction.
    """

    def smooth(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (0, 0), MIDDLE)

    a, b = a.astype(np.float32), b.astype(np.float32)
    a, b = a - smooth(a), b - smooth(b)
    alike = (smooth(a * b) + NOISE) / (cv2.sqrt(smooth(a * a) * smooth(b * b)) + NOISE)
    return np.clip((alike - AGREEMENT[0]) / (AGREEMENT[1] - AGREEMENT[0]), 0, 1)


def mouth_of(crop: Frame) -> np.ndarray:
    """The lower half of a crop, coarse: (3, 512) float32, its colours apart."""
    return cv2.resize(crop[len(crop) // 2 :], THUMB, interpolation=cv2.INTER_AREA).reshape(-1, 3).T.astype(np.float32)


def unlike(mouths: np.ndarray, mouth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How unlike some mouths (N, 3, 512) are to one (3, 512), each of `mouth_of`, around the lips, light left aside:
    (N,) float32, grey levels. mask (S, S) float32 0..1, of the crop."""
    weight = (cv2.resize(mask[len(mask) // 2 :], THUMB, interpolation=cv2.INTER_AREA) * _LIPS).ravel()
    weight /= max(float(weight.sum()), 1e-6)
    apart = mouths - mouth
    apart -= (apart @ weight)[..., None]
    return (np.abs(apart, out=apart) @ weight).mean(1)


def _centred(picture: np.ndarray) -> np.ndarray:
    return picture - picture.mean((0, 1))


_GRID = np.dstack(  # (56, 96, 2) float32, the coordinates of each aligned pixel, x first
    np.meshgrid(np.arange(SIZE_PX, dtype=np.float32), np.arange(SIZE_PX - TOP, dtype=np.float32))
)
_LIPS = np.float32(  # (16, 32), the weight of a thumb's pixels: the lips' surroundings five times the chin's
    1 + 4 * np.outer(*(np.exp(-0.5 * ((np.arange(n) - at) / wide) ** 2) for n, at, wide in ((16, 8, 4), (32, 15.5, 5))))
)
