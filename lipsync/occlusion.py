"""What lies before a face: hands, microphones, cups, captions.

A small network sees the crop of each frame and says which parts of it show no face (networks/occlusion.py). What is
found stays as the camera saw it: the new mouth is painted around it, and where it hides most of the mouth the frame
passes through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np

from .blending import mouth_mask
from .checkpoints import registry
from .detail import PATCH_BOX
from .engines import NetworkSpec, open_engine
from .errors import ModelError
from .geometry import CropRule, crop_face, sampling
from .models.base import sample_faces, to_planes
from .progress import Monitor

if TYPE_CHECKING:
    from .faces.tracking import Track
    from .media.reader import Frame

T = TypeVar("T")

NAME = "occlusion-lab"
RULE, SIZE_PX = CropRule(), 96  # the crop that the network sees, whatever the model's own is
UNSURE, SURE = 0.5, 0.75  # probability below which a place counts as free, and above which as covered
FEWEST = 0.06  # share of a mouth's mask; what covers less is a tooth, the corner of an open mouth or an error
MOST = 0.6  # share of a mouth's mask from which on no mouth is made
STICKY = 0.15  # less of it, and a hidden mouth stays hidden
STEADY = 0.8  # what is left of a probability a frame later: what flickers is there, and is seen from its first frame on
WIDER = np.ones((3, 3), np.uint8)  # the edge of what lies before belongs to it


@dataclass(frozen=True)
class Place:
    """One mouth in the film.

    track, frame        whose and when; alignment (2, 3), mask (S, S): of the model's crop; seen_by (2, 3): of the crop
                        that the network sees
    """

    track: int
    frame: int
    alignment: np.ndarray
    mask: np.ndarray
    seen_by: np.ndarray


@dataclass(frozen=True)
class _Seen:
    """What was found of a face in the frame before."""

    frame: int
    probability: np.ndarray
    covered: bool = False
    hidden: bool = False


class OcclusionFinder:
    """Says where something lies before a face. Any thread may ask; nothing is kept between calls."""

    def __init__(self, engine: str = "auto") -> None:
        card = registry.cards().get(NAME)
        if card is None:
            raise ModelError("The checkpoint {name} is missing: install this package again.", name=NAME)
        self._engine = open_engine(NetworkSpec(card, (("face", (3, SIZE_PX, SIZE_PX)),), ("covered",), _sample), engine)

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Probability that a place is covered, (B, 48, 48) float32, of faces (B, 96, 96, 3) uint8 RGB cut by RULE."""
        return self._engine.run({"face": to_planes(faces)})["covered"][:, 0]


class Covers:
    """What lies before the faces of a film, frame after frame: steadied over time, so that nothing flickers."""

    def __init__(self, finder: OcclusionFinder) -> None:
        self.finder = finder
        self._last: dict[int, _Seen] = {}

    def __call__(self, faces: np.ndarray, where: Sequence[Place]) -> list[np.ndarray | None]:
        """How far each mask is covered, (S, S) float32 0..1 each, 1 all over where the mouth is hidden, None where
        nothing lies before it.

        faces  (B, 96, 96, 3) uint8 RGB, in the order of the film; where: whose, when, and in which crop
        """
        return [self._one(seen, place) for seen, place in zip(self.finder(faces), where, strict=True)]

    def _one(self, seen: np.ndarray, place: Place) -> np.ndarray | None:
        before = self._last.get(place.track)
        if before is None or before.frame not in (place.frame - 1, place.frame):
            before = _Seen(place.frame, seen)
        seen = np.maximum(seen, STEADY * before.probability)
        found = cover(seen, place)
        share = covered_share(found, place.mask)
        hidden = share > MOST - STICKY * before.hidden
        covered = share > FEWEST * (1 - before.covered / 2)
        self._last[place.track] = _Seen(place.frame, seen, covered, hidden)
        if hidden:
            return np.ones_like(found)
        return found if covered else None


def hides(found: np.ndarray) -> bool:
    """Whether what was found by `Covers` leaves nothing of the mouth."""
    return bool(found.min() >= 1)


def without_covered(track: Track, finder: OcclusionFinder, monitor: Monitor) -> Track:
    """The same track; pictures of the speaker in which something lies before the mouth are forgotten, so that no new
    mouth is made of it. Where it is in all of them, the least covered of each kind stays. Raises Cancelled."""
    monitor.check()
    frames, exemplars = track.reference_frames, track.exemplars
    of_frames = _shares([(r.patch, r.box, r.landmarks) for r in frames], finder)
    of_exemplars = _shares([(e.patch, PATCH_BOX, e.landmarks) for e in exemplars], finder)
    return replace(track, reference_frames=_bare(frames, of_frames), exemplars=_bare(exemplars, of_exemplars))


def _bare(pictures: tuple[T, ...], shares: list[float]) -> tuple[T, ...]:
    most = max(FEWEST, min(shares, default=0.0))
    return tuple(one for one, share in zip(pictures, shares, strict=True) if share <= most)


def _shares(pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]], finder: OcclusionFinder) -> list[float]:
    """Share of the mouth that is covered in each of some pictures, with a face box and landmarks in their pixels."""
    if not pictures:
        return []
    faces, places = zip(*(cut(*one) for one in pictures), strict=True)
    found = finder(np.stack(faces))
    return [covered_share(cover(one, place), place.mask) for one, place in zip(found, places, strict=True)]


def cut(picture: Frame, box: np.ndarray, landmarks: np.ndarray, track: int = 0, frame: int = 0) -> tuple[Frame, Place]:
    """The crop by RULE of a face in a picture, and its place there, for a model that sees the same crop."""
    alignment = RULE.alignment(box, landmarks)
    place = Place(track, frame, alignment, mouth_mask(landmarks, alignment), alignment)
    return crop_face(picture, alignment, SIZE_PX), place


def covered_share(found: np.ndarray, mask: np.ndarray) -> float:
    """Share of a mask (S, S) that a cover (S, S) takes, 0..1."""
    return float((mask * found).sum() / max(float(mask.sum()), 1e-6))


def cover(probability: np.ndarray, place: Place) -> np.ndarray:
    """How far each pixel of a model's crop is covered, (S, S) float32 0..1, of the probability (48, 48) that a place of
    the crop by RULE is."""
    size, sure = len(place.mask), np.clip((probability - UNSURE) / (SURE - UNSURE), 0, 1)
    if not sure.any():
        return np.zeros((size, size), np.float32)
    to_frame, to_map = sampling(place.alignment, size), sampling(place.seen_by, len(probability))
    inverse = np.linalg.inv(to_map[:, :2])
    move = np.concatenate([inverse @ to_frame[:, :2], (inverse @ (to_frame[:, 2] - to_map[:, 2]))[:, None]], axis=1)
    return cv2.warpAffine(
        cv2.dilate(sure, WIDER),
        move,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _sample() -> dict[str, np.ndarray]:
    return {"face": to_planes(sample_faces(SIZE_PX))}
