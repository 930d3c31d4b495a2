"""A generator that moves the speaker's own pixels: Wav2Lip's network with four reference pictures and flows for output.

For every pixel and each reference it gives a displacement and a weight, and colours of its own for what no reference
shows. The picture, the weighted sum of the displaced references and those colours, is composed outside
(`compose`; lipsync.models does the same in numpy), so that displacements pass through no reduced precision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .wav2lip import Conv, Wav2Lip

REFERENCES = 4
FARTHEST = 0.125  # of the crop's width: how far a pixel can come from


class Warp(Wav2Lip):
    """Masked face, four references (B, 15, 96, 96) BGR 0..1 and sound (B, 1, 80, 16) -> maps (B, 16, 96, 96).

    Maps: own colours BGR 0..1 (3), displacements x y of each reference in crop widths (8), weights of the references
    and of the own colours (5), which add up to 1.
    """

    def __init__(self, base: int = 16) -> None:
        super().__init__(base)
        self.face_encoder_blocks[0][0] = Conv(3 + 3 * REFERENCES, base, 7)
        self.output_block = nn.Sequential(
            Conv(5 * base, 4 * base, 3), nn.Conv2d(4 * base, 3 + 2 * REFERENCES + REFERENCES + 1, 1)
        )

    def forward(self, mel: Tensor, face: Tensor) -> Tensor:
        skips = []
        for block in self.face_encoder_blocks:
            face = block(face)
            skips.append(face)
        x = self.audio_encoder(mel)
        for block in self.face_decoder_blocks:
            x = torch.cat((block(x), skips.pop()), dim=1)
        colours, flow, weights = self.output_block(x).float().split((3, 2 * REFERENCES, REFERENCES + 1), 1)
        flow = FARTHEST * torch.tanh(flow / 2)
        flow = functional.avg_pool2d(functional.pad(flow, (2, 2, 2, 2), mode="replicate"), 5, 1)
        return torch.cat((torch.sigmoid(colours), flow, weights.softmax(1)), 1)


def compose(maps: Tensor, references: Tensor) -> Tensor:
    """The picture of some maps (B, 16, H, W) and references (B, 12, H, W): (B, 3, H, W)."""
    colours, flow, weights = maps.split((3, 2 * REFERENCES, REFERENCES + 1), 1)
    picture = weights[:, REFERENCES:] * colours
    shape = [len(maps), 1, *maps.shape[2:]]
    still = functional.affine_grid(torch.eye(2, 3, device=maps.device).expand(len(maps), 2, 3), shape, False)
    for k in range(REFERENCES):
        grid = still + 2 * flow[:, 2 * k : 2 * k + 2].permute(0, 2, 3, 1)  # grids count from -1 to 1
        moved = functional.grid_sample(
            references[:, 3 * k : 3 * k + 3], grid, padding_mode="border", align_corners=False
        )
        picture = picture + weights[:, k : k + 1] * moved
    return picture
