"""A network that finds what lies before a face: hands, microphones, cups, captions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .wav2lip import Conv

CELLS = 48  # side of its map: an occluder's edge is known to two pixels of the crop, which a soft mask needs no finer


class OcclusionNet(nn.Module):
    """A small U-Net (Ronneberger et al., arXiv 1505.04597): faces (B, 3, 96, 96) RGB 0..1 -> (B, 1, 48, 48), the
    probability that something lies before the face there; in training its logit."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = (width, 2 * width, 3 * width, 4 * width)
        self.stem = nn.Sequential(Conv(3, width, 5, 2), Conv(width, width, 3, residual=True))
        self.down = nn.ModuleList(
            nn.Sequential(Conv(a, b, 3, 2), Conv(b, b, 3, residual=True))
            for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.up = nn.ModuleList(
            nn.Sequential(Conv(a + b, a, 3), Conv(a, a, 3, residual=True))
            for a, b in zip(reversed(sizes[:-1]), reversed(sizes[1:]), strict=True)
        )
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, face: Tensor) -> Tensor:
        x = self.stem(face - 0.5)
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(x)
        for block in self.up:
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat((x, skips.pop()), 1))
        logits = self.head(x).float()
        return logits if self.training else torch.sigmoid(logits)
