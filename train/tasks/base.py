"""The contract of a training task: what loop.Loop trains, and what export writes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Config
from ..data.arrays import Arrays

if TYPE_CHECKING:
    from ..loop import Loop


class Task(ABC):
    """One kind of training. True of every task: a batch is a function of (seed, rank, step) alone; `networks` and
    `optimisers` are all that a run changes; the network that is kept is a checkpoint of `architecture`.

    Config    the task's own configuration
    splits    whose people it learns from, and whose people choose checkpoints; where both are one, every tenth person
              of it chooses
    kept      the network that becomes the checkpoint, a key of `networks`
    measure   the validation's figure that chooses it, more is better
    unit      what is counted: faces, windows
    """

    Config: ClassVar[type[Config]]
    splits: ClassVar[tuple[str, str]] = ("teach", "tune")
    kept: ClassVar[str]
    measure: ClassVar[str]
    unit: ClassVar[str]

    config: Config
    teach: Arrays
    tune: Arrays
    networks: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]
    per_step: int

    @abstractmethod
    def __init__(self, config: Config, teach: Arrays, tune: Arrays) -> None: ...

    @staticmethod
    @abstractmethod
    def architecture(config: Config) -> tuple[str, dict]:
        """Architecture and `config` of the checkpoint's card."""

    @staticmethod
    @abstractmethod
    def card(config: Config) -> dict:
        """What the card says of inputs and crop: `input`, `crop`."""

    @abstractmethod
    def batch(self, rng: np.random.Generator, step: int) -> dict[str, np.ndarray]:
        """The arrays of one step."""

    @abstractmethod
    def step(self, batch: dict[str, Tensor], loop: Loop) -> dict[str, float]:
        """One update of every network; the numbers of the log's line."""

    @abstractmethod
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Figures of the kept network on people never trained on, `measure` among them."""
