"""The networks of a run from its configuration, and their weights from a name or a file."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from lipsync.networks.compact import CompactExpert, CompactQuality
from lipsync.networks.syncnet import SyncNet
from lipsync.networks.warp import REFERENCES, Warp, compose
from lipsync.networks.wav2lip import Expert, Quality, Wav2Lip

from .config import Config, TrainingError

MEL_START = -1  # frames from the face to the start of the sound that a generator trained here hears
FIRST = "face_encoder.1.conv_block.0.weight"  # of an expert: 3 pixels wide in the compact one


def weights(source: str) -> dict[str, Tensor]:
    """The float32 state dict of a registered checkpoint, a .safetensors file (plain or packed) or a published .pth."""
    from lipsync.checkpoints import download, registry
    from lipsync.checkpoints import state_dict as fitting

    path = Path(source)
    if path.suffix == ".safetensors":
        return fitting.read(path)
    if path.suffix in (".pth", ".pt"):
        return download.read_foreign(path, source)
    return registry.tensors(source)


def expert(config: Config) -> nn.Module:
    """A new expert: published (5 frames only, `width` of 16) or compact."""
    if config.network == "published":
        if config.window != 5:
            raise TrainingError("The published expert sees windows of 5 faces: set window=5 or network=compact.")
        return Expert()
    return CompactExpert(config.width, config.window)


def trained_expert(source: str) -> nn.Module:
    """A trained expert of either kind, frozen; its shape is read from its tensors. Raises TrainingError for another
    network."""

    def shape(state: dict[str, Tensor]) -> nn.Module:
        first, frames = state.get(FIRST), 5
        if first is None or first.shape[-1] != 3:
            network = Expert()
        else:
            frames = first.shape[1] // 12
            network = CompactExpert(first.shape[0] // 6, frames)
        network.window = frames
        return network

    return _trained(source, "expert", shape).requires_grad_(False)


def trained_generator(source: str) -> nn.Module:
    """A trained generator; `mel_start` is its card's (of a file: as trained here). Raises TrainingError for another
    network."""
    from lipsync.checkpoints import registry

    first = "face_encoder_blocks.0.0.conv_block.0.weight"
    network = _trained(
        source, "generator", lambda s: (Wav2Lip if s[first].shape[1] == 6 else Warper)(s[first].shape[0])
    )
    card = registry.cards().get(source)
    network.mel_start = card.mel_start_frames if card else MEL_START
    return network


def trained_discriminator(run: Path) -> nn.Module:
    """The discriminator of a LipGAN run as its last.pt holds it; its width is the run's. Raises TrainingError for the
    folder of another run, or of none."""
    from lipsync.models.lipgan import Discriminator

    try:
        state = torch.load(run / "last.pt", map_location="cpu", weights_only=True)["networks"]["discriminator"]
        network = Discriminator(Config.load(run).width)
        network.load_state_dict(state)
    except (OSError, KeyError, RuntimeError) as error:
        raise TrainingError(f"{run} holds no discriminator of LipGAN: give the folder of a run of it.") from error
    return network.eval()


def trained_face_embedding() -> nn.Module:
    """The face network of the content loss, frozen."""
    from lipsync.networks.face_embedding import FaceEmbedding

    return _trained("face-embedding", "face network", lambda _: FaceEmbedding())


def trained_evaluator(source: str) -> nn.Module:
    """A trained evaluator; its width is read from its tensors. Raises TrainingError for another network."""
    return _trained(source, "evaluator", lambda s: SyncNet(s["netcnnlip.0.weight"].shape[0] // 3))


def _trained(source: str, kind: str, shape: Callable[[dict[str, Tensor]], nn.Module]) -> nn.Module:
    state = weights(source)
    try:
        network = shape(state)
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise TrainingError(f"{source} holds no {kind}, but another network.") from error
    return network.eval()


class Warper(Warp):
    """The warping generator with its picture composed, (B, 3, 96, 96): trained and measured like any other. `maps` are
    those of the last pass."""

    references = REFERENCES

    def forward(self, mel: Tensor, face: Tensor) -> Tensor:
        self.maps = super().forward(mel, face)
        return compose(self.maps, face[:, 3:].float())

    def begin(self, state: dict[str, Tensor]) -> None:
        """Start from a generator of one reference: it sees the one at rest as before, and paints as before, but
        prefers that reference to its own colours. Raises KeyError, RuntimeError for other tensors."""
        own = self.state_dict()
        first, last = "face_encoder_blocks.0.0.conv_block.0.weight", "output_block.1."
        fresh = {k for k in own if own[k].shape != state[k].shape}
        own |= {k: v for k, v in state.items() if k not in fresh}
        for key in fresh:
            known = state[key]
            grown = own[key] * (0.02 if key == last + "weight" else 1)
            if key == first:
                grown[:, known.shape[1] :] = 0
            grown[tuple(slice(n) for n in known.shape)] = known
            own[key] = grown
        own[last + "weight"][:3, known_width(state) :] = 0
        bias = own[last + "bias"]
        bias[3:] = 0
        bias[3 + 2 * REFERENCES], bias[-1] = 1.0, 1.5
        self.load_state_dict(own)


def known_width(state: dict[str, Tensor]) -> int:
    """Channels from which a generator paints."""
    return state["output_block.1.weight"].shape[1]


def generator(config: Config) -> nn.Module:
    network = (Warper if config.warp else Wav2Lip)(config.width)
    network.mel_start = MEL_START
    return network


def evaluator(config: Config) -> nn.Module:
    return SyncNet(config.width)


def discriminator(config: Config, ear: nn.Module | None = None) -> Quality | CompactQuality:
    """A new discriminator: published (`width` of 16) or compact, which may hear through an expert's ear."""
    if config.network == "published":
        if config.hears:
            raise TrainingError("The published discriminator hears nothing: set hears=false or network=compact.")
        quality = Quality(config.width)
        for layer in quality.modules():
            if isinstance(layer, nn.Conv2d):  # torch's own start fades to nothing in 15 layers
                nn.init.kaiming_normal_(layer.weight, a=0.01)
                nn.init.zeros_(layer.bias)
        return quality
    if config.hears and ear is None:
        raise TrainingError("hears=true needs an expert's ear: set expert=expert-lab, or another.")
    return CompactQuality(sound=ear.audio(torch.zeros(1, 1, 80, 16)).shape[1] if config.hears else 0)


