"""InceptionV3 as the FID wants it: 2048 features a picture, from the network that TensorFlow published on 2015-12-05.

Sources: Szegedy et al., "Rethinking the Inception Architecture" (arXiv 1512.00567); Heusel et al. (arXiv 1706.08500),
who measure the FID at its third pooling, "pool3". Names and shapes of all tensors are those of the converted file
pt_inception-2015-12-05-6726825d.pth, which follow torchvision's Inception3 without its auxiliary head, so that it loads
strictly (23,850,960 parameters in 566 tensors). Where the 2015 network differs from torchvision's:
  average pools inside the blocks (A, C and the first E) count only pixels within the map, not the padding;
  the pool branch of the last E block (Mixed_7c) takes the maximum, not the mean;
  the last layer has 1008 outputs, of which the FID uses none.
Everywhere batch normalisation has an epsilon of 1e-3 and convolutions have no bias. Sizes of maps are for 299 x 299.
Checked with random weights against torch-fidelity 0.4.0's port: same names, same features to the last bit.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 2048
SIZE_PX = 299


class Conv(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H', W'), >= 0."""
        return functional.relu(self.bn(self.conv(x)))


def _row(inputs: int, outputs: int, length: int) -> Conv:
    """A kernel of one row, size kept."""
    return Conv(inputs, outputs, (1, length), padding=(0, length // 2))


def _column(inputs: int, outputs: int, length: int) -> Conv:
    """A kernel of one column, size kept."""
    return Conv(inputs, outputs, (length, 1), padding=(length // 2, 0))


def average(x: Tensor) -> Tensor:
    """The mean of 3 x 3 around each pixel, of those that lie within the map: at a corner of four, not of nine."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def largest(x: Tensor) -> Tensor:
    """The maximum of 3 x 3 around each pixel, size kept."""
    return functional.max_pool2d(x, 3, stride=1, padding=1)


def halve(x: Tensor) -> Tensor:
    """The maximum of 3 x 3 at every second pixel, unpadded."""
    return functional.max_pool2d(x, 3, stride=2)


class BlockA(nn.Module):
    """35 x 35: 1x1, 5x5, twice 3x3, and a pool; 224 + `pooled` channels."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64)
        self.branch5x5_1 = Conv(inputs, 48)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(inputs, 64)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 35, 35) -> (B, 224 + pooled, 35, 35)."""
        wide = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), wide, double, self.branch_pool(average(x))], 1)


class BlockB(nn.Module):
    """From 35 x 35 to 17 x 17: 480 channels and the input's own."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(inputs, 64)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 35, 35) -> (B, 480 + inputs, 17, 17)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, halve(x)], 1)


class BlockC(nn.Module):
    """17 x 17: 1x1, 7x7 and twice 7x7 taken apart into rows and columns of `inner` channels, and a pool; 768."""

    def __init__(self, inner: int, inputs: int = 768) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 192)
        self.branch7x7_1 = Conv(inputs, inner)
        self.branch7x7_2 = _row(inner, inner, 7)
        self.branch7x7_3 = _column(inner, 192, 7)
        self.branch7x7dbl_1 = Conv(inputs, inner)
        self.branch7x7dbl_2 = _column(inner, inner, 7)
        self.branch7x7dbl_3 = _row(inner, inner, 7)
        self.branch7x7dbl_4 = _column(inner, inner, 7)
        self.branch7x7dbl_5 = _row(inner, 192, 7)
        self.branch_pool = Conv(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 17, 17) -> (B, 768, 17, 17)."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(average(x))], 1)


class BlockD(nn.Module):
    """From 17 x 17 to 8 x 8: 512 channels and the input's own."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(inputs, 192)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(inputs, 192)
        self.branch7x7x3_2 = _row(192, 192, 7)
        self.branch7x7x3_3 = _column(192, 192, 7)
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 17, 17) -> (B, 512 + inputs, 8, 8)."""
        wide = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(wide), halve(x)], 1)


class BlockE(nn.Module):
    """8 x 8: 1x1, 3x3 and twice 3x3 split into a row beside a column, and a pool; 2048 channels.

    maximum  does the pool take the maximum (the last block) or the mean?
    """

    def __init__(self, inputs: int, maximum: bool) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 320)
        self.branch3x3_1 = Conv(inputs, 384)
        self.branch3x3_2a = _row(384, 384, 3)
        self.branch3x3_2b = _column(384, 384, 3)
        self.branch3x3dbl_1 = Conv(inputs, 448)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _row(384, 384, 3)
        self.branch3x3dbl_3b = _column(384, 384, 3)
        self.branch_pool = Conv(inputs, 192)
        self.pool = largest if maximum else average

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 8, 8) -> (B, 2048, 8, 8)."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(self.pool(x))]
        return torch.cat(parts, 1)


class Inception(nn.Module):
    """The network of the FID: `features` is what the FID takes, `forward` the 1008 logits that nobody here needs."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)  # 149 x 149
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)  # 147
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80)  # 73
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)  # 71
        self.Mixed_5b = BlockA(192, pooled=32)  # 35
        self.Mixed_5c = BlockA(256, pooled=64)
        self.Mixed_5d = BlockA(288, pooled=64)
        self.Mixed_6a = BlockB(288)  # 17
        self.Mixed_6b = BlockC(inner=128)
        self.Mixed_6c = BlockC(inner=160)
        self.Mixed_6d = BlockC(inner=160)
        self.Mixed_6e = BlockC(inner=192)
        self.Mixed_7a = BlockD(768)  # 8
        self.Mixed_7b = BlockE(1280, maximum=False)
        self.Mixed_7c = BlockE(2048, maximum=True)
        self.fc = nn.Linear(FEATURES, 1008)

    def features(self, pictures: Tensor) -> Tensor:
        """The features of the FID.

        pictures  (B, 3, H, W) float32 RGB, 0..255; brought to 299 x 299 by bilinear interpolation without
                  anti-aliasing (pixel centres, not corners, aligned) and to -1..1 by 2 x / 255 - 1
        returns   (B, 2048) float32, >= 0: the last map's mean over its 8 x 8 places ("pool3")
        """
        x = functional.interpolate(pictures, (SIZE_PX, SIZE_PX), mode="bilinear", align_corners=False)
        x = self.Conv2d_1a_3x3(2 * x / 255 - 1)
        x = halve(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(x)))
        x = halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits of TensorFlow's classes: pictures as in `features` -> (B, 1008)."""
        return self.fc(self.features(pictures))
