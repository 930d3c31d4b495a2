"""LipGAN: the generator and its single-frame contrastive discriminator, trained together.

Loss of the generator: L1 and a hundredth of the contrastive loss, wanted in sync. The discriminator sees real pairs as
true and, by a coin, made faces or real faces under another clip's sound as false. Source: protocol.md section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lipsync.models.lipgan import COLUMNS, START, Discriminator, LipGANModel

from .. import networks
from ..config import Config
from ..data.arrays import Arrays, draw_augmentation, feature_window
from ..data.sampling import speaker_weights
from ..data.shards import face_card
from ..inference import model_figures
from ..loop import Loop
from .base import Task

FAR = 6  # frames from a target to its reference
ROLLED = 10  # places in the batch by which a wrong sound is taken from


@dataclass(frozen=True)
class LipGANConfig(Config):
    """Of a LipGAN generator."""

    task: str = "lipgan"
    lr: float = 3e-4
    aug_strength: float = 0.4
    width: int = 8  # 32 is the published one
    batch: int = 32  # faces, each of another clip; 96 as published
    adversary: float = 0.01  # weight of the contrastive loss in the generator's
    expert: str = "expert-lab"  # asked in validation alone: does the mouth fit a foreign voice?

    at_least_1: ClassVar = (*Config.at_least_1, "batch")


class LipGANTask(Task):
    """Trains a generator and its discriminator."""

    Config = LipGANConfig
    kept, measure, unit = "generator", "choice", "faces"

    @staticmethod
    def architecture(config: LipGANConfig) -> tuple[str, dict]:
        return "lipgan", {"width": config.width}

    @staticmethod
    def card(config: LipGANConfig) -> dict:
        return {
            "input": {
                "mfcc": f"(B,1,12,35), protocol.md section 1; the first column lies {START:g} columns from the frame",
                "face": "(B,6,96,96) BGR 0..1, reference first, then the target with rows 48.. = 0",
            },
            "crop": face_card(),
        }

    def __init__(self, config: LipGANConfig, teach: Arrays, tune: Arrays) -> None:
        networks.set_seed(config)
        self.config, self.teach, self.tune = config, teach, tune
        generator = networks.load_initial_weights(LipGANModel.network(config.width), config)
        self.networks = {"generator": generator, "discriminator": Discriminator(config.width)}
        self.optimisers = {k: torch.optim.Adam(n.parameters(), config.lr) for k, n in self.networks.items()}
        self.expert = networks.trained_expert(config.expert) if config.expert else None
        self.weights = speaker_weights(teach, {"misc": config.misc})
        self.per_step = config.batch

    def batch(self, rng: np.random.Generator, step: int) -> dict[str, np.ndarray]:
        """target, reference (B, 3, 96, 96) uint8 BGR; mfcc (B, 1, 12, 35) float32; coin (1,) 0 or 1."""
        names, shares = self.weights
        parts: dict[str, list] = {k: [] for k in ("target", "reference", "mfcc")}
        for s in rng.choice(len(names), self.config.batch, p=shares):
            i = int(rng.choice(self.teach.speakers[names[s]]))
            clip, pictures = self.teach.clips[i], self.teach.frames(i)
            at = int(rng.integers(clip.frames))
            far = np.flatnonzero(np.abs(np.arange(clip.frames) - at) >= FAR)
            reference = int(rng.choice(far if len(far) else np.arange(clip.frames)))
            augment = draw_augmentation(rng, self.config.aug_strength, patches=False, degrade=False)
            for name, k in (("target", at), ("reference", reference)):
                parts[name].append(np.ascontiguousarray(augment(pictures[k], rng)[..., ::-1].transpose(2, 0, 1)))
            rows = self.teach.feature(i, "mfcc12")
            parts["mfcc"].append(feature_window(rows, "mfcc12", clip, at, COLUMNS, START)[None])
        return {k: np.stack(v) for k, v in parts.items()} | {"coin": rng.integers(0, 2, 1)}

    def step(self, batch: dict[str, Tensor], loop: Loop) -> dict[str, float]:
        c, generator, discriminator = self.config, self.networks["generator"], self.networks["discriminator"]
        target, reference = batch["target"].float() / 255, batch["reference"].float() / 255
        masked = target.clone()
        masked[:, :, masked.shape[2] // 2 :] = 0
        face = torch.cat((reference, masked), 1).contiguous(memory_format=torch.channels_last)
        with loop.autocast():
            made = generator(batch["mfcc"], face).float()
            discriminator.requires_grad_(False)
            g_adv = (discriminator(batch["mfcc"], made) ** 2).mean()
        l1 = (made - target).abs().mean()
        norm = loop.learn("generator", l1 + c.adversary * g_adv)
        discriminator.requires_grad_(True)
        rolled = batch["mfcc"].roll(ROLLED, 0)
        with loop.autocast():
            true = discriminator(batch["mfcc"], target)
            false = discriminator(batch["mfcc"], made.detach()) if int(batch["coin"]) else discriminator(rolled, target)
        d_loss = (contrastive(true, 0) + contrastive(false, 1)) / 2
        loop.learn("discriminator", d_loss)
        return {
            "l1": float(l1.detach()),
            "g_adv": float(g_adv.detach()),
            "d_loss": float(d_loss.detach()),
            "d_acc": float((true < false).float().mean()),
            "norm": norm,
        }

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Likeness of the lower half to the truth, and what the sync expert says under a foreign voice."""
        n = len(self.tune.clips)
        model = LipGANModel.around(network)
        figures = model_figures(model, self.expert, self.tune, range(0, n, -(-n // 16)))
        return figures | {"choice": figures["psnr"] + 10 * figures.get("sync_accuracy", 0.0)}


def contrastive(distance: Tensor, off_sync: int) -> Tensor:
    """`(1 - y) d^2 + y max(0, 1 - d)^2`, the mean over a batch (B,); y = 1 for pairs that do not belong together."""
    return ((1 - distance).clamp(min=0) ** 2 if off_sync else distance**2).mean()
