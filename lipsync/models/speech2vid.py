"""Speech2Vid ("You said that?", Chung, Jamaludin and Zisserman, arXiv 1705.02966): stills and 0.35 s of MFCC to a face.

The face is aligned by landmarks that do not move with speech. The plain variant sees stills alone and is blended into
the frame by Poisson editing; the context variant also sees the frame with its mouth covered, and its output replaces
the crop. A separate residual network (`sharpener`, a part of the card) sharpens what the decoder makes. Widths are not
published: ours. Source: protocol.md section 2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoints import registry
from ..checkpoints.registry import Card
from ..errors import ModelError
from ..geometry import LandmarkRule
from .base import AudioWindow, LipSyncModel, from_planes, to_planes
from .lipgan import COLUMNS, MFCC, START

SIZE_PX = 112
# Where the landmarks faces.landmarks.STEADY lie in the crop: their mean over 13 training speakers in the upright crop
# of geometry.CropRule, made symmetric (spread over speakers 0.01 to 0.02).
MEAN_SHAPE = ((0.224, 0.346), (0.392, 0.353), (0.776, 0.346), (0.608, 0.353), (0.5, 0.592), (0.5, 0.517))
COVERED = (0.48, 0.16, 0.84)  # of the context's crop: from this row down, between these columns, lies the mouth


def layer(inside: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, out, kernel, stride, kernel // 2), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


class Encoder(nn.Module):
    """A VGG-M of pictures (B, C, 112, 112): an embedding (B, E), and the maps of its first two layers for skips."""

    def __init__(self, channels: int, width: int, size: int) -> None:
        super().__init__()
        c = width
        self.first = layer(channels, 3 * c // 2, 7, 2)  # 56
        self.second = nn.Sequential(nn.MaxPool2d(2), layer(3 * c // 2, 4 * c, 5, 2))  # 14
        self.rest = nn.Sequential(
            nn.MaxPool2d(2), layer(4 * c, 8 * c, 3), layer(8 * c, 8 * c, 3), layer(8 * c, 8 * c, 3)
        )  # 7
        self.embed = nn.Sequential(nn.Conv2d(8 * c, size, 7), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.first(x)
        second = self.second(first)
        return self.embed(self.rest(second)).flatten(1), first, second


class Speech2Vid(nn.Module):
    """MFCC (B, 1, 12, 35), stills (B, 3 N, 112, 112) RGB 0..1 and, with context, the frame with its mouth covered
    (B, 3, 112, 112) -> face (B, 3, 112, 112) RGB 0..1.

    width       64 is the paper's VGG-M at the widths that we chose; every hidden width follows
    stills      pictures of the speaker: 5, or 1
    context     a third encoder sees the frame
    skips       maps of the identity (and context) encoder are joined in the decoder
    transposed  transposed convolutions in place of bilinear upsampling
    """

    def __init__(
        self, width: int = 64, stills: int = 5, context: bool = False, skips: bool = True, transposed: bool = False
    ) -> None:
        super().__init__()
        c, size = width, 4 * width
        self.skips = skips
        self.audio = nn.Sequential(
            layer(1, c, 3),  # 12 x 35
            layer(c, 2 * c, 3),
            nn.MaxPool2d((1, 3), (1, 2)),  # 12 x 17
            layer(2 * c, 4 * c, 3),
            layer(4 * c, 4 * c, 3),
            nn.MaxPool2d(3, 2),  # 5 x 8
            nn.Conv2d(4 * c, 8 * c, (5, 8)),
            nn.BatchNorm2d(8 * c),
            nn.ReLU(inplace=True),
            nn.Conv2d(8 * c, size, 1),
            nn.ReLU(inplace=True),
        )
        self.identity = Encoder(3 * stills, c, size)
        self.context = Encoder(3, c, size) if context else None
        seen = 2 if context else 1
        self.join = nn.Sequential(nn.Linear((1 + seen) * size, 2 * c * 49), nn.ReLU(inplace=True))  # 7 x 7
        near, far = (seen * 4 * c, seen * 3 * c // 2) if skips else (0, 0)
        self.blocks = nn.ModuleList(
            [
                layer(2 * c, 8 * c, 3),  # 7
                layer(8 * c, 4 * c, 3),  # 14, joined with the second map
                layer(4 * c + near, 2 * c, 3),  # 28
                layer(2 * c, 3 * c // 2, 3),  # 56, joined with the first map
                layer(3 * c // 2 + far, c, 3),  # 112
            ]
        )
        widths = (8 * c, 4 * c + near, 2 * c, 3 * c // 2 + far)
        self.up = nn.ModuleList(nn.ConvTranspose2d(w, w, 4, 2, 1) for w in widths) if transposed else None
        self.output = nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, mfcc: Tensor, stills: Tensor, context: Tensor | None = None) -> Tensor:
        embedded, first, second = self.identity(stills)
        parts, maps = [self.audio(mfcc).flatten(1), embedded], [(second, first)]
        if self.context is not None:
            embedded, first, second = self.context(context)
            parts.append(embedded)
            maps.append((second, first))
        x = self.join(torch.cat(parts, 1)).unflatten(1, (-1, 7, 7))
        joined = {1: 0, 3: 1}  # which block's output meets which map
        for k, block in enumerate(self.blocks):
            if k:
                x = self._upsampled(k - 1, x)
            x = block(x)
            if self.skips and k in joined:
                x = torch.cat([x, *(m[joined[k]] for m in maps)], 1)
        return torch.sigmoid(self.output(x))

    def _upsampled(self, k: int, x: Tensor) -> Tensor:
        if self.up is not None:
            return self.up[k](x)
        return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def covered(crops: np.ndarray) -> np.ndarray:
    """Crops (B, S, S, 3) with the mouth's place grey: what the context encoder may see."""
    size = crops.shape[1]
    top, left, right = (round(v * size) for v in COVERED)
    out = crops.copy()
    out[:, top:, left:right] = 128
    return out


