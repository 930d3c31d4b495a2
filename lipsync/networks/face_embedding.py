"""The face network that tells people apart: 128 numbers a face, from the ResNet that dlib publishes under CC0.

Source: dlib_face_recognition_resnet_model_v1.dat of dlib-models; He et al. (arXiv 1512.03385) with 29 convolutions and
half the filters. Its affine layers are folded into the convolutions (scripts/convert_face_embedding.py). Where a block
halves the map, its first convolution has no padding and its shortcut is a 2 x 2 mean; both sides are then filled with
zeros, at the right, below and in the channels, to the larger size.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE_PX = 150
MEAN_RGB = (122.782, 117.001, 104.298)
BATCH = 32  # faces at once
BLOCKS = (  # inputs, outputs, stride
    *[(32, 32, 1)] * 3,
    *[(32, 64, 2), *[(64, 64, 1)] * 3],
    *[(64, 128, 2), *[(128, 128, 1)] * 2],
    *[(128, 256, 2), *[(256, 256, 1)] * 2],
    (256, 256, 2),
)


class Block(nn.Module):
    """Two convolutions of 3 x 3 beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1 if stride == 1 else 0)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H', W'), >= 0."""
        y = self.conv2(functional.relu(self.conv1(x)))
        if self.stride == 2:
            x = functional.avg_pool2d(x, 2)
        size = [max(a, b) for a, b in zip(x.shape[1:], y.shape[1:], strict=True)]
        return functional.relu(_filled(x, size) + _filled(y, size))


def _filled(x: Tensor, size: list[int]) -> Tensor:
    """(B, C, H, W) with zeros after its end on every axis but the first."""
    channels, rows, columns = (wanted - has for wanted, has in zip(size, x.shape[1:], strict=True))
    return functional.pad(x, (0, columns, 0, rows, 0, channels))


class FaceEmbedding(nn.Module):
    """The network; `embed` is what callers want."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 7, 2)
        self.blocks = nn.Sequential(*(Block(*block) for block in BLOCKS))
        self.linear = nn.Linear(256, 128, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 150, 150) RGB 0..255 -> (B, 128)."""
        mean = x.new_tensor(MEAN_RGB).view(1, 3, 1, 1)
        x = functional.max_pool2d(functional.relu(self.conv((x - mean) / 256)), 3, 2)
        return self.linear(self.blocks(x).mean((2, 3)))

    @torch.inference_mode()
    def embed(self, faces: np.ndarray) -> np.ndarray:
        """Faces (T, 150, 150, 3) uint8 RGB, aligned as eval.crops.aligned_face does -> (T, 128) float32."""
        parts = [np.zeros((0, self.linear.out_features), np.float32)]
        for at in range(0, len(faces), BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(faces[at : at + BATCH].transpose(0, 3, 1, 2))).float()
            parts.append(self(batch).numpy())
        return np.concatenate(parts)
