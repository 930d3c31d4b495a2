"""Which pictures of a speaker a model sees beside the frame: one at rest, or four by role.

None of them is chosen by the mouth that the frame has, so that it cannot leak through the choice: what counts is the
frame above the mouth, and the roles. Of `Exemplar` frames, those within `BARRED_S` of the frame are left out.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ..crop import CropRule, better, cut, unlike, upper
from ..detail import BARRED_S, PATCH_BOX, Exemplar

if TYPE_CHECKING:
    from ..media.reader import Frame
    from .tracking import Portrait

LIKENESS = 2.0  # weight of the frame above the mouth against what a role asks for
LIPS = np.array([[-300, 0], [0, -150], [0, 150]])  # open, spread, round: weights of opening and width, in box heights


def role_costs(apart: np.ndarray, opening: np.ndarray, width: np.ndarray) -> np.ndarray:
    """How unfit pictures are for each role: at rest, open, spread, round; (4, N) float, less is better.

    apart          (N,) difference from the frame above the mouth, grey levels
    opening, width (N,) of the lips, in box heights
    """
    lips = np.stack([opening, width])
    return np.stack([apart + 100 * opening, *(LIKENESS * apart + role @ lips for role in LIPS)])


class Resting:
    """One reference: the remembered picture most like the frame above the mouth, and at rest below (crop.unlike)."""

    def __init__(self, portraits: tuple[Portrait, ...], rule: CropRule, pad: float) -> None:
        self._pictures = [cut(p.chip, rule.region(p.box, pad)) for p in portraits]
        self._uppers = np.stack([upper(p) for p in self._pictures])
        self._gaps = np.array([p.openness for p in portraits])
        self._now = int(self._gaps.argmin())

    def __call__(self, crop: Frame, source: int) -> Frame:
        """(96, 96, 3) uint8 RGB for a crop (96, 96, 3) of frame `source`."""
        self._now = better(unlike(self._uppers, upper(crop), self._gaps), self._now)
        return self._pictures[self._now]


class Roles:
    """Four references: at rest, widest open, widest and narrowest mouth; each as like the frame as can be had.

    Where a clip has no such pictures (a still, a very short one), all four are the resting one.
    """

    def __init__(
        self, resting: Resting, exemplars: tuple[Exemplar, ...], rule: CropRule, pad: float, fps: Fraction
    ) -> None:
        self._resting, self._barred = resting, float(BARRED_S * fps)
        self._frames = np.array([e.frame for e in exemplars])
        if exemplars:
            region = rule.region(PATCH_BOX, pad)
            self._pictures = [cut(e.patch, region) for e in exemplars]
            self._uppers = np.stack([upper(p) for p in self._pictures])
            self._lips = np.array([[e.opening, e.width] for e in exemplars]).T
        self._now: list[int | None] = [None] * (1 + len(LIPS))

    def __call__(self, crop: Frame, source: int) -> Frame:
        """(96, 96, 12) uint8 RGB, one reference after the other, for a crop (96, 96, 3) of frame `source`."""
        free = np.abs(self._frames - source) > self._barred
        if not free.any():
            return np.concatenate([self._resting(crop, source)] * len(self._now), axis=2)
        apart = np.abs(self._uppers - upper(crop)).mean((1, 2, 3))
        for k, cost in enumerate(role_costs(apart, *self._lips)):
            cost = np.where(free, cost - cost[free].min() + 3, np.inf)
            best, now = int(cost.argmin()), self._now[k]
            if now is None or cost[best] < 0.8 * cost[now]:
                self._now[k] = best
        return np.concatenate([self._pictures[k] for k in self._now], axis=2)
