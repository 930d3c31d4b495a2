"""A sync expert for small machines: an eighth of the published one's arithmetic, for the same inputs and the same use.

Ours. The published face encoder works at full size on few channels, which is slow on processors; this one first folds
2 x 2 pixels into channels and leaves out a sixth of the width on both sides. Inputs, methods and the range of the
cosine are those of `wav2lip.Expert`.
"""

from torch import Tensor, nn
from torch.nn import functional

from .wav2lip import Conv, _audio_encoder, _stage


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
