"""The three networks of Wav2Lip: generator, expert (sync discriminator), visual quality discriminator.

Source: arXiv 2008.10010; layer tables in protocol.md section 2. Names, shapes and order of all tensors are
those of the published checkpoints, so that these load strictly; the odd attribute names
(`face_encoder_blocks`, `conv_block`, `binary_pred`) come from there. Faces are BGR, 0..1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

FACE_SIZE_PX = 96
LOWER_HALF = FACE_SIZE_PX // 2  # the first row of the half that holds the mouth


class Conv(nn.Module):
    """Convolution, batch normalisation, (+ input where residual), ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int | tuple[int, int] = 1,
        padding: int | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_block(x)
        return functional.relu(y + x if self.residual else y)


class Deconv(nn.Module):
    """Transposed 3x3 convolution, batch normalisation, ReLU; stride 2 doubles the picture."""

    def __init__(self, inputs: int, outputs: int, stride: int = 2, padding: int = 1) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 3, stride, padding, output_padding=stride - 1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv_block(x))


class PlainConv(nn.Module):
    """Convolution and leaky ReLU, without normalisation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int | tuple[int, int] = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding))

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.conv_block(x), 0.01)


def _stage(first: nn.Module, width: int, repeats: int) -> nn.Sequential:
    """One layer that changes the size, then `repeats` residual 3x3 layers of the same width."""
    return nn.Sequential(first, *(Conv(width, width, 3, residual=True) for _ in range(repeats)))


def _audio_encoder(c: int, last_repeats: int) -> nn.Sequential:
    """Mel (B, 1, 80, 16) to (B, 32 c, 1, 1); the expert's has one residual layer more in its last stage."""
    return nn.Sequential(
        *_stage(Conv(1, 2 * c, 3), 2 * c, 2),
        *_stage(Conv(2 * c, 4 * c, 3, stride=(3, 1)), 4 * c, 2),
        *_stage(Conv(4 * c, 8 * c, 3, stride=3), 8 * c, 2),
        *_stage(Conv(8 * c, 16 * c, 3, stride=(3, 2)), 16 * c, last_repeats),
        Conv(16 * c, 32 * c, 3, padding=0),
        Conv(32 * c, 32 * c, 1),
    )


class Wav2Lip(nn.Module):
    """The generator: a masked face, a reference face and 200 ms of sound to a face that says that sound.

    base  channels of the first layer; every hidden width follows. 16 is the published network
          (36.3 M parameters), 8 the compact one (9.1 M).
    """

    def __init__(self, base: int = 16) -> None:
        super().__init__()
        c = base
        self.face_encoder_blocks = nn.ModuleList(
            [
                _stage(Conv(6, c, 7), c, 0),  # 96 x 96
                _stage(Conv(c, 2 * c, 3, stride=2), 2 * c, 2),  # 48
                _stage(Conv(2 * c, 4 * c, 3, stride=2), 4 * c, 3),  # 24
                _stage(Conv(4 * c, 8 * c, 3, stride=2), 8 * c, 2),  # 12
                _stage(Conv(8 * c, 16 * c, 3, stride=2), 16 * c, 2),  # 6
                _stage(Conv(16 * c, 32 * c, 3, stride=2), 32 * c, 1),  # 3
                nn.Sequential(Conv(32 * c, 32 * c, 3, padding=0), Conv(32 * c, 32 * c, 1)),  # 1
            ]
        )
        self.audio_encoder = _audio_encoder(c, last_repeats=1)
        # Each stage's input: what the stage before gave, joined with the encoder's map of the same size.
        self.face_decoder_blocks = nn.ModuleList(
            [
                _stage(Conv(32 * c, 32 * c, 1), 32 * c, 0),  # 1 x 1
                _stage(Deconv(64 * c, 32 * c, stride=1, padding=0), 32 * c, 1),  # 3
                _stage(Deconv(64 * c, 32 * c), 32 * c, 2),  # 6
                _stage(Deconv(48 * c, 24 * c), 24 * c, 2),  # 12
                _stage(Deconv(32 * c, 16 * c), 16 * c, 2),  # 24
                _stage(Deconv(20 * c, 8 * c), 8 * c, 2),  # 48
                _stage(Deconv(10 * c, 4 * c), 4 * c, 2),  # 96
            ]
        )
        self.output_block = nn.Sequential(Conv(5 * c, 2 * c, 3), nn.Conv2d(2 * c, 3, kernel_size=1), nn.Sigmoid())

    def forward(self, mel: Tensor, face: Tensor) -> Tensor:
        """Generate faces.

        mel      (B, 1, 80, 16) float32, -4..4, from audio.mel_windows_at
        face     (B, 6, 96, 96) float32, BGR, 0..1: target with rows 48.. set to 0, then reference
        returns  (B, 3, 96, 96) float32, BGR, 0..1
        """
        skips = []
        for block in self.face_encoder_blocks:
            face = block(face)
            skips.append(face)
        x = self.audio_encoder(mel)
        for block in self.face_decoder_blocks:
            x = torch.cat((block(x), skips.pop()), dim=1)
        return self.output_block(x)


