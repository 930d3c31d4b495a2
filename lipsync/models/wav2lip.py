"""Wav2Lip (arXiv 2008.10010) and its warping form: how the networks of lipsync.networks are fed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..checkpoints.registry import Card
from ..geometry import top_half
from .base import AudioWindow, LipSyncModel

if TYPE_CHECKING:
    from torch import nn

OWN = 0.4  # weight of own colours where the references show the mouth already: beyond it, shadows below the lip
UNLIKE = 3.0  # grey levels above the mouth by which a reference loses a factor e of its weight


def to_network(crops: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Crops (B, S, S, 3) and R references (B, S, S, 3 R), uint8 RGB -> (B, 3 + 3 R, S, S) float32 BGR 0..1: crops with
    the lower half 0, then references. The published networks want BGR; nothing else here does."""
    pictures = [crops, *np.split(references, references.shape[3] // 3, axis=3)]
    both = np.concatenate([p[..., ::-1] for p in pictures], axis=3)
    both[:, both.shape[1] // 2 :, :, :3] = 0
    return np.ascontiguousarray(both.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def from_network(out: np.ndarray) -> np.ndarray:
    """(B, 3, S, S) float32 BGR 0..1 -> (B, S, S, 3) uint8 RGB."""
    return (np.clip(out, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)[..., ::-1]


class Wav2LipModel(LipSyncModel):
    """Masked face + reference face + 200 ms of mel -> face."""

    inputs = {"mel": (1, 80, 16), "face": (6, 96, 96)}
    audio = AudioWindow("mel", 16)

    def __init__(self, card: Card, engine: str = "auto") -> None:
        self.audio = AudioWindow("mel", 16, card.mel_start_frames, card.mel_start_columns)
        super().__init__(card, engine)

    @staticmethod
    def network(width: int = 16) -> nn.Module:
        from ..networks.wav2lip import Wav2Lip

        return Wav2Lip(width)

    def prepare(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> dict[str, np.ndarray]:
        return {"mel": windows[:, None], "face": to_network(crops, references)}

    def finish(self, outputs: dict[str, np.ndarray], crops: np.ndarray, references: np.ndarray) -> np.ndarray:
        return from_network(outputs["picture"])


class WarpModel(Wav2LipModel):
    """Wav2Lip's network with four references and displacements for output (networks/warp.py)."""

    inputs = {"mel": (1, 80, 16), "face": (15, 96, 96)}
    outputs = ("maps",)
    roles = ("closed", "open", "spread", "round")
    half_open = False  # it moves mouths that were open; wider, shadows burn out

    @staticmethod
    def network(width: int = 16) -> nn.Module:
        from ..networks.warp import Warp

        return Warp(width)

    def finish(self, outputs: dict[str, np.ndarray], crops: np.ndarray, references: np.ndarray) -> np.ndarray:
        each = zip(outputs["maps"], crops, references, strict=True)
        return np.stack([composed(alike(m, c, r), r) for m, c, r in each])

    def refit(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> np.ndarray:
        maps = self._engine.run(self.prepare(crops, references, windows))["maps"].copy()
        maps[:, -1] *= OWN  # `alike` brings the sum of weights to 1 again
        return self.finish({"maps": maps}, crops, references)


def alike(maps: np.ndarray, crop: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Maps (16, S, S) with less weight on references that look unlike the crop (S, S, 3) above the mouth than the most
    alike: a head that turns is not mixed from pictures of other poses, in which lips lie elsewhere."""
    count, wanted = references.shape[2] // 3, top_half(crop)
    apart = [np.abs(top_half(r) - wanted).mean() for r in np.split(references, count, axis=2)]
    weights = maps[3 + 2 * count :] * np.append(np.exp((min(apart) - apart) / UNLIKE), 1)[:, None, None]
    return np.concatenate([maps[: 3 + 2 * count], weights / weights.sum(0)]).astype(np.float32)


def composed(maps: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The picture (S, S, 3) uint8 RGB of a Warp network's maps (16, S, S) and references (S, S, 12) uint8 RGB."""
    size = maps.shape[1]
    count = references.shape[2] // 3
    colours, flow, weights = np.split(maps, (3, 3 + 2 * count))
    picture = colours[::-1].transpose(1, 2, 0) * weights[count, ..., None] * np.float32(255)
    across, down = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    for k in range(count):
        moved = cv2.remap(
            np.ascontiguousarray(references[..., 3 * k : 3 * k + 3]),
            across + size * flow[2 * k],
            down + size * flow[2 * k + 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        picture += weights[k, ..., None] * moved
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)
