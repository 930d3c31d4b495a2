"""A residual network that sharpens pictures."""

from __future__ import annotations

from torch import Tensor, nn


class Sharpener(nn.Module):
    """A residual network after VDSR (Kim et al., arXiv 1511.04587): a blurred face (B, 3, H, W) 0..1 -> a sharper one.

    It learns only the difference. width: 64 channels as published; depth: layers, 20 as published
    """

    def __init__(self, width: int = 64, depth: int = 20) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1))
        for module in self.body:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.body[-1].weight)  # it begins by changing nothing

    def forward(self, picture: Tensor) -> Tensor:
        return picture + self.body(picture - 0.5)
