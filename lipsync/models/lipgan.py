"""LipGAN (Prajwal et al., ACM MM 2019): a masked frame, a reference and 0.35 s of MFCC to a face.

Layers as published in Keras: "same" padding, which with stride 2 pads one more at bottom and right. The generator is
residual; the discriminator judges a single frame against its sound. Source: protocol.md section 2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .base import AudioWindow, LipSyncModel

MFCC, COLUMNS = 12, 35  # of a window
# Columns from the frame's own to the window's first: the frame is the middle of the 0.35 s.
START = -(COLUMNS - 1) / 2 + 1.5


class Same(nn.Module):
    """Keras' "same" padding before a convolution: output size = ceil(input / stride), one more at bottom and right."""

    def __init__(self, kernel: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, stride in zip(x.shape[:1:-1], self.stride[::-1], strict=True):  # the last axis first
            total = max((-(-size // stride) - 1) * stride + self.kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return functional.pad(x, pads)


def conv(
    inside: int, out: int, kernel: int, stride: int | tuple[int, int] = 1, valid: tuple[int, int] | None = None
) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU; `valid`: a kernel without padding."""
    stride = (stride, stride) if isinstance(stride, int) else stride
    layers: list[nn.Module] = [] if valid else [Same(kernel, stride)]
    layers.append(nn.Conv2d(inside, out, valid or kernel, stride))
    return nn.Sequential(*layers, nn.BatchNorm2d(out, eps=1e-3, momentum=0.2), nn.ReLU())


class Residual(nn.Module):
    """A pair of convolutions whose output is added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            conv(width, width, 3),
            Same(3, (1, 1)),
            nn.Conv2d(width, width, 3),
            nn.BatchNorm2d(width, eps=1e-3, momentum=0.2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.block(x))


class Up(nn.Module):
    """Transposed convolution of kernel 3: to 3 x 3 from one pixel, else to twice the size (Keras' "same")."""

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.deconv = nn.ConvTranspose2d(inside, out, 3, stride)
        self.after = nn.Sequential(nn.BatchNorm2d(out, eps=1e-3, momentum=0.2), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        out = self.deconv(x)
        if self.stride == 2:
            out = out[..., : 2 * x.shape[2], : 2 * x.shape[3]]
        return self.after(out)


def stage(first: nn.Module, width: int, pairs: int) -> nn.Sequential:
    """A convolution and residual pairs behind it."""
    return nn.Sequential(first, *(Residual(width) for _ in range(pairs)))


class TopRow(nn.Module):
    """A row of zeros on top: the 12 coefficients become 13 rows."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x, (0, 0, 1, 0))


class LipGAN(nn.Module):
    """The generator: MFCC (B, 1, 12, 35), face (B, 6, 96, 96) BGR 0..1 -> face (B, 3, 96, 96) BGR 0..1.

    width  channels of the first layer; every hidden width follows. 32 is the published network
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        c = width
        self.face_encoder = nn.ModuleList(
            [
                conv(6, c, 7),  # 96
                stage(conv(c, 2 * c, 5, 2), 2 * c, 2),  # 48
                stage(conv(2 * c, 4 * c, 3, 2), 4 * c, 3),  # 24
                stage(conv(4 * c, 8 * c, 3, 2), 8 * c, 2),  # 12
                stage(conv(8 * c, 16 * c, 3, 2), 16 * c, 2),  # 6
                conv(16 * c, 16 * c, 3, 2),  # 3
                nn.Sequential(conv(16 * c, 16 * c, 3, valid=(3, 3)), conv(16 * c, 16 * c, 1)),  # 1
            ]
        )
        self.audio_encoder = nn.Sequential(
            stage(conv(1, 4 * c, 3), 4 * c, 3),  # 12 x 35
            TopRow(),
            stage(conv(4 * c, 8 * c, 3, (1, 2)), 8 * c, 2),  # 13 x 18
            stage(conv(8 * c, 16 * c, 3, 2), 16 * c, 2),  # 7 x 9
            stage(conv(16 * c, 16 * c, 3, 2), 16 * c, 1),  # 4 x 5
            conv(16 * c, 16 * c, 3, valid=(4, 5)),
            conv(16 * c, 16 * c, 1),
        )
        self.decoder = nn.ModuleList(
            [
                Up(32 * c, 16 * c, 3),  # 3
                stage(Up(32 * c, 16 * c, 2), 16 * c, 2),  # 6
                stage(Up(32 * c, 8 * c, 2), 8 * c, 2),  # 12
                stage(Up(16 * c, 4 * c, 2), 4 * c, 2),  # 24
                stage(Up(8 * c, 2 * c, 2), 2 * c, 2),  # 48
                Up(4 * c, c, 2),  # 96
            ]
        )
        self.output = nn.Sequential(conv(2 * c, c // 2, 3), conv(c // 2, c // 2, 3), nn.Conv2d(c // 2, 3, 1))

    def forward(self, mfcc: Tensor, face: Tensor) -> Tensor:
        skips = []
        for block in self.face_encoder:
            face = block(face)
            skips.append(face)
        x = torch.cat((self.audio_encoder(mfcc), skips.pop()), 1)
        for block in self.decoder:
            x = torch.cat((block(x), skips.pop()), 1)
        return torch.sigmoid(self.output(x))


class Norm(nn.Module):
    """Normalisation over height, width and channels, with one scale and one shift."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[1:], eps=1e-3) * self.scale + self.shift


class Discriminator(nn.Module):
    """Does a face fit its sound? Embeds both; their distance is 0 where they do. Used in training alone.

    width  channels of the first layer, halved: 32 is the published network
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        c = 2 * width

        def block(
            inside: int, out: int, kernel: int, stride: int | tuple[int, int], valid: tuple[int, int] | None = None
        ) -> nn.Sequential:
            stride = (stride, stride) if isinstance(stride, int) else stride
            pad: list[nn.Module] = [] if valid else [Same(kernel, stride)]
            return nn.Sequential(*pad, nn.Conv2d(inside, out, valid or kernel, stride), Norm(), nn.LeakyReLU(0.2))

        self.face_encoder = nn.Sequential(
            block(3, c, 7, 2),
            block(c, 2 * c, 5, 2),
            block(2 * c, 4 * c, 3, 2),
            block(4 * c, 8 * c, 3, 2),
            block(8 * c, 8 * c, 3, 2),  # 3 x 3
            nn.Conv2d(8 * c, 8 * c, 3),
        )
        self.audio_encoder = nn.Sequential(
            block(1, c, 3, 1),
            block(c, 2 * c, 3, 1),
            TopRow(),
            block(2 * c, 4 * c, 3, (1, 2)),
            block(4 * c, 4 * c, 3, 1),
            block(4 * c, 4 * c, 3, 2),
            block(4 * c, 8 * c, 3, 2),  # 4 x 5
            nn.Conv2d(8 * c, 8 * c, (4, 5)),
        )

    def audio(self, mfcc: Tensor) -> Tensor:
        """MFCC (B, 1, 12, 35) -> unit embeddings (B, D) float32."""
        return functional.normalize(self.audio_encoder(mfcc).flatten(1).float())

    def face(self, face: Tensor) -> Tensor:
        """Faces (B, 3, 96, 96) BGR 0..1 -> unit embeddings (B, D) float32."""
        return functional.normalize(self.face_encoder(face).flatten(1).float())

    def forward(self, mfcc: Tensor, face: Tensor) -> Tensor:
        """MFCC (B, 1, 12, 35), faces (B, 3, 96, 96) BGR 0..1 -> Euclidean distances (B,), 0..2."""
        return ((self.audio(mfcc) - self.face(face)) ** 2).sum(1).clamp(min=1e-8).sqrt()


class LipGANModel(LipSyncModel):
    """Reference face + masked face + 0.35 s of MFCC -> face."""

    inputs = {"mfcc": (1, MFCC, COLUMNS), "face": (6, 96, 96)}
    audio = AudioWindow("mfcc12", COLUMNS, start_columns=START)
    gated = False  # trained on sound as it is

    @staticmethod
    def network(width: int = 32) -> nn.Module:
        return LipGAN(width)

    def prepare(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> dict[str, np.ndarray]:
        masked = crops.copy()
        masked[:, masked.shape[1] // 2 :] = 0
        both = np.concatenate([references[..., ::-1], masked[..., ::-1]], axis=3).transpose(0, 3, 1, 2)
        return {"mfcc": windows[:, None], "face": np.ascontiguousarray(both, np.float32) / np.float32(255)}

    def finish(self, outputs: dict[str, np.ndarray], crops: np.ndarray, references: np.ndarray) -> np.ndarray:
        return (np.clip(outputs["picture"], 0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)[..., ::-1]
