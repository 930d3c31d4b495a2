"""The networks of a run from its configuration, and their weights from a name or a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lipsync.networks.compact import CompactExpert
from lipsync.networks.syncnet import SyncNet
from lipsync.networks.wav2lip import Expert, Wav2Lip

from .config import Config, TrainingError


def weights(source: str) -> dict[str, Tensor]:
    """The float32 state dict of a registered checkpoint, a .safetensors file (plain or packed) or a published .pth."""
    from lipsync import checkpoints, fetching, fitting

    path = Path(source)
    if path.suffix == ".safetensors":
        return fitting.read(path)
    if path.suffix in (".pth", ".pt"):
        return fetching.read_foreign(path, source)
    return checkpoints.tensors(source)


def expert(config: Config) -> nn.Module:
    """A new expert: published (5 frames only, width `base` of 16) or compact."""
    if config.network == "published":
        if config.window != 5:
            raise TrainingError("The published expert sees windows of 5 faces: set window=5 or network=compact.")
        return Expert()
    return CompactExpert(config.base, config.window)


def teacher(source: str) -> nn.Module:
    """A trained expert of either kind, frozen; its shape is read from its tensors."""
    state = weights(source)
    first = state.get("face_encoder.1.conv_block.0.weight")
    if first is not None and first.shape[-1] == 3:
        base, frames = first.shape[0] // 6, first.shape[1] // 12
        network: nn.Module = CompactExpert(base, frames)
    else:
        network, frames = Expert(), 5
    network.load_state_dict(state)
    network.window = frames
    return network.eval().requires_grad_(False)


def generator(config: Config) -> nn.Module:
    return Wav2Lip(config.base)


def judge(config: Config) -> nn.Module:
    return SyncNet(config.base)


def warm(network: nn.Module, config: Config) -> nn.Module:
    """Start from `config.start`; names and shapes must be the network's own."""
    if config.start:
        try:
            network.load_state_dict(weights(config.start))
        except RuntimeError as error:
            raise TrainingError(f"{config.start} does not fit this network (base={config.base}): {error}") from error
    return network


def seeded(config: Config) -> None:
    """Weights drawn after this are the same on every machine and process."""
    torch.manual_seed(config.seed)
