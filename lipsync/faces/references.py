"""References: the pictures of a speaker that a model sees beside the frame, chosen by role, or by a made mouth.

None of them is chosen by the mouth that the frame has, so that it cannot leak through the choice: what counts is the
frame above the mouth, and the roles, or the mouth that was made of the sound. Of `Exemplar` frames, those within
`BARRED_S` of the frame are left out.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ..detail import BARRED_S, PATCH_BOX, Exemplar, mouth_of, unlike
from ..geometry import crop_face, crop_turned, depths, same_face, top_half

if TYPE_CHECKING:
    from ..media.reader import Frame
    from ..models.base import LipSyncModel
    from .tracking import ReferenceFrame, Track

LIKENESS = 3.0  # weight of the frame above the mouth against what a role asks for
FURTHER = 4.0  # a made mouth moves so much less than its owner's: what is looked for goes further from rest
ABOVE = 0.3  # weight of the frame above the mouth against what a made mouth asks for
KEPT = 0.9  # a picture in use costs this share: another must be clearly better
LIPS = np.array([[-300, 0], [0, -150], [0, 150]])  # open, spread, round: weights of opening and width, in box heights


def role_costs(apart: np.ndarray, opening: np.ndarray, width: np.ndarray) -> np.ndarray:
    """How unfit pictures are for each role: at rest, open, spread, round; (4, N) float, less is better.

    apart          (N,) difference from the frame above the mouth, grey levels
    opening, width (N,) of the lips, in box heights
    """
    lips = np.stack([opening, width])
    return np.stack([apart + 100 * opening, *(LIKENESS * apart + role @ lips for role in LIPS)])


def reference_cost(top_halves: np.ndarray, wanted: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """How unfit each of some pictures is as a reference: unlike above the mouth, or with the mouth open.

    Choosing by the upper half alone follows pose and light but not the old mouth, which therefore cannot leak through
    the choice.

    top_halves  (N, 12, 24, 3), from `geometry.top_half`; wanted (12, 24, 3), of the frame in question
    gaps        (N,) height of the open mouth in box sides
    returns     (N,) float32
    """
    return np.abs(top_halves.astype(np.float32) - wanted).mean((1, 2, 3)) + 100 * gaps


def choose_reference(cost: np.ndarray, now: int) -> int:
    """The reference to take next: the one in use, until another costs clearly less."""
    best = int(cost.argmin())
    return best if cost[best] < 0.85 * cost[now] else now


def references_of(track: Track, model: LipSyncModel, pad: float, fps: Fraction) -> Resting | Roles | Stills:
    """What gives a model the references of one track, frame after frame."""
    if set(model.roles) == {"still"}:
        return Stills(track, model, pad)
    resting = Resting(track.reference_frames, model, pad)
    return resting if model.roles == ("closed",) else Roles(resting, track.exemplars, model, pad, fps)


class Stills:
    """The same pictures of the speaker for every frame: those at rest that are most unlike one another in pose."""

    def __init__(self, track: Track, model: LipSyncModel, pad: float) -> None:
        calm = sorted(track.reference_frames, key=lambda r: r.mouth_opening)[: 2 * len(model.roles)]
        poses, picked = np.array([r.pose for r in calm]), [0]
        while len(picked) < min(len(model.roles), len(calm)):
            apart = np.linalg.norm(poses[:, None] - poses[picked][None], axis=2).min(1)
            picked.append(int(apart.argmax()))
        picked = (picked * len(model.roles))[: len(model.roles)]  # fewer pictures than roles: some again
        crops = [_cut(calm[k].patch, calm[k].box, calm[k].landmarks, model, pad) for k in picked]
        self._pictures = np.concatenate(crops, axis=2)

    def __call__(self, crop: Frame, source: int, alignment: np.ndarray, landmarks: np.ndarray) -> Frame:
        """(S, S, 3 R) uint8 RGB, whatever the frame."""
        return self._pictures


def _cut(picture: Frame, box: np.ndarray, landmarks: np.ndarray, model: LipSyncModel, pad: float) -> Frame:
    return crop_face(picture, model.rule.alignment(box, landmarks, pad), model.size_px)


class Resting:
    """One reference: the remembered picture most like the frame above the mouth, and at rest below."""

    def __init__(self, reference_frames: tuple[ReferenceFrame, ...], model: LipSyncModel, pad: float) -> None:
        self._pictures = [_cut(p.patch, p.box, p.landmarks, model, pad) for p in reference_frames]
        self._uppers = np.stack([top_half(p) for p in self._pictures])
        self._gaps = np.array([p.mouth_opening for p in reference_frames])
        self._now = int(self._gaps.argmin())

    def __call__(self, crop: Frame, source: int, alignment: np.ndarray, landmarks: np.ndarray) -> Frame:
        """(S, S, 3) uint8 RGB for a crop (S, S, 3) of frame `source`."""
        self._now = choose_reference(reference_cost(self._uppers, top_half(crop), self._gaps), self._now)
        return self._pictures[self._now]


class Roles:
    """Four references: at rest, widest open, widest and narrowest mouth; each as like the frame as can be had.

    Where a clip has no such pictures (a still, a very short one), all four are the resting one.
    """

    def __init__(
        self, resting: Resting, exemplars: tuple[Exemplar, ...], model: LipSyncModel, pad: float, fps: Fraction
    ) -> None:
        self._resting, self._barred = resting, float(BARRED_S * fps)
        self._exemplars, self._frames = exemplars, np.array([e.frame for e in exemplars])
        if exemplars:
            self._places = [model.rule.alignment(PATCH_BOX, e.landmarks, pad) for e in exemplars]
            pictures = [crop_face(e.patch, p, model.size_px) for e, p in zip(exemplars, self._places, strict=True)]
            self._uppers = np.stack([top_half(p) for p in pictures])
            self._lips = np.array([[e.opening, e.width] for e in exemplars]).T
            mouths, calm = np.stack([mouth_of(p) for p in pictures]), self._lips[0].argsort()
            self._moved = mouths - mouths[calm[: max(3, len(mouths) // 8)]].mean(0)  # from rest
        self._now: list[int | None] = [None] * (1 + len(LIPS))
        self._fitting: list[int] = []  # in use

    def __call__(self, crop: Frame, source: int, alignment: np.ndarray, landmarks: np.ndarray) -> Frame:
        """(S, S, 12) uint8 RGB, one reference after the other, for a crop (S, S, 3) of frame `source`.

        Each is brought onto the crop by eyes and nose, and turned as its head is: where pictures that do not fit are
        mixed, they blur.

        alignment, landmarks  of the frame; its mouth is not among the landmarks that are used
        """
        free = self._free(source)
        if not free.any():
            return np.concatenate([self._resting(crop, source, alignment, landmarks)] * len(self._now), axis=2)
        apart = np.abs(self._uppers - top_half(crop)).mean((1, 2, 3))
        for k, cost in enumerate(role_costs(apart, *self._lips)):
            cost = np.where(free, cost - cost[free].min() + 3, np.inf)
            best, now = int(cost.argmin()), self._now[k]
            if now is None or cost[best] < 0.8 * cost[now]:
                self._now[k] = best
        return self._brought(self._now, alignment, landmarks, len(crop))

    def fitting(
        self,
        crop: Frame,
        source: int,
        alignment: np.ndarray,
        landmarks: np.ndarray,
        mask: np.ndarray,
        moved: np.ndarray,
    ) -> Frame:
        """Those whose mouths are what a made one tries to be, (S, S, 12) uint8 RGB.

        What the sound does to the mouth is the difference between the made picture and one made of silence; what an
        exemplar's owner did is its difference from rest. So neither the light nor the blur of made mouths counts, and
        one that opens by a third finds the picture that is open.

        mask   (S, S) float32 0..1, of the crop
        moved  (3, 512) float32, `LipSyncModel.response`, as far as the mouth is to open
        """
        cost = unlike(self._moved, FURTHER * moved, mask)
        cost += ABOVE * np.abs(self._uppers - top_half(crop)).mean((1, 2, 3))
        cost[self._fitting] *= KEPT
        free = self._free(source)
        self._fitting = np.where(free, cost, np.inf).argsort(kind="stable")[: min(len(self._now), free.sum())].tolist()
        return self._brought(np.resize(self._fitting, len(self._now)), alignment, landmarks, len(crop))

    def serves(self, source: int) -> bool:
        """Is there an exemplar that frame `source` may be shown?"""
        return bool(self._free(source).any())

    def _free(self, source: int) -> np.ndarray:
        """(N,) bool: exemplars that frame `source` may be shown."""
        return np.abs(self._frames - source) > self._barred

    def _brought(
        self, chosen: list[int] | np.ndarray, alignment: np.ndarray, landmarks: np.ndarray, size_px: int
    ) -> Frame:
        """Exemplars, brought onto a crop."""
        depth, turned = depths(alignment, landmarks, size_px), {}
        for k in {*chosen}:
            exemplar = self._exemplars[k]
            where = same_face(alignment, landmarks, self._places[k], exemplar.landmarks)
            turned[k] = crop_turned(exemplar.patch, *where, depth)
        return np.concatenate([turned[k] for k in chosen], axis=2)
