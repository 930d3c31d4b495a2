"""Lip-sync models: one line in `MODELS` and one file a model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..errors import ModelError

if TYPE_CHECKING:
    from .base import LipSyncModel

# Architecture -> module of lipsync.models and class, or a class: modules are loaded when a model of theirs is opened.
MODELS: dict[str, str | type[LipSyncModel]] = {
    "wav2lip": "wav2lip:Wav2LipModel",
    "wav2lip-warp": "wav2lip:WarpModel",
    "lipgan": "lipgan:LipGANModel",
    "speech2vid": "speech2vid:Speech2VidModel",
    "speech2vid-context": "speech2vid:Speech2VidContextModel",
}


def model_class(architecture: str) -> type[LipSyncModel]:
    """The class of an architecture. Raises ModelError where there is none."""
    if architecture not in MODELS:
        raise ModelError(
            "There is no model of the architecture {architecture!r}: this version has {choices}.",
            architecture=architecture,
            choices=", ".join(MODELS),
        )
    entry = MODELS[architecture]
    if not isinstance(entry, str):
        return entry
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(f"lipsync.models.{module}"), name)
