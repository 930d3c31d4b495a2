"""LipGAN: the generator and its single-frame contrastive discriminator, trained together.

Loss of the generator: L1 and a hundredth of the contrastive loss, wanted in sync; beside them what `listening` adds.
The discriminator sees real pairs as true and, by a coin, made faces or real faces under another clip's sound as false.
Source: protocol.md section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lipsync.faces.landmarks import INNER_LIPS
from lipsync.models.lipgan import START, Discriminator, LipGANModel

from .. import networks
from ..config import TrainingError
from ..data.arrays import Arrays, draw_augmentation
from ..data.shards import face_card
from ..inference import model_figures
from ..loop import Loop
from .base import Task
from .listening import Draws, ListeningConfig, MouthShape
from .wav2lip import bgr_planes, mouth_weight, weighted_l1

ROLLED = 10  # places in the batch by which a wrong sound is taken from


@dataclass(frozen=True)
class LipGANConfig(ListeningConfig):
    """Of a LipGAN generator."""

    task: str = "lipgan"
    lr: float = 3e-4
    aug_strength: float = 0.4
    width: int = 8  # 32 is the published one
    adversary: float = 0.01  # weight of the contrastive loss in the generator's
    moves: float = 0.0  # weight of the L1 between the made and the true change from frame to frame of a clip

    def check(self) -> None:
        super().check()
        if self.moves and self.batch % 2:
            raise TrainingError(
                f"batch is even where moves is not 0, not {self.batch}: two frames come from each clip."
            )


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
        self.networks = {
            "generator": generator,
            "discriminator": Discriminator(config.width),
            "shape": MouthShape(16 * config.width),
        }
        learners = {"generator": ("generator", "shape"), "discriminator": ("discriminator",)}
        self.optimisers = {
            name: torch.optim.Adam([p for n in of for p in self.networks[n].parameters()], config.lr)
            for name, of in learners.items()
        }
        self.expert = networks.trained_expert(config.expert) if config.expert else None
        self.draws = Draws(teach, config)
        self.per_step = config.batch

    def batch(self, rng: np.random.Generator, step: int) -> dict[str, np.ndarray]:
        """target, reference (B, 3, 96, 96) uint8 BGR; mfcc (B, 1, 12, 35) float32; mouth (B, 2) float32, its place in
        the crop, pixels; coin (1,) 0 or 1; and Draws.sounds."""
        parts: dict[str, list] = {k: [] for k in ("target", "reference", "mfcc", "mouth")}
        together = 2 if self.config.moves else 1  # frames of one clip, side by side
        for i, at in self.draws.frames(rng, self.config.batch // together):
            pictures, times = self.teach.frames(i), [at, *self.draws.others(rng, i, [at], together - 1)]
            (reference,) = self.draws.others(rng, i, times, 1)
            augment = draw_augmentation(rng, self.config.aug_strength, patches=False, degrade=False)
            seen = bgr_planes(augment(pictures[reference], rng))
            for t in times:
                parts["target"].append(bgr_planes(augment(pictures[t], rng)))
                parts["reference"].append(seen)
                parts["mouth"].append(augment.place(self.teach.landmarks(i)[t, INNER_LIPS].mean(0)).astype(np.float32))
            parts["mfcc"] += list(self.draws.mfcc(rng, i, times))
        return {k: np.stack(v) for k, v in parts.items()} | {"coin": rng.integers(0, 2, 1)} | self.draws.sounds(rng)

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
        weight = mouth_weight(batch["mouth"], c.mouth, above=0.1 if c.mouth else 1.0)
        l1 = weighted_l1(made, target, weight)
        loss, numbers = l1 + c.adversary * g_adv, {"l1": float(l1.detach()), "g_adv": float(g_adv.detach())}
        if c.moves:  # what is always wrong with a face cancels; what is left is what its sound says
            moves = weighted_l1(made[::2] - made[1::2], target[::2] - target[1::2], weight[::2])
            loss = loss + c.moves * moves
            numbers["moves"] = float(moves.detach())
        if "heard" in batch:
            with loop.autocast():
                shape = self.networks["shape"](generator.audio_encoder, batch)
            loss = loss + c.shapes * shape
            numbers["shape"] = float(shape.detach())
        numbers["norm"] = loop.learn("generator", loss)
        discriminator.requires_grad_(True)
        rolled = batch["mfcc"].roll(ROLLED, 0)
        with loop.autocast():
            true = discriminator(batch["mfcc"], target)
            false = discriminator(batch["mfcc"], made.detach()) if int(batch["coin"]) else discriminator(rolled, target)
        d_loss = (contrastive(true, 0) + contrastive(false, 1)) / 2
        loop.learn("discriminator", d_loss)
        return numbers | {"d_loss": float(d_loss.detach()), "d_acc": float((true < false).float().mean())}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Likeness of the lower half to the truth, and what the sync expert says under a foreign voice."""
        n = len(self.tune.clips)
        model = LipGANModel.around(network)
        figures = model_figures(model, self.expert, self.tune, range(0, n, -(-n // 16)))
        return figures | {"choice": figures["psnr"] + 10 * figures.get("sync_accuracy", 0.0)}


def contrastive(distance: Tensor, off_sync: int) -> Tensor:
    """`(1 - y) d^2 + y max(0, 1 - d)^2`, the mean over a batch (B,); y = 1 for pairs that do not belong together."""
    return ((1 - distance).clamp(min=0) ** 2 if off_sync else distance**2).mean()
