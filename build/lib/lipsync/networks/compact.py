"""An expert and a discriminator for small machines: an eighth of the published ones' arithmetic, for the same use.

Ours. The published expert's face encoder works at full size on few channels, which is slow on processors; this one
first folds 2 x 2 pixels into channels and leaves out a sixth of the width on both sides. Inputs, methods and the range
of the cosine are those of `wav2lip.Expert`.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .wav2lip import LOWER_HALF, Conv, _audio_encoder, _stage


class CompactExpert(nn.Module):
    """Embeds 200 ms of sound and lower half faces; their cosine, 0..1, says "in sync".

    base    width: 8 gives 2.8 M parameters and embeddings of 256
    frames  faces in a window
    """

    def __init__(self, base: int = 8, frames: int = 5) -> None:
        super().__init__()
        c = base
        self.face_encoder = nn.Sequential(
            nn.PixelUnshuffle(2),  # 24 x 32
            *_stage(Conv(12 * frames, 6 * c, 3), 6 * c, 1),
            *_stage(Conv(6 * c, 12 * c, 3, stride=2), 12 * c, 2),
            *_stage(Conv(12 * c, 20 * c, 3, stride=2), 20 * c, 2),
            *_stage(Conv(20 * c, 28 * c, 3, stride=2), 28 * c, 1),  # 3 x 4
            nn.Conv2d(28 * c, 32 * c, (3, 4)),
            nn.BatchNorm2d(32 * c),
            nn.ReLU(),
        )
        self.audio_encoder = _audio_encoder(c, last_repeats=2)

    def audio(self, mel: Tensor) -> Tensor:
        """Embed sound: (B, 1, 80, 16) float32 -4..4, from the window's first frame on -> (B, 32 base), length 1."""
        return functional.normalize(self.audio_encoder(mel).flatten(1).float())

    def face(self, window: Tensor) -> Tensor:
        """Embed mouths: (B, 3 frames, 48, 96) float32, BGR, 0..1, frame by frame -> (B, 32 base), length 1."""
        return functional.normalize(self.face_encoder(window[..., 16:80]).flatten(1).float())

    def forward(self, mel: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both (see `audio` and `face`)."""
        return self.audio(mel), self.face(window)


def expert_of_1(base: int = 8) -> CompactExpert:
    """A compact expert of one face."""
    return CompactExpert(base, 1)


def expert_of_3(base: int = 8) -> CompactExpert:
    """A compact expert of three faces."""
    return CompactExpert(base, 3)


class CompactQuality(nn.Module):
    """Which parts of this lower half are real, and do they fit the sound? A discriminator, used in training alone.

    The published one, fifteen layers without normalisation, is still at ln 2 when this one tells nine pairs in ten
    apart (docs/log.md). Its answers are those of 18 patches (arXiv 1611.07004); the sound joins by projection
    (arXiv 1802.05637), from nothing on, so that it first learns what a face looks like.

    base   width: 8 gives 0.5 M parameters
    sound  length of the sound's embedding; 0: it hears nothing
    """

    def __init__(self, base: int = 8, sound: int = 0) -> None:
        super().__init__()
        c = 4 * base
        widths = pairwise((3, c, 2 * c, 4 * c, 8 * c))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(i, o, kernel, 2, 1), nn.GroupNorm(8, o) if i > 3 else nn.Identity(), nn.LeakyReLU(0.2)
            )
            for (i, o), kernel in zip(widths, (4, 4, 4, 3), strict=True)
        )
        self.answer = nn.Conv2d(8 * c, 1, 1)
        self.place = nn.Parameter(torch.zeros(1, 8 * c, 3, 6)) if sound else None
        self.ear = nn.Linear(sound, 8 * c) if sound else None
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.2)
                nn.init.zeros_(layer.bias)
        if sound:
            nn.init.zeros_(self.ear.weight)
            nn.init.zeros_(self.ear.bias)

    def forward(self, faces: Tensor, said: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """Judge faces (B, 3, 96, 96), BGR, 0..1, and with an ear whether they say `said` (B, D), of length 1.

        returns  the maps of its blocks; answers (B, 18), above 0 for real
        """
        maps, x = [], faces[:, :, LOWER_HALF:] * 2 - 1
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps, self.judge(x, said)

    def judge(self, seen: Tensor, said: Tensor | None = None) -> Tensor:
        """Answers (B, 18) from the last block's maps: the same faces asked about another sound."""
        with torch.autocast(seen.device.type, enabled=False):
            seen = seen.float()
            answers = self.answer(seen)[:, 0]
            if self.ear is not None:
                wanted = self.ear(said * said.shape[1] ** 0.5)[:, :, None, None]
                answers = answers + (seen * (1 + self.place) * wanted).sum(1) / seen.shape[1] ** 0.5
        return answers.flatten(1)