def load_initial_weights(network: nn.Module, config: Config) -> nn.Module:
    """Start from `config.start`; names and shapes must be the network's own.

    A compact expert may start from one of a longer window: its last face stands for those that are left out.
    """
    if config.start:
        state = weights(config.start)
        try:
            if isinstance(network, CompactExpert) and FIRST in state:
                faces = state[FIRST].unflatten(1, (-1, 12))
                last = faces[:, config.window - 1 :].sum(1, keepdim=True)
                state[FIRST] = torch.cat((faces[:, : config.window - 1], last), 1).flatten(1, 2)
            if isinstance(network, Warper) and known_width(state) != known_width(network.state_dict()):
                network.begin(state)
            else:
                network.load_state_dict(state)
        except (KeyError, RuntimeError) as error:
            raise TrainingError(f"{config.start} does not fit this network (width={config.width}): {error}") from error
    return network


@cache
def has_bf16(device: str) -> bool:
    """Does a type of device compute in bfloat16? A processor that only emulates it is ten times slower than float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: torch.device, wanted: bool = True) -> torch.autocast:
    """Compute in bfloat16 where the device does."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and has_bf16(device.type))


def set_seed(config: Config) -> None:
    """Weights drawn after this are the same on every machine and process."""
    torch.manual_seed(config.seed)
