"""Stored tensors to a network: which class an architecture means, and whether the tensors are really its own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

BUILDERS: dict[str, tuple[str, str]] = {  # architecture: module of lipsync.networks, what builds it there
    "wav2lip": ("wav2lip", "Wav2Lip"),
    "wav2lip-warp": ("warp", "Warp"),
    "expert": ("wav2lip", "Expert"),
    "compact-expert": ("compact", "CompactExpert"),
    "compact-expert-1": ("compact", "expert_of_1"),  # by the faces in a window, where these are not five
    "compact-expert-3": ("compact", "expert_of_3"),
    "quality": ("wav2lip", "Quality"),
    "syncnet": ("syncnet", "SyncNet"),
    "sfd": ("s3fd", "S3FD"),
    "inception": ("inception", "Inception"),
}


def read(path: Path) -> dict[str, Tensor]:
    """The state dict of a safetensors file, plain or packed (quantize.py), floats as float32. Raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from .quantize import unpack

    try:
        return unpack(load_file(path))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"The checkpoint {path} cannot be read as safetensors: {error}.") from error


def skeleton(architecture: str, base: int | None) -> nn.Module:
    """A network without memory for its weights, which are put in place of its own (`assign=True`)."""
    import torch

    module, kind = BUILDERS[architecture]
    network = getattr(importlib.import_module(f"lipsync.networks.{module}"), kind)
    try:
        with torch.device("meta"):
            return network() if base is None else network(base=base)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ModelError(f"The network {architecture!r} cannot be built with base {base}: {error}.") from error


def fit(state: dict[str, Tensor], architecture: str, base: int | None, where: str) -> dict[str, Tensor]:
    """The state dict as the network wants it: every tensor there, of its shape; counters that old files lack added.

    where    the file's name, for the sentence
    returns  contiguous tensors, floats as float32
    Raises ModelError where the tensors are another network's or hold values that are not numbers.
    """
    import torch

    if architecture not in BUILDERS:
        raise ModelError(f"{where} is for the network {architecture!r}; this version knows {', '.join(BUILDERS)}.")
    network = skeleton(architecture, base).state_dict()
    wanted = {key: tuple(value.shape) for key, value in network.items()}
    counters = [key for key in wanted if key.endswith("num_batches_tracked") and key not in state]
    state = state | {key: torch.zeros((), dtype=torch.int64) for key in counters}
    foreign = [f"{key} is unknown" for key in state if key not in wanted]
    for key, shape in wanted.items():
        if key not in state:
            foreign.append(f"{key} is missing")
        elif tuple(state[key].shape) != shape:
            foreign.append(f"{key} is {tuple(state[key].shape)}, not {shape}")
    if foreign:
        kind = architecture if base is None else f"{architecture} of base {base}"
        raise ModelError(
            f"{where} belongs to another network than {kind}: {len(foreign)} tensors do not fit ({foreign[0]})."
        )
    fitted = {}
    for key, value in state.items():
        counter = key.endswith("num_batches_tracked")
        fitted[key] = (value.long() if counter else value.float()).contiguous()
        if not bool(fitted[key].isfinite().all()):
            raise ModelError(f"{where} is damaged: {key} holds values that are not numbers.")
    return fitted