class SharpenerModel:
    """What a sharpener takes and gives, in an engine."""

    inputs = {"picture": (3, SIZE_PX, SIZE_PX)}
    outputs = ("sharper",)


class Speech2VidModel(LipSyncModel):
    """Five stills + 0.35 s of MFCC -> face, sharpened where its card names a sharpener."""

    inputs = {"mfcc": (1, MFCC, COLUMNS), "stills": (15, SIZE_PX, SIZE_PX)}
    audio = AudioWindow("mfcc12", COLUMNS, start_columns=START)
    roles = ("still",) * 5
    blend = "poisson"
    gated = False
    _sharpener = None

    def __init__(self, card: Card, engine: str = "auto") -> None:
        count = int(card.config.get("stills", 5))
        self.roles = ("still",) * count
        self.inputs = type(self).inputs | {"stills": (3 * count, SIZE_PX, SIZE_PX)}
        super().__init__(card, engine)
        if "sharpener" in card.parts:
            part = registry.cards().get(card.parts["sharpener"])
            if part is None or part.architecture != "sharpener":
                raise ModelError(
                    "The card of {card} names a sharpener {parts!r} that is not here: fetch it, or take it out of the "
                    "card's `parts`.",
                    card=card.name,
                    parts=card.parts["sharpener"],
                )
            kind = SharpenerModel
            self._sharpener = self.open_network(part, kind.inputs, kind.outputs, self._sharpener_sample, engine)

    @staticmethod
    def network(width: int = 64, stills: int = 5, skips: bool = True, transposed: bool = False) -> nn.Module:
        return Speech2Vid(width, stills, False, skips, transposed)

    @staticmethod
    def alignment_rule(card: Card) -> LandmarkRule:
        try:
            return LandmarkRule.from_card(card.crop)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                "The card of {card} does not say where landmarks lie in its crop ({error}): take the card of "
                "speech2vid-lab as an example.",
                card=card.name,
                error=error,
            ) from error

    def prepare(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> dict[str, np.ndarray]:
        return {"mfcc": windows[:, None], "stills": to_planes(references)}

    def finish(self, outputs: dict[str, np.ndarray], crops: np.ndarray, references: np.ndarray) -> np.ndarray:
        picture = outputs["picture"]
        if self._sharpener is not None:
            picture = self._sharpener.run({"picture": picture})["sharper"]
        return from_planes(picture)

    def _sharpener_sample(self) -> dict[str, np.ndarray]:
        return {"picture": self.sample()["stills"][:, :3]}


class Speech2VidContextModel(Speech2VidModel):
    """The context variant: the frame with its mouth covered is seen too, and the output replaces the crop."""

    inputs = {**Speech2VidModel.inputs, "context": (3, SIZE_PX, SIZE_PX)}
    blend = "replace"

    @staticmethod
    def network(width: int = 64, stills: int = 5, skips: bool = True, transposed: bool = False) -> nn.Module:
        return Speech2Vid(width, stills, True, skips, transposed)

    def prepare(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> dict[str, np.ndarray]:
        return super().prepare(crops, references, windows) | {"context": to_planes(covered(crops))}
