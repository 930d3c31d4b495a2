"""A model: a checkpoint with its card, and how to feed it. Other architectures join the `MODELS` table.

True of every model: it takes and gives RGB uint8 crops cut by its own `rule`, hears a 16 kHz waveform through its own
`hear` and `windows`, and keeps no state between calls.
"""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np

from .. import audio
from ..checkpoints import registry
from ..crop import CropRule, from_network, to_network
from ..engines import open_engine
from ..errors import ModelError

CELL = 160  # samples, 10 ms: the grain in which speech is told from silence


class Wav2LipModel:
    """Wav2Lip (arXiv 2008.10010): masked face + reference face + 200 ms of mel -> face. Others change what differs."""

    references = 1  # pictures of the speaker beside the frame: 1 (references.Resting) or 4 (references.Roles)

    def __init__(self, name: str, engine: str = "auto") -> None:
        self.card = registry.cards()[name]
        try:
            self.rule = CropRule.from_card(self.card.crop)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"The card of {name} does not say how faces are cut (its crop is {self.card.crop!r}): "
                f"take the card of a model like it as an example."
            ) from error
        self.sha256 = registry.sha256(name)
        self._engine = open_engine(name, engine)
        self.engine = self._engine.name

    def hear(self, waveform: np.ndarray) -> np.ndarray:
        """The sound as the network hears it: waveform (S,) float32 16 kHz -> mel (80, T) float32.

        It is brought to one level first, so that a quiet recording moves the mouth as far as a loud one. Between the
        words the waveform is silenced: breath and room noise would keep the mouth moving.
        """
        waveform = audio.levelled(waveform)
        cells = -(-len(waveform) // CELL)
        speech = np.repeat(audio.loud_frames(waveform, audio.SAMPLE_RATE // CELL, cells), CELL)[: len(waveform)]
        return audio.mel(waveform * speech)

    def windows(self, mel: np.ndarray, first: int, count: int, fps: Fraction) -> np.ndarray:
        """What frames first .. first + count - 1 hear: (count, 80, 16) float32."""
        return audio.mel_windows_at(mel, count, fps, self.card.mel_start_frames + first)

    def generate(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """New faces (B, 96, 96, 3) uint8 RGB from crops (B, 96, 96, 3), references (B, 96, 96, 3 * references) and
        windows (B, 80, 16)."""
        return from_network(self._engine.run(windows[:, None], to_network(crops, references)))


class WarpModel(Wav2LipModel):
    """Wav2Lip's network with four references and flows for output (networks/warp.py)."""

    references = 4

    def generate(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> np.ndarray:
        maps = self._engine.run(windows[:, None], to_network(crops, references))
        return np.stack([composed(m, r) for m, r in zip(maps, references, strict=True)])


def composed(maps: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The picture (S, S, 3) uint8 RGB of a Warp network's maps (16, S, S) and references (S, S, 12) uint8 RGB."""
    size = maps.shape[1]
    count = references.shape[2] // 3
    colours, flow, weights = np.split(maps, (3, 3 + 2 * count))
    picture = colours[::-1].transpose(1, 2, 0) * weights[count, ..., None] * np.float32(255)
    across, down = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    for k in range(count):
        moved = cv2.remap(
            np.ascontiguousarray(references[..., 3 * k : 3 * k + 3]), across + size * flow[2 * k],
            down + size * flow[2 * k + 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        picture += weights[k, ..., None] * moved
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


MODELS = {"wav2lip": Wav2LipModel, "wav2lip-warp": WarpModel}


def open_model(name: str, engine: str = "auto") -> Wav2LipModel:
    """A model by its checkpoint's name (`python -m lipsync models`).

    Raises ModelError for a name that is unknown or no lip-sync model, or whose file is not here; EngineError.
    """
    card = registry.cards().get(name)
    usable = [n for n, c in registry.cards().items() if c.architecture in MODELS]
    if card is None or card.architecture not in MODELS:
        raise ModelError(f"There is no lip-sync model named {name!r}: choose one of {', '.join(usable)}.")
    registry.find(name)
    return MODELS[card.architecture](name, engine)
