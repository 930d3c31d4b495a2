"""Speech2Vid and its sharpener.

The generator: L1 on pixels, or L1 between maps of a frozen face network (content loss), or both. The sharpener is
trained apart, on blurred stills. The paper's ablations are settings: `skips`, `stills`, `transposed`, `content`.
Source: arXiv 1705.02966; protocol.md section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lipsync.faces.landmarks import INNER_LIPS
from lipsync.geometry import LandmarkRule, crop_face, to_crop
from lipsync.models.base import to_planes
from lipsync.models.lipgan import START
from lipsync.models.speech2vid import MEAN_SHAPE, SIZE_PX, Speech2VidContextModel, Speech2VidModel, covered
from lipsync.networks.face_embedding import MEAN_RGB
from lipsync.networks.sharpener import Sharpener

from .. import networks
from ..config import Config
from ..data.arrays import Arrays, draw_augmentation
from ..data.sampling import drawn_clips, speaker_weights
from ..inference import model_figures
from ..loop import Loop
from .base import Task
from .listening import Draws, ListeningConfig, MouthShape
from .wav2lip import mouth_weight, weighted_l1

RULE = LandmarkRule(MEAN_SHAPE)
CROP = {
    "landmarks": [list(place) for place in MEAN_SHAPE],
    "points": "eye corners, base and tip of the nose, brought onto these places (u, v in 0..1) by a similarity",
    "size_px": SIZE_PX,
    "resize": "bilinear after a box blur where the scale is 2 or more; edges replicated",
}


@dataclass(frozen=True)
class Speech2VidConfig(ListeningConfig):
    """Of a Speech2Vid generator."""

    task: str = "speech2vid"
    lr: float = 5e-4
    aug_strength: float = 0.4
    width: int = 20  # 64 is ours for the published sizes
    batch: int = 24  # faces, each of another clip
    context: bool = False  # the context variant
    stills: int = 5  # or 1
    skips: bool = True
    transposed: bool = False  # transposed convolution in place of bilinear upsampling
    pixels: float = 1.0  # weight of the L1 on pixels
    content: float = 0.1  # weight of the content loss; 0: none

    choices: ClassVar = {"stills": (1, 5)}

    @property
    def model(self) -> type[Speech2VidModel]:
        """The model class."""
        return Speech2VidContextModel if self.context else Speech2VidModel


class Content(nn.Module):
    """L1 between a frozen face network's maps of two batches of faces (B, 3, 112, 112) RGB 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.face = networks.trained_face_embedding().requires_grad_(False)

    def maps(self, faces: Tensor) -> list[Tensor]:
        x = functional.relu(self.face.conv((255 * faces - faces.new_tensor(MEAN_RGB).view(1, 3, 1, 1)) / 256))
        found = [x]
        x = functional.max_pool2d(x, 3, 2)
        for k, block in enumerate(self.face.blocks):
            x = block(x)
            if k in (2, 6, 9):
                found.append(x)
        return found

    def forward(self, made: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            truth = self.maps(target)
        return torch.stack(
            [(a - b).abs().mean() / b.abs().mean().clamp(min=1e-4) for a, b in zip(self.maps(made), truth, strict=True)]
        ).mean()


class Speech2VidTask(Task):
    """Trains a generator."""

    Config = Speech2VidConfig
    kept, measure, unit = "generator", "choice", "faces"

    @staticmethod
    def architecture(config: Speech2VidConfig) -> tuple[str, dict]:
        dimensions = {
            "width": config.width,
            "stills": config.stills,
            "skips": config.skips,
            "transposed": config.transposed,
        }
        return "speech2vid-context" if config.context else "speech2vid", dimensions

    @staticmethod
    def card(config: Speech2VidConfig) -> dict:
        seen = {
            "mfcc": f"(B,1,12,35), protocol.md section 1; the first column lies {START:g} columns from the frame",
            "stills": f"(B,{3 * config.stills},112,112) RGB 0..1, the speaker at rest, aligned by landmarks",
        }
        if config.context:
            seen["context"] = "(B,3,112,112) RGB 0..1, the frame with its mouth covered"
        return {"input": seen, "crop": CROP}

    def __init__(self, config: Speech2VidConfig, teach: Arrays, tune: Arrays) -> None:
        networks.set_seed(config)
        self.config, self.teach, self.tune = config, teach, tune
        network = config.model.network(**self.architecture(config)[1])
        self.networks = {
            "generator": networks.load_initial_weights(network, config),
            "shape": MouthShape(4 * config.width),
        }
        learning = [p for n in self.networks.values() for p in n.parameters()]
        self.optimisers = {"generator": torch.optim.Adam(learning, config.lr)}
        self.content = Content() if config.content else None
        self.expert = networks.trained_expert(config.expert) if config.expert else None
        self.draws = Draws(teach, config)
        self.per_step = config.batch

    def batch(self, rng: np.random.Generator, step: int) -> dict[str, np.ndarray]:
        """target (B, 3, 112, 112), stills (B, 3 N, 112, 112) uint8 RGB; mfcc (B, 1, 12, 35) float32; mouth (B, 2)
        float32, its place in the target, pixels; and Draws.sounds."""
        parts: dict[str, list] = {k: [] for k in ("target", "stills", "mfcc", "mouth")}
        for i, at in self.draws.frames(rng, self.config.batch):
            picked = [at, *self.draws.others(rng, i, [at], self.config.stills)]
            faces, mouth = aligned(self.teach, i, picked, rng, self.config.aug_strength)
            parts["target"].append(faces[0])
            parts["stills"].append(np.concatenate(faces[1:], axis=2))
            parts["mfcc"].append(self.draws.mfcc(rng, i, [at])[0])
            parts["mouth"].append(mouth)
        pictures = {k: np.stack(parts[k]) for k in ("target", "stills")}
        if self.config.context:
            pictures["context"] = covered(pictures["target"])
        planes = {k: np.ascontiguousarray(v.transpose(0, 3, 1, 2)) for k, v in pictures.items()}
        return planes | {k: np.stack(parts[k]) for k in ("mfcc", "mouth")} | self.draws.sounds(rng)

    def step(self, batch: dict[str, Tensor], loop: Loop) -> dict[str, float]:
        c, generator = self.config, self.networks["generator"]
        seen = [batch[k].float() / 255 for k in ("stills", "context") if k in batch]
        target = batch["target"].float() / 255
        with loop.autocast():
            made = generator(batch["mfcc"], *seen).float()
        weight = mouth_weight(batch["mouth"], c.mouth, SIZE_PX, above=1.0)
        l1 = weighted_l1(made, target, weight)
        loss, numbers = c.pixels * l1, {"l1": float(l1.detach())}
        if self.content is not None:
            content = self.content.to(made.device)(made, target)
            loss = loss + c.content * content
            numbers["content"] = float(content.detach())
        if "heard" in batch:
            with loop.autocast():
                shape = self.networks["shape"](generator.audio, batch)
            loss = loss + c.shapes * shape
            numbers["shape"] = float(shape.detach())
        return numbers | {"norm": loop.learn("generator", loss)}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Likeness to the truth, and what the sync expert says under a foreign voice, in the stored frames."""
        n = len(self.tune.clips)
        model = self.config.model.around(network, RULE)
        model.roles = ("still",) * self.config.stills
        figures = model_figures(model, self.expert, self.tune, range(0, n, -(-n // 12)))
        return figures | {"choice": figures["psnr"] + 10 * figures.get("sync_accuracy", 0.0)}


@dataclass(frozen=True)
class SharpenerConfig(Config):
    """Of a sharpener."""

    task: str = "sharpener"
    lr: float = 5e-4
    steps: int = 1500
    width: int = 24  # 64 as published
    depth: int = 8  # 20 as published
    batch: int = 24
    blur: float = 2.0  # largest sigma, pixels of 112

    at_least_1: ClassVar = (*Config.at_least_1, "batch")


class SharpenerTask(Task):
    """Trains a residual network to undo blur."""

    Config = SharpenerConfig
    kept, measure, unit = "sharpener", "gain_db", "faces"

    @staticmethod
    def architecture(config: SharpenerConfig) -> tuple[str, dict]:
        return "sharpener", {"width": config.width, "depth": config.depth}

    @staticmethod
    def card(config: SharpenerConfig) -> dict:
        return {"input": {"picture": "(B,3,112,112) RGB 0..1, blurred"}, "crop": CROP}

    def __init__(self, config: SharpenerConfig, teach: Arrays, tune: Arrays) -> None:
        networks.set_seed(config)
        self.config, self.teach, self.tune = config, teach, tune
        network = networks.load_initial_weights(Sharpener(config.width, config.depth), config)
        self.networks = {"sharpener": network}
        self.optimisers = {"sharpener": torch.optim.Adam(network.parameters(), config.lr)}
        self.weights = speaker_weights(teach, {"misc": config.misc})
        self.per_step = config.batch

    def batch(self, rng: np.random.Generator, step: int) -> dict[str, np.ndarray]:
        """sharp, blurred (B, 3, 112, 112) uint8 RGB."""
        faces = []
        for i in drawn_clips(self.teach, self.weights, self.config.batch, rng):
            at = int(rng.integers(self.teach.clips[i].frames))
            faces.append(aligned(self.teach, i, [at], rng, self.config.aug_strength)[0][0])
        soft = [_blurred(f, rng.uniform(0.5, self.config.blur)) for f in faces]
        return {
            k: np.ascontiguousarray(np.stack(v).transpose(0, 3, 1, 2)) for k, v in (("sharp", faces), ("blurred", soft))
        }

    def step(self, batch: dict[str, Tensor], loop: Loop) -> dict[str, float]:
        with loop.autocast():
            made = self.networks["sharpener"](batch["blurred"].float() / 255).float()
        l1 = (made - batch["sharp"].float() / 255).abs().mean()
        return {"l1": float(l1.detach()), "norm": loop.learn("sharpener", l1)}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """How much nearer to the truth a still blurred by sigma 1 and 1.5 comes, dB."""
        gains, device = [], next(network.parameters()).device
        for i in range(0, len(self.tune.clips), max(1, len(self.tune.clips) // 24)):
            (face,), _ = aligned(self.tune, i, [0])
            for sigma in (1.0, 1.5):
                soft, truth = (to_planes(f[None]) for f in (_blurred(face, sigma), face))
                made = network(torch.from_numpy(soft).to(device)).cpu().numpy()
                errors = [float(((x - truth) ** 2).mean()) for x in (soft, made)]
                gains.append(10 * np.log10(max(errors[0], 1e-9) / max(errors[1], 1e-9)))
        return {"gain_db": float(np.mean(gains))}


def aligned(
    arrays: Arrays, i: int, frames: list[int], rng: np.random.Generator | None = None, strength: float = 0.0
) -> tuple[list[np.ndarray], np.ndarray]:
    """Faces (112, 112, 3) uint8 RGB of some frames of clip i, aligned by landmarks, and the place (2,) float32 of the
    first one's mouth, pixels; with a generator of random numbers mirrored and recoloured alike."""
    pictures, points = arrays.frames(i), arrays.landmarks(i)
    places = [RULE.alignment(None, points[t]) for t in frames]
    faces = [crop_face(pictures[t], place, SIZE_PX) for t, place in zip(frames, places, strict=True)]
    mouth = to_crop(points[frames[0], INNER_LIPS].mean(0), places[0], SIZE_PX) - 0.5
    if rng is not None:
        augment, mirrored = draw_augmentation(rng, strength, patches=False, degrade=False), rng.random() < 0.5
        faces = [augment.coloured(np.ascontiguousarray(f[:, ::-1]) if mirrored else f, rng) for f in faces]
        mouth[0] = SIZE_PX - 1 - mouth[0] if mirrored else mouth[0]
    return faces, mouth.astype(np.float32)


def _blurred(face: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(face, (0, 0), sigma)
