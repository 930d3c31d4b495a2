"""The sync expert: which of these sounds belongs to these mouths?

Two recipes. `bce` is the published one: cosine, half own-clip negatives; it sticks at ln 2 where data is short.
`contrastive` asks each window to know its own sound among its group's (one speaker, several windows a clip) and each
sound its window, with a learnt temperature. Source: arXiv 2008.10010; protocol.md section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import networks
from ..config import Config, TrainingError
from ..data.arrays import Arrays
from ..data.sampling import speaker_weights, sync_batch
from ..data.shards import face_card
from ..loop import Loop
from ..metrics import embed_clip, sync_figures
from .base import Task


@dataclass(frozen=True)
class ExpertConfig(Config):
    """Of a sync expert."""

    task: str = "sync_expert"
    lr: float = 8e-4
    warmup: int = 20
    steps: int = 1200
    aug_strength: float = 0.7
    misc: float = 0.3
    network: str = "compact"  # or published
    recipe: str = "contrastive"  # or bce: the published one, half own-clip negatives
    window: int = 5  # faces in a window: 1, 3 or 5 (the sound is 200 ms in all)
    speakers: int = 4  # groups of windows of one speaker in a batch
    windows: int = 32  # windows a group
    shapes: float = 1.0  # weight of the auxiliary question for the mouth's shape

    choices: ClassVar = {"network": ("compact", "published"), "recipe": ("contrastive", "bce"), "window": (1, 3, 5)}
    at_least_1: ClassVar = (*Config.at_least_1, "speakers", "windows")

    def check(self) -> None:
        super().check()
        if self.windows % 4:
            raise TrainingError(f"windows is a multiple of 4, not {self.windows}: four are drawn from one clip.")


class Temperature(nn.Module):
    """The learnt scale of likeness before the softmax (CLIP's)."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(np.log(15.0), dtype=torch.float32))

    def forward(self) -> Tensor:
        return self.log.exp().clamp(1, 60)


class Shapes(nn.Module):
    """What embeddings are asked beside the contrast: the face's for lip gap and mouth width of its frames, the sound's
    for the same against the clip's mean. It leads both encoders to the mouth at once; without it the contrast alone
    stayed at its chance level for hundreds of steps (docs/training.md)."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.of_face, self.of_sound = nn.Linear(width, 4 * frames), nn.Linear(width, 4 * frames)

    def forward(self, audio: Tensor, face: Tensor, shape: Tensor) -> Tensor:
        """audio, face (B, D) of length 1; shape (B, 4 frames), from sync_batches.mouth_shape."""
        scale = audio.shape[1] ** 0.5
        seen = functional.smooth_l1_loss(self.of_face(face * scale), shape)
        guessed = functional.smooth_l1_loss(
            self.of_sound(audio * scale).unflatten(1, (-1, 4))[..., 2:], shape.unflatten(1, (-1, 4))[..., 2:]
        )
        return seen + guessed


class ExpertTask(Task):
    """Trains a sync expert."""

    Config = ExpertConfig
    kept, measure, unit = "expert", "sync_accuracy", "windows"

    @staticmethod
    def architecture(config: ExpertConfig) -> tuple[str, dict]:
        if config.network == "published":
            return "expert", {}
        return "compact-expert", {"width": config.width} | ({} if config.window == 5 else {"frames": config.window})

    @staticmethod
    def card(config: ExpertConfig) -> dict:
        window = f"(B,{3 * config.window},48,96) BGR 0..1, lower halves, frame by frame"
        mel = "(B,1,80,16), from the window's first frame"
        return {"input": {"mel": mel, "mel_start_frames": 0, "window": window}, "crop": face_card()}

    def __init__(self, config: ExpertConfig, teach: Arrays, tune: Arrays, choose_from: int = 60) -> None:
        networks.set_seed(config)
        self.config, self.teach, self.tune = config, teach, tune
        self.networks = {
            "expert": networks.load_initial_weights(networks.expert(config), config),
            "temperature": Temperature(),
        }
        width = self.networks["expert"].face_encoder[-1 if config.network == "published" else -3]
        width = width.conv_block[0].out_channels if config.network == "published" else width.out_channels
        self.networks["shapes"] = Shapes(width, config.window)
        decayed = [p for p in self.networks["expert"].parameters() if p.ndim > 1]
        others = [p for n in self.networks.values() for p in n.parameters() if p.ndim <= 1]
        self.optimisers = {
            "expert": torch.optim.AdamW(
                [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], config.lr
            )
        }
        self.weights = speaker_weights(teach, {"misc": config.misc})
        self.per_step = config.speakers * config.windows
        step = max(1, len(tune.clips) // choose_from)
        self.chosen = list(range(0, len(tune.clips), step))

    def batch(self, rng: np.random.Generator, step: int) -> dict[str, np.ndarray]:
        """See sync_batches.sync_batch."""
        c = self.config
        strength = c.aug_strength * min(1.0, 0.2 + step / max(c.ramp, 1))
        return sync_batch(self.teach, rng, self.weights, c.speakers, c.windows, c.window, strength)

    def step(self, batch: dict[str, Tensor], loop: Loop) -> dict[str, float]:
        """One update."""
        c = self.config
        window = (batch["window"].float() / 255).contiguous(memory_format=torch.channels_last)
        with loop.autocast():
            audio, face = self.networks["expert"](batch["mel"], window)
        shapes = self.networks["shapes"](audio.float(), face.float(), batch["shape"])
        audio, face = (e.float().view(c.speakers, c.windows, -1) for e in (audio, face))
        loss_of = contrast if c.recipe == "contrastive" else published
        loss, right = loss_of(audio, face, batch["near"], self.networks["temperature"]())
        norm = loop.learn("expert", min(1.0, 0.03 + loop.step / max(c.ramp, 1)) * loss + c.shapes * shapes)
        return {
            "loss": float(loss.detach()),
            "sync_acc": float(right),
            "shapes": float(shapes.detach()),
            "norm": norm,
            "scale": float(self.networks["temperature"]().detach()),
        }

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Off-sync accuracy and offsets on speakers never trained on."""
        return sync_figures(lambda i: embed_clip(network, self.tune, i, self.config.window), self.chosen)


def contrast(audio: Tensor, face: Tensor, near: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric cross-entropy within each group: audio, face (G, W, D) of length 1; near (G, W, W) is left out."""
    logits = (scale * face @ audio.transpose(1, 2)).masked_fill(near, -1e4)
    target = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    loss = functional.cross_entropy(logits.transpose(1, 2), target) + functional.cross_entropy(logits, target)
    return loss / 2, (logits.argmax(2) == target).float().mean()


def published(audio: Tensor, face: Tensor, near: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """BCE on the cosine, half true pairs, half pairs with another window of the same clip (four lie side by side)."""
    width = audio.shape[1]
    other = (
        torch.arange(width, device=audio.device) // 4 * 4 + (torch.arange(width, device=audio.device) + 1) % 4
    ) % width
    true = (audio * face).sum(2)
    false = (audio[:, other] * face).sum(2)
    clear = ~near.gather(2, other.expand(len(near), -1)[:, :, None])[..., 0]
    likeness = torch.cat((true.flatten(), false[clear])).clamp(1e-6, 1 - 1e-6)
    truth = torch.cat((torch.ones_like(true.flatten()), torch.zeros_like(false[clear])))
    right = ((likeness > 0.5) == (truth > 0.5)).float().mean()
    return functional.binary_cross_entropy(likeness, truth), right
