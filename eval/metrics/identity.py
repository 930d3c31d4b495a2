"""Is it still the same person? Cosine between face embeddings before and after (protocol.md section 2, Speech2Vid).

The second measure sees the lower half alone: the network looks mostly at eyes and brow, which lip-sync does not touch,
and hardly feels a wrong mouth under the right eyes (docs/metrics.md has figures).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lipsync.checkpoints import registry

from .base import Measure, MeasureError

ARCHITECTURE = "face-embedding"
EVERY = 5  # frames from one that is compared to the next
REASON = "No face network is here, so identity cannot be told: lipsync/weights/face-embedding.safetensors is missing."
_SOURCE = "arXiv 1705.02966; protocol.md section 2"
MEASURES = (
    Measure("identity_cosine", "identity", "", -1, 1, "higher", _SOURCE),
    Measure("identity_lower_cosine", "identity", "", -1, 1, "higher", _SOURCE + "; the upper half hidden"),
)
_HIDDEN = (123, 117, 104)  # the mean colour that the network subtracts


def validate(before: np.ndarray, after: np.ndarray) -> None:
    """Raise MeasureError where these are not embeddings of the same frames."""
    if before.ndim != 2 or not before.size:
        raise MeasureError(f"Embeddings of shape {before.shape} are not one vector for each frame, (T, D).")
    if before.shape != after.shape:
        raise MeasureError(
            f"The embeddings differ in shape, {before.shape} before and {after.shape} after: embed the same frames "
            f"with the same network."
        )


def cosines(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Cosine of each frame's two embeddings: (T, D) twice -> (T,) float64, -1..1, higher is better.

    NaN where an embedding has a NaN (no face in the frame) or is zero.
    """
    before, after = before.astype(np.float64), after.astype(np.float64)
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip((before * after).sum(1) / lengths, -1, 1)


def lower_half(faces: np.ndarray) -> np.ndarray:
    """Aligned faces (T, S, S, 3) uint8 RGB with what is above the middle of the nose hidden."""
    faces = faces.copy()
    faces[:, : faces.shape[1] // 2] = _HIDDEN
    return faces


def evaluate(
    before: np.ndarray | None,
    after: np.ndarray | None,
    lower_before: np.ndarray | None = None,
    lower_after: np.ndarray | None = None,
) -> dict[str, float | None]:
    """Mean cosines over frames; None where there is no network (REASON says why), no face, or no pair was given.

    before, after              (T, D) floats, embeddings of the reference's and of the generated faces
    lower_before, lower_after  the same of their lower halves
    Raises MeasureError.
    """
    pairs = (before, after), (lower_before, lower_after)
    return {measure.name: _mean(*pair) for measure, pair in zip(MEASURES, pairs, strict=True)}


def _mean(before: np.ndarray | None, after: np.ndarray | None) -> float | None:
    if before is None and after is None:
        return None
    if before is None or after is None:
        raise MeasureError("Embeddings are needed of both videos, before and after, or of neither.")
    validate(before, after)
    found = cosines(before, after)
    told = found[~np.isnan(found)]
    return float(told.mean()) if len(told) else None


def embedder() -> Callable[[np.ndarray], np.ndarray] | None:
    """The registered face network: aligned faces (T, S, S, 3) uint8 RGB -> embeddings (T, D); None where none is here.

    A network of this architecture has a method `embed` that does so, as the face detector has `detect`.
    Raises ModelError where its file is damaged.
    """
    for name, card in registry.cards().items():
        if card.architecture == ARCHITECTURE and card.path is not None:
            network: Any = registry.load(name)
            return network.embed
    return None
