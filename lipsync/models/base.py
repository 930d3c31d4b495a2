"""The contract of lip-sync models, and how a checkpoint becomes a model.

A model is a checkpoint with its card and how to feed it: which sound belongs to a frame, where its crop lies, which
pictures of the speaker it sees beside it, and how its crops go back. A new model is one file with a subclass of
`LipSyncModel` and one line in `MODELS` (lipsync/models/__init__.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from .. import audio
from ..checkpoints import registry
from ..checkpoints.registry import Card
from ..detail import mouth_of
from ..engines import BATCH, Engine, ModuleEngine, NetworkSpec, open_engine
from ..errors import ModelError
from ..geometry import CropRule, LandmarkRule, box_alignment, crop_face
from . import MODELS, model_class

if TYPE_CHECKING:
    from torch import nn

CELL = 160  # samples, 10 ms: the grain in which speech is told from silence
ROLES = ("closed", "open", "spread", "round", "still")  # what a reference picture is chosen by (faces/references.py)
BLENDS = ("mask", "poisson", "replace")


@dataclass(frozen=True)
class AudioWindow:
    """The sound that a model sees with a frame: `width` columns of a feature (a key of audio.FEATURES), beginning
    `start_frames` frames and `start_columns` columns from the frame itself."""

    feature: str
    width: int
    start_frames: int = 0
    start_columns: float = 0.0


def to_planes(pictures: np.ndarray) -> np.ndarray:
    """(B, S, S, C) uint8 -> (B, C, S, S) float32 0..1."""
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def from_planes(planes: np.ndarray) -> np.ndarray:
    """(B, 3, S, S) float32 0..1 -> (B, S, S, 3) uint8."""
    return (np.clip(planes, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def sample_faces(size_px: int) -> np.ndarray:
    """Faces to compare engines on, (BATCH, S, S, 3) uint8 RGB: the public-domain astronaut portrait, moved about."""
    from skimage.data import astronaut

    picture, moves = astronaut(), np.random.default_rng(0).uniform(-8, 8, (BATCH, 2))
    crops = [crop_face(picture, box_alignment(168 + x, 68 + y, 276 + x, 189 + y), size_px) for x, y in moves]
    return np.stack(crops)


class LipSyncModel(ABC):
    """One lip-sync model. True of every model: crops and pictures are RGB uint8, `size_px` square, cut by its own
    `alignment`; sound is its own `audio_features` of a 16 kHz waveform; the same inputs give the same picture; nothing
    is kept between calls, so that any thread may call it.

    inputs   name -> shape of one item, in the order of the network's arguments; outputs: names of what it returns
    audio    which sound belongs to a frame
    roles    references beside the frame, each one of ROLES
    blend    how its crops are put back, one of BLENDS: through the mouth's mask, by Poisson blending in it, or whole
    gated    silence between the words before the network hears it
    half_open    mouths come out less open than the speaker's: how far they open is fitted (lipsync.opening)
    """

    inputs: dict[str, tuple[int, ...]]
    outputs: ClassVar[tuple[str, ...]] = ("picture",)
    audio: AudioWindow
    roles: tuple[str, ...] = ("closed",)
    blend: str = "mask"
    gated: bool = True
    half_open: bool = True
    rule: CropRule | LandmarkRule

    def __init__(self, card: Card, engine: str = "auto") -> None:
        self.card, self.sha256 = card, registry.sha256(card.name)
        self.size_px = card.size_px
        self.rule = self.alignment_rule(card)
        self._engine = self.open_network(card, self.inputs, self.outputs, self.sample, engine)
        self.engine = self._engine.name

    @classmethod
    def around(cls, network: nn.Module, rule: CropRule | LandmarkRule | None = None) -> Self:
        """The model of a network in memory, without checkpoint or card: for training, where nothing is stored yet."""
        model = cls.__new__(cls)
        model.size_px = next(shape[-1] for shape in reversed(cls.inputs.values()))
        model.rule, model.engine = rule or CropRule(), "torch"
        model._engine = ModuleEngine(network, tuple(cls.inputs), cls.outputs)
        return model

    @staticmethod
    @abstractmethod
    def network(**config) -> nn.Module:
        """The network of a card's `config`; its tensors are those of the checkpoint."""

    @abstractmethod
    def prepare(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> dict[str, np.ndarray]:
        """Crops (B, S, S, 3) and R references (B, S, S, 3 R) uint8 RGB, windows (B, C, width) -> network inputs."""

    @abstractmethod
    def finish(self, outputs: dict[str, np.ndarray], crops: np.ndarray, references: np.ndarray) -> np.ndarray:
        """What the network returned -> pictures (B, S, S, 3) uint8 RGB."""

    @staticmethod
    def alignment_rule(card: Card) -> CropRule | LandmarkRule:
        """Where its crop lies; has `alignment(box, landmarks, pad) -> (2, 3)`. Raises ModelError for a card that does
        not say."""
        try:
            return CropRule.from_card(card.crop)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                "The card of {card} does not say how faces are cut (its crop is {crop!r}): take the card of a model "
                "like it as an example.",
                card=card.name,
                crop=card.crop,
            ) from error

    @staticmethod
    def open_network(card: Card, inputs, outputs, sample, engine: str) -> Engine:
        """A checkpoint in an engine: the model's own, or one of its card's `parts`."""
        return open_engine(NetworkSpec(card, tuple(inputs.items()), outputs, sample), engine)

    def audio_features(self, waveform: np.ndarray) -> np.ndarray:
        """The sound as the network sees it: waveform (S,) float32 16 kHz -> (C, T) float32.

        It is brought to one level first, so that a quiet recording moves the mouth as far as a loud one. Between the
        words the waveform is silenced (`gated`): breath and room noise would keep the mouth moving.
        """
        waveform = audio.levelled(waveform)
        if not self.gated:
            return audio.FEATURES[self.audio.feature].extract(waveform)
        cells = -(-len(waveform) // CELL)
        speech = np.repeat(audio.loud_frames(waveform, audio.SAMPLE_RATE // CELL, cells), CELL)[: len(waveform)]
        return audio.FEATURES[self.audio.feature].extract(waveform * speech)

    def windows(self, features: np.ndarray, first: int, count: int, fps: Fraction) -> np.ndarray:
        """The sound of frames first .. first + count - 1: (count, C, width) float32."""
        own = self.audio
        starts = audio.frame_columns(own.feature, first, count, fps, own.start_frames, own.start_columns)
        return audio.feature_windows(own.feature, features, starts, own.width)

    def silent_windows(self, count: int) -> np.ndarray:
        """The sound of frames in digital silence: (count, C, width) float32."""
        return np.repeat(self._silence, count, axis=0)

    @cached_property
    def _silence(self) -> np.ndarray:
        feature = audio.FEATURES[self.audio.feature]
        features = feature.extract(np.zeros(audio.SAMPLE_RATE, np.float32))
        return audio.feature_windows(self.audio.feature, features, [feature.rate // 4], self.audio.width)

    def generate(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """New faces (B, S, S, 3) uint8 RGB; arguments as for `prepare`."""
        return self.finish(self._engine.run(self.prepare(crops, references, windows)), crops, references)

    def response(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """What the sound does to mouths, (B, 3, 512) float32 grey levels: `detail.mouth_of` of what `generate` makes,
        less that of what it makes of silence."""
        made, rest = (self.generate(crops, references, w) for w in (windows, self.silent_windows(len(crops))))
        return np.stack([mouth_of(a) - mouth_of(b) for a, b in zip(made, rest, strict=True)])

    def refit(self, crops: np.ndarray, references: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """`generate` once more, from references that show what it made (faces.references.Roles.fitting)."""
        return self.generate(crops, references, windows)

    def sample(self) -> dict[str, np.ndarray]:
        """A batch of network inputs to compare engines on: the public-domain astronaut portrait, moved about, under
        varied sound."""
        crops, rng = sample_faces(self.size_px), np.random.default_rng(1)
        references = np.concatenate([np.roll(crops, 1, axis=0)] * len(self.roles), axis=3)
        seconds = 8 + BATCH / 25
        noise = rng.normal(0, 0.1, int(seconds * audio.SAMPLE_RATE)) * np.sin(np.arange(int(seconds * 16000)) / 1600)
        features = audio.FEATURES[self.audio.feature].extract(noise.astype(np.float32))
        return self.prepare(crops, references, self.windows(features, 50, BATCH, Fraction(25)))


def open_model(name: str, engine: str = "auto") -> LipSyncModel:
    """A model by its checkpoint's name (`python -m lipsync models`).

    Raises ModelError for a name that is unknown or no lip-sync model, or whose file is not here; EngineError.
    """
    cards = registry.cards()
    card = cards.get(name)
    if card is None or card.architecture not in MODELS:
        usable = [n for n, c in cards.items() if c.architecture in MODELS]
        raise ModelError(
            "There is no lip-sync model named {name!r}: choose one of {choices}.", name=name, choices=", ".join(usable)
        )
    registry.find(name)
    return model_class(card.architecture)(card, engine)
