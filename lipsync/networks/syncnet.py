"""SyncNet, the judge of LSE-D and LSE-C: embeds five mouth frames and 200 ms of sound into one space.

Source: Chung and Zisserman, "Out of time" (2016); layer table in protocol.md section 2. Names, shapes and
order of all tensors are those of the published `syncnet_v2.model`, so that it loads strictly.
"""

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
    """The judge; the Euclidean distance between the two embeddings is small in sync.

    base  a 32nd of the published hidden widths (13.6 M parameters at 32); smaller gives a narrowed judge.
          The embedding has 1024 values at any width.
    """

    def __init__(self, base: int = 32) -> None:
        super().__init__()
        c = base
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
