"""What teaches LipGAN and Speech2Vid, which learn from single frames, at a small scale beside their papers' losses.

Within some ten thousand faces L1 on pixels tells an audio encoder next to nothing. So open mouths are drawn more often,
the mouth counts for more, and the audio encoder is asked, of windows of sound alone, how far the mouth is open and how
wide it is; forty of them cost what six to nine faces do. `opening=0 mouth=0 heard=0` is as published.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from lipsync.models.lipgan import COLUMNS, START

from ..config import Config, TrainingError
from ..data.arrays import Arrays, feature_window
from ..data.sampling import mouth_shape, speaker_weights
from ..inference import lip_gaps

FAR = 6  # frames from a target to what the generator is shown of the speaker
SIDE_BY_SIDE = 8  # windows of sound that are taken from one clip
EQUALISER = 4.0  # standard deviation of a coefficient's shift; a microphone and a room are constants in a cepstrum


@dataclass(frozen=True)
class ListeningConfig(Config):
    """Of a generator that learns from single frames and their MFCC."""

    batch: int = 32  # faces, each of another clip
    expert: str = "expert-lab"  # asked in validation alone: does the mouth fit a foreign voice?
    mouth: float = 2.0  # how much more a pixel of the mouth counts than one of the cheek
    opening: float = 2.0  # how much more often an open mouth is drawn: most frames are nearly closed
    heard: int = 40  # windows of sound alone, of which the audio encoder says the mouth's shape; 0: none
    shapes: float = 0.1  # weight of that question

    at_least_1: ClassVar = (*Config.at_least_1, "batch")

    def check(self) -> None:
        super().check()
        if self.heard % SIDE_BY_SIDE:
            raise TrainingError(
                f"heard is a multiple of {SIDE_BY_SIDE}, not {self.heard}: so many are drawn from one clip."
            )


class MouthShape(nn.Module):
    """Lip gap and mouth width against the clip's mean, from an audio encoder's embedding. Used in training alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_sound = nn.Linear(width, 2)

    def forward(self, encoder: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Smooth L1 of what an audio encoder says of `Draws.sounds` in a batch."""
        return functional.smooth_l1_loss(self.of_sound(encoder(batch["heard"]).flatten(1)).float(), batch["shape"])


class Draws:
    """Frames and sounds of a split, drawn by speaker."""

    def __init__(self, arrays: Arrays, config: ListeningConfig) -> None:
        self.arrays, self.config = arrays, config
        self.names, self.shares = speaker_weights(arrays, {"misc": config.misc})
        self._gaps = cache(lambda i: lip_gaps(arrays, i))
        self._shapes = cache(lambda i: mouth_shape(arrays.landmarks(i))[:, 2:].astype(np.float32))

    def frames(self, rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
        """Clip and frame of each of `count` targets, open mouths more often."""
        out = []
        for i in self._clips(rng, count):
            gaps = self._gaps(i)
            often = 1 + self.config.opening * gaps / max(gaps.mean(), 1e-6)
            out.append((i, int(rng.choice(len(gaps), p=often / often.sum()))))
        return out

    def others(self, rng: np.random.Generator, i: int, at: list[int], count: int) -> list[int]:
        """`count` frames of clip i, `FAR` or more from all frames `at` where there are such."""
        frames = np.arange(self.arrays.clips[i].frames)
        away = np.abs(frames[:, None] - np.array(at)).min(1)
        far = frames[away >= FAR] if (away >= FAR).any() else frames[away > 0]
        return rng.choice(far, count, replace=len(far) < count).tolist()

    def mfcc(self, rng: np.random.Generator, i: int, frames: list[int]) -> np.ndarray:
        """(N, 1, 12, 35) float32: what frames of clip i hear, under one microphone."""
        rows, clip = self.arrays.feature(i, "mfcc12"), self.arrays.clips[i]
        rows = rows + rng.normal(0, EQUALISER * self.config.aug_strength, rows.shape[1]).astype(np.float32)
        return np.stack([feature_window(rows, "mfcc12", clip, t, COLUMNS, START) for t in frames])[:, None]

    def sounds(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`heard` windows of sound (K, 1, 12, 35) and the shape (K, 2) of the mouth that made each; none: no keys."""
        heard, shapes = [], []
        for i in self._clips(rng, self.config.heard // SIDE_BY_SIDE):
            frames = rng.integers(0, self.arrays.clips[i].frames, SIDE_BY_SIDE).tolist()
            heard.append(self.mfcc(rng, i, frames))
            shapes.append(self._shapes(i)[frames])
        return {"heard": np.concatenate(heard), "shape": np.concatenate(shapes)} if heard else {}

    def _clips(self, rng: np.random.Generator, count: int) -> list[int]:
        return [
            int(rng.choice(self.arrays.speakers[self.names[s]]))
            for s in rng.choice(len(self.names), count, p=self.shares)
        ]
