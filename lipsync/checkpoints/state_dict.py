"""State dicts: which network an architecture means, and whether stored tensors are really its own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

# Networks that are no lip-sync models: architecture -> module of lipsync.networks, class. Models are in models.MODELS.
NETWORKS: dict[str, str] = {
    "expert": "wav2lip:Expert",
    "compact-expert": "compact:CompactExpert",
    "quality": "wav2lip:Quality",
    "syncnet": "syncnet:SyncNet",
    "sfd": "s3fd:S3FD",
    "inception": "inception:Inception",
    "sharpener": "sharpener:Sharpener",
    "occlusion": "occlusion:OcclusionNet",
    "face-embedding": "face_embedding:FaceEmbedding",
}


def architectures() -> tuple[str, ...]:
    """Every architecture that a card may name."""
    from ..models import MODELS

    return (*MODELS, *NETWORKS)


def read(path: Path) -> dict[str, Tensor]:
    """The state dict of a safetensors file, plain or packed (quantize.py), floats as float32. Raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from .quantize import unpack

    try:
        return unpack(load_file(path))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            "The checkpoint {path} cannot be read as safetensors: {error}.", path=path, error=error
        ) from error


def build_network(architecture: str, config: dict) -> nn.Module:
    """The network of an architecture with a card's `config`. Raises ModelError where it cannot be built."""
    import torch

    if architecture in NETWORKS:
        module, _, kind = NETWORKS[architecture].partition(":")
        network = getattr(importlib.import_module(f"lipsync.networks.{module}"), kind)
    else:
        from ..models import model_class

        network = model_class(architecture).network
    try:
        with torch.device("meta"):  # without memory for its weights, which are put in place of its own (assign=True)
            return network(**config)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ModelError(
            "The network {architecture!r} cannot be built with {config}: {error}.",
            architecture=architecture,
            config=config,
            error=error,
        ) from error


def validate_state_dict(state: dict[str, Tensor], architecture: str, config: dict, where: str) -> dict[str, Tensor]:
    """The state dict as the network wants it: every tensor there, of its shape; counters that old files lack added.

    where    the file's name, for the sentence
    returns  contiguous tensors, floats as float32
    Raises ModelError where the tensors are another network's or hold values that are not numbers.
    """
    import torch

    if architecture not in architectures():
        raise ModelError(
            "{where} is for the network {architecture!r}; this version knows {choices}.",
            where=where,
            architecture=architecture,
            choices=", ".join(architectures()),
        )
    network = build_network(architecture, config).state_dict()
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
        kind = f"{architecture} {config}" if config else architecture
        raise ModelError(
            "{where} belongs to another network than {kind}: {count} tensors do not fit ({foreign}).",
            where=where,
            kind=kind,
            count=len(foreign),
            foreign=foreign[0],
        )
    fitted = {}
    for key, value in state.items():
        counter = key.endswith("num_batches_tracked")
        fitted[key] = (value.long() if counter else value.float()).contiguous()
        if not bool(fitted[key].isfinite().all()):
            raise ModelError("{where} is damaged: {key} holds values that are not numbers.", where=where, key=key)
    return fitted
