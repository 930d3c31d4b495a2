"""SyncNet, the evaluator of LSE-D and LSE-C: embeds five mouth frames and 200 ms of sound into one space.

Source: Chung and Zisserman, "Out of time" (2016); layer table in protocol.md section 2. Names, shapes and
order of all tensors are those of the published `syncnet_v2.model`, so that it loads strictly.
"""

import torch
from torch import Tensor, nn

EMBEDDING = 1024
Size = int | tuple[int, ...]


def _conv(
    inputs: int, outputs: int, kernel: tuple[int, ...], stride: Size = 1, padding: Size = 0
) -> tuple[nn.Module, ...]:
    """Convolution (3D where the kernel has three sides), batch normalisation, ReLU."""
    if len(kernel) == 3:
        layers = nn.Conv3d(inputs, outputs, kernel, stride, padding), nn.BatchNorm3d(outputs)
    else:
        layers = nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs)
    return *layers, nn.ReLU()


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, EMBEDDING))


class SyncNet(nn.Module):
    """The evaluator; the Euclidean distance between the two embeddings is small in sync.

    width  a 32nd of the published hidden widths (13.6 M parameters at 32); smaller gives a narrowed evaluator.
          The embedding has 1024 values at any width.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        c = width
        self.netcnnaud = nn.Sequential(
            *_conv(1, 2 * c, (3, 3), padding=1),  # 13 x 20
            nn.MaxPool2d(kernel_size=1),  # does nothing; it keeps the published numbering of the layers
            *_conv(2 * c, 6 * c, (3, 3), padding=1),
            nn.MaxPool2d(kernel_size=3, stride=(1, 2)),  # 11 x 9
            *_conv(6 * c, 12 * c, (3, 3), padding=1),
            *_conv(12 * c, 8 * c, (3, 3), padding=1),
            *_conv(8 * c, 8 * c, (3, 3), padding=1),
            nn.MaxPool2d(kernel_size=3, stride=2),  # 5 x 4
            *_conv(8 * c, 16 * c, (5, 4)),
        )
        self.netfcaud = _head(16 * c)
        self.netfclip = _head(16 * c)
        self.netcnnlip = nn.Sequential(
            *_conv(3, 3 * c, (5, 7, 7), stride=(1, 2, 2)),  # 1 x 109 x 109: time is gone after the first layer
            nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2)),  # 54
            *_conv(3 * c, 8 * c, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)),  # 26
            nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),  # 13
            *_conv(8 * c, 8 * c, (1, 3, 3), padding=(0, 1, 1)),
            *_conv(8 * c, 8 * c, (1, 3, 3), padding=(0, 1, 1)),
            *_conv(8 * c, 8 * c, (1, 3, 3), padding=(0, 1, 1)),
            nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2)),  # 6
            *_conv(8 * c, 16 * c, (1, 6, 6)),
        )

    def lip(self, frames: Tensor) -> Tensor:
        """Embed five frames: (B, 3, 5, 224, 224) float32, BGR, 0..255, not normalised -> (B, 1024)."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))

    def audio(self, mfcc: Tensor) -> Tensor:
        """Embed 200 ms of sound: (B, 1, 13, 20) float32, from audio.mfcc_syncnet transposed -> (B, 1024)."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def forward(self, frames: Tensor, mfcc: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both (see `lip` and `audio`)."""
        return self.lip(frames), self.audio(mfcc)


def flat_lip(network: SyncNet, halved: bool = False) -> nn.Sequential:
    """`SyncNet.lip` as a network of 2D layers, for inference: time is gone after the first layer, the only 3D one.

    halved   feed pictures of 112 px, which count as doubled to 224 (bilinear): four times cheaper at the costly end
    returns  (B, 15, S, S) float32, S = 224 or 112, BGR 0..255, frame by frame (`SyncNet.lip`'s
             `frames.transpose(1, 2).flatten(1, 2)`) -> (B, 1024); equal to it up to rounding
    """
    layers: list[nn.Module] = []
    for layer in network.netcnnlip:
        if isinstance(layer, nn.Conv3d):
            weight, stride, padding = layer.weight[:, :, 0], layer.stride[1:], layer.padding[1:]
            if not layers:
                weight, stride = folded(layer.weight, halved), (1, 1) if halved else layer.stride[1:]
                weight = weight.unflatten(1, layer.weight.shape[1:3]).transpose(1, 2).flatten(1, 2)
                layers += [nn.ReplicationPad2d((1, 0, 1, 0))] if halved else []
            flat = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], stride, padding)
            flat.weight, flat.bias = nn.Parameter(weight.detach()), nn.Parameter(layer.bias.detach())
        elif isinstance(layer, nn.BatchNorm3d):
            flat = nn.BatchNorm2d(layer.num_features, layer.eps)
            flat.load_state_dict(layer.state_dict())
        elif isinstance(layer, nn.MaxPool3d):
            padding = layer.padding[1:] if isinstance(layer.padding, tuple) else layer.padding
            flat = nn.MaxPool2d(layer.kernel_size[1:], layer.stride[1:], padding)
        else:
            flat = layer
        layers.append(flat)
    return nn.Sequential(*layers, nn.Flatten(), network.netfclip).eval().requires_grad_(False)


def folded(weight: Tensor, halved: bool) -> Tensor:
    """The first layer's kernel (O, 3, 5, 7, 7) as a 2D one over 15 channels, colour by colour: (O, 15, 7, 7), stride 2.

    halved: (O, 15, 5, 5), stride 1, over a picture of half the size with one pixel repeated at the top and at the left:
    a 7x7 kernel at stride 2 over a doubled picture is a 5x5 kernel at stride 1 over the picture itself.
    """
    if not halved:
        return weight.flatten(1, 2)
    spread = _spread().to(weight.device)
    return torch.einsum("ui,ocfij,vj->ocfuv", spread, weight.float(), spread).flatten(1, 2)


def _spread() -> Tensor:
    """(5, 7): how much source pixel o - 1 + u weighs in doubled pixel 2 o + j, bilinear with pixel centres."""
    out = torch.zeros(5, 7)
    for j in range(7):
        at = j / 2 - 0.25 + 1
        low = int(at)
        out[low, j] += 1 - (at - low)
        out[low + 1, j] += at - low
    return out