class Expert(nn.Module):
    """The sync expert: embeds 200 ms of sound and five lower half faces; their cosine says "in sync"."""

    def __init__(self) -> None:
        super().__init__()
        self.face_encoder = nn.Sequential(
            Conv(15, 32, 7),  # 48 x 96
            *_stage(Conv(32, 64, 5, stride=(1, 2), padding=1), 64, 2),
            *_stage(Conv(64, 128, 3, stride=2), 128, 3),
            *_stage(Conv(128, 256, 3, stride=2), 256, 2),
            *_stage(Conv(256, 512, 3, stride=2), 512, 2),
            Conv(512, 512, 3, stride=2),  # 3 x 3
            Conv(512, 512, 3, padding=0),
            Conv(512, 512, 1),
        )
        self.audio_encoder = _audio_encoder(16, last_repeats=2)

    def audio(self, mel: Tensor) -> Tensor:
        """Embed sound.

        mel      (B, 1, 80, 16) float32, -4..4, starting at the window's first frame
        returns  (B, 512), length 1, all entries >= 0
        """
        return functional.normalize(self.audio_encoder(mel).flatten(1))

    def face(self, window: Tensor) -> Tensor:
        """Embed mouths.

        window   (B, 15, 48, 96) float32, BGR, 0..1: lower halves of five consecutive frames, frame by frame
        returns  (B, 512), length 1, all entries >= 0
        """
        return functional.normalize(self.face_encoder(window).flatten(1))

    def forward(self, mel: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both (see `audio` and `face`); the cosine of a pair is the sum of their product, 0..1."""
        return self.audio(mel), self.face(window)


class Quality(nn.Module):
    """The visual quality discriminator: is this lower half a real one? It hears nothing.

    base  channels of the first layer, halved; 16 is the published network
    """

    def __init__(self, base: int = 16) -> None:
        super().__init__()
        c = 2 * base
        self.face_encoder_blocks = nn.ModuleList(
            [
                nn.Sequential(PlainConv(3, c, 7)),  # 48 x 96
                nn.Sequential(PlainConv(c, 2 * c, 5, stride=(1, 2)), PlainConv(2 * c, 2 * c, 5)),  # 48 x 48
                nn.Sequential(PlainConv(2 * c, 4 * c, 5, stride=2), PlainConv(4 * c, 4 * c, 5)),
                nn.Sequential(PlainConv(4 * c, 8 * c, 5, stride=2), PlainConv(8 * c, 8 * c, 5)),
                nn.Sequential(PlainConv(8 * c, 16 * c, 3, stride=2), PlainConv(16 * c, 16 * c, 3)),
                nn.Sequential(PlainConv(16 * c, 16 * c, 3, stride=2), PlainConv(16 * c, 16 * c, 3)),  # 3 x 3
                nn.Sequential(PlainConv(16 * c, 16 * c, 3, padding=0), PlainConv(16 * c, 16 * c, 1)),
            ]
        )
        self.binary_pred = nn.Sequential(nn.Conv2d(16 * c, 1, kernel_size=1), nn.Sigmoid())

    def _map(self, faces: Tensor) -> Tensor:
        x = fold_frames(faces)[:, :, LOWER_HALF:]
        for block in self.face_encoder_blocks:
            x = block(x)
        return x  # (T B, 512, 1, 1)

    def features(self, faces: Tensor) -> Tensor:
        """The 512 values before the verdict: faces (B, 3, T, 96, 96) -> (T B, 512)."""
        return self._map(faces).flatten(1)

    def forward(self, faces: Tensor) -> Tensor:
        """Judge each frame: faces (B, 3, T, 96, 96) float32, BGR, 0..1 -> (T B, 1), 0 generated .. 1 real."""
        return self.binary_pred(self._map(faces)).flatten(1)


def fold_frames(frames: Tensor) -> Tensor:
    """Fold time into the batch: (B, C, T, H, W) -> (T B, C, H, W); row t B + b is frame t of item b."""
    return frames.permute(2, 0, 1, 3, 4).flatten(0, 1)
