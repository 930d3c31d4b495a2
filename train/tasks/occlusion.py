"""The network that finds what lies before a face: faces with something drawn before them, and as many without."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lipsync.models.base import to_planes
from lipsync.networks.occlusion import CELLS, OcclusionNet

from .. import networks
from ..config import Config
from ..data.arrays import FACE_PX, Arrays, draw_augmentation, no_augmentation
from ..data.occluders import covered_face, recorded
from ..data.sampling import drawn_clips, speaker_weights
from ..data.shards import face_card
from ..loop import Loop
from .base import Task

FREE = 0.4  # share of faces with nothing before them
CHECKED = 200  # faces of a validation, with and without


@dataclass(frozen=True)
class OcclusionConfig(Config):
    """Of the occlusion network."""

    task: str = "occlusion"
    lr: float = 2e-3
    width: int = 16
    batch: int = 32


class OcclusionTask(Task):
    """Binary cross-entropy on the share of each cell that is covered."""

    Config = OcclusionConfig
    kept, measure, unit = "occlusion", "iou_less_false_alarms", "faces"

    @staticmethod
    def architecture(config: OcclusionConfig) -> tuple[str, dict]:
        return "occlusion", {"width": config.width}

    @staticmethod
    def card(config: OcclusionConfig) -> dict:
        return {"input": {"face": "(B,3,96,96) RGB 0..1"}, "crop": face_card()}

    def __init__(self, config: OcclusionConfig, teach: Arrays, tune: Arrays) -> None:
        networks.set_seed(config)
        self.config, self.teach, self.tune = config, teach, tune
        network = networks.load_initial_weights(OcclusionNet(config.width), config)
        self.networks = {"occlusion": network}
        self.optimisers = {"occlusion": torch.optim.Adam(network.parameters(), config.lr)}
        self.weights = speaker_weights(teach, {"misc": 1.0})
        self.per_step = config.batch

    def batch(self, rng: np.random.Generator, step: int) -> dict[str, np.ndarray]:
        """face (B, 96, 96, 3) uint8 RGB; covered (B, 1, 48, 48) float32, share of each cell."""
        clips = drawn_clips(self.teach, self.weights, 2 * self.config.batch, rng)
        faces, covers = [], []
        for i, j in zip(clips[::2], clips[1::2], strict=True):
            frames, others = self.teach.frames(i), self.teach.frames(j)
            look = draw_augmentation(rng, self.config.aug_strength, patches=False)
            face = look(frames[rng.integers(len(frames))], rng)
            cover = np.zeros((FACE_PX, FACE_PX), np.float32)
            if rng.random() >= FREE:
                face, cover = covered_face(rng, face, others[rng.integers(len(others))])
            faces.append(recorded(rng, face))
            covers.append(_cells(cover))
        return {"face": np.stack(faces), "covered": np.stack(covers)[:, None]}

    def step(self, batch: dict[str, Tensor], loop: Loop) -> dict[str, float]:
        face = batch["face"].permute(0, 3, 1, 2).float() / 255
        with loop.autocast():
            logits = self.networks["occlusion"](face)
        loss = functional.binary_cross_entropy_with_logits(logits.float(), batch["covered"])
        return {"bce": float(loss.detach()), "norm": loop.learn("occlusion", loss)}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Overlap of what is found with what was drawn, and the share of bare faces' cells that are called covered."""
        device, rng = next(network.parameters()).device, np.random.default_rng(0)
        bare, plain = [], no_augmentation()
        for i in np.linspace(0, len(self.tune.clips) - 1, CHECKED).round().astype(int):
            frames = self.tune.frames(int(i))
            bare.append(plain(frames[rng.integers(len(frames))]))
        made = [covered_face(rng, face, self.tune.frames(0)[0]) for face in bare]
        truth = np.stack([_cells(cover) for _, cover in made]) > 0.5
        with torch.no_grad():
            found, alarms = (
                network(torch.from_numpy(to_planes(np.stack(faces))).to(device)).cpu().numpy()[:, 0] > 0.5
                for faces in ([recorded(rng, face) for face, _ in made], bare)
            )
        iou = float((found & truth).sum() / max((found | truth).sum(), 1))
        return {
            "iou": iou,
            "false_alarms": float(alarms.mean()),
            "faces_alarmed": float((alarms.mean((1, 2)) > 0.005).mean()),
            "iou_less_false_alarms": iou - 10 * float(alarms.mean()),
        }


def _cells(cover: np.ndarray) -> np.ndarray:
    return cv2.resize(cover, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
