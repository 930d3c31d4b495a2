"""Configuration of a run: one frozen dataclass a task, kept as config.json with the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar, Self

from lipsync.errors import LipsyncError
from lipsync.renamed import current_name, current_names

# Names of before 2026-12, still read in settings and in runs.
OLD_NAMES = {"base": "width", "clip": "max_grad_norm", "average": "ema_decay", "strength": "aug_strength"}


class TrainingError(LipsyncError):
    """A run cannot start or go on; the sentence says why, and what is kept."""


@dataclass(frozen=True)
class Config:
    """What decides every run, but the data and where it runs; each task adds its own."""

    task: str = ""  # a key of tasks.TASKS
    steps: int = 4000
    seed: int = 0
    lr: float = 1e-3
    warmup: int = 100  # steps from 0 to lr; then a cosine down to a twentieth of it
    max_grad_norm: float = 1.0
    ema_decay: float = 0.998  # of the weights' running average, which is what is validated and kept; 0: none
    bf16: bool = True  # where the device computes in it (networks.has_bf16), else float32
    channels_last: bool = True
    width: int = 8  # of the network; 16 is the published one for experts and generators, 32 for SyncNet
    start: str = ""  # registered name or safetensors file to start from: warm start and fine-tuning
    validate_every: int = 200  # steps
    save_every: int = 100
    patience: int = 0  # validations without improvement after which the run ends; 0: never
    aug_strength: float = 1.0  # of augmentation
    ramp: int = 200  # steps over which augmentation and adversaries rise to their full strength
    misc: float = 0.5  # how often clips of unverified sync are drawn, against the others

    choices: ClassVar[dict[str, tuple]] = {}
    at_least_1: ClassVar[tuple[str, ...]] = ("steps", "width", "validate_every", "save_every")

    def save(self, run: Path) -> None:
        """Write run/config.json."""
        (run / "config.json").write_text(json.dumps(asdict(self), indent=1))

    @staticmethod
    def load(run: Path) -> Config:
        """Read run/config.json. Raises TrainingError where the folder holds no run."""
        from .tasks import config_class

        try:
            stored = current_names(json.loads((run / "config.json").read_text()), OLD_NAMES, "setting")
            kind = config_class(stored["task"])
            known = {f.name for f in fields(kind)}
            return kind(**{k: v for k, v in stored.items() if k in known} | {"task": kind.task})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise TrainingError(f"{run} holds no run: its config.json cannot be read ({error}).") from error

    @classmethod
    def with_settings(cls, settings: Sequence[str], known: Config | None = None) -> Self:
        """From NAME=VALUE settings over the task's defaults (or over a known configuration). Raises TrainingError."""
        yes_or_no = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        values = asdict(known) if known else {}
        kinds = {f.name: type(f.default) for f in fields(cls) if f.name != "task"}
        for setting in settings:
            name, _, value = setting.partition("=")
            name = current_name(name, OLD_NAMES, "setting")
            if name not in kinds:
                raise TrainingError(f"There is no setting {name!r}: choose from {', '.join(kinds)}.")
            try:
                values[name] = yes_or_no[value.lower()] if kinds[name] is bool else kinds[name](value)
            except (ValueError, KeyError) as error:
                raise TrainingError(f"{name} wants {kinds[name].__name__}, not {value!r}.") from error
        config = cls(**values)
        config.check()
        return config

    def check(self) -> None:
        """Raises TrainingError, a sentence, for a value that no run can begin with."""
        for name, allowed in self.choices.items():
            if getattr(self, name) not in allowed:
                raise TrainingError(f"{name} is one of {', '.join(map(str, allowed))}, not {getattr(self, name)!r}.")
        for name in self.at_least_1:
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is 1 or more, not {getattr(self, name)}.")
