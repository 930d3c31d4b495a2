"""Is it still the same person? Cosine between face embeddings before and after (protocol.md section 2, Speech2Vid)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lipsync.checkpoints import registry

from .base import Measure, MeasureError

ARCHITECTURE = "face-embedding"
REASON = (
    "No face network is registered, so identity cannot be told: it comes with the training of Speech2Vid, and until "
    "then the column is empty."
)
MEASURES = (Measure("identity_cosine", "identity", "", -1, 1, "higher", "arXiv 1705.02966; protocol.md section 2"),)


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


def evaluate(before: np.ndarray | None, after: np.ndarray | None) -> dict[str, float | None]:
    """Mean cosine over frames; None where there is no network (give None twice; REASON says why) or no face.

    before, after  (T, D) floats, embeddings of the reference's and of the generated frames
    Raises MeasureError.
    """
    if before is None and after is None:
        return {"identity_cosine": None}
    if before is None or after is None:
        raise MeasureError("Embeddings are needed of both videos, before and after, or of neither.")
    validate(before, after)
    found = cosines(before, after)
    told = found[~np.isnan(found)]
    return {"identity_cosine": float(told.mean()) if len(told) else None}


def embedder() -> Callable[[np.ndarray], np.ndarray] | None:
    """The registered face network: crops (T, S, S, 3) uint8 RGB -> embeddings (T, D); None where none is here.

    A network of this architecture has a method `embed` that does so, as the face detector has `detect`.
    Raises ModelError where its file is damaged.
    """
    for name, card in registry.cards().items():
        if card.architecture == ARCHITECTURE and card.path is not None:
            return registry.load(name).embed
    return None
