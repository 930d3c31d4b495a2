"""A run's configuration: one frozen dataclass, kept as config.json with the run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lipsync.errors import LipsyncError


class TrainingError(LipsyncError):
    """A run cannot start or go on; the sentence says why, and what is kept."""


@dataclass(frozen=True)
class Config:
    """Everything that decides a run, but the data and where it runs."""

    task: str  # expert, generator or judge
    steps: int = 4000
    seed: int = 0
    lr: float = 1e-3
    warmup: int = 100  # steps from 0 to lr; then a cosine down to a twentieth of it
    clip: float = 1.0  # largest gradient norm
    average: float = 0.998  # decay of the weights' running average, which is what is validated and kept; 0: none
    bf16: bool = True  # where the device computes in it (networks.has_bf16), else float32
    channels_last: bool = True
    base: int = 8  # the network's width; 16 is the published one for experts and generators, 32 for judges
    start: str = ""  # registered name or safetensors file to start from: warm start and fine-tuning
    validate_every: int = 200  # steps
    save_every: int = 100
    patience: int = 0  # validations without improvement after which the run ends; 0: never

    # experts and judges
    network: str = "compact"  # expert or discriminator: compact or published
    recipe: str = "contrastive"  # or bce: the published one, half own-clip negatives
    window: int = 5  # faces in a window: 1, 3 or 5 (the sound is 200 ms in all)
    speakers: int = 4  # groups of windows of one speaker in a batch
    windows: int = 32  # windows a group
    strength: float = 1.0  # of augmentation
    ramp: int = 200  # steps over which augmentation and contrast rise to their full strength
    shapes: float = 1.0  # weight of the auxiliary question for the mouth's shape
    misc: float = 0.5  # how often clips of unverified sync are drawn, against the others

    # generators
    batch: int = 4  # windows of five faces
    singles: int = 16  # faces beside them, each of another clip
    expert: str = "expert-lab"  # the frozen teacher: registered name or file; empty: none
    frozen: bool = True  # False: the teacher goes on learning on generated faces (the paper's ablation)
    sync: float = 0.02  # weight of the teacher's loss, by schedule
    sync_from: int = 0  # step at which the weight begins to rise
    sync_over: int = 300  # steps over which it rises
    warp: bool = False  # moves the pixels of four references (lipsync.networks.warp) instead of painting alone
    folds: float = 0.06  # warp: weight of the L1 between neighbouring displacements
    mixing: float = 0.002  # warp: weight of the entropy of the choice between references: mixed ones are blurred
    lips: float = 0.0  # weight of the L1 between the teacher's maps of the made and of the true lips
    edges: float = 1.0  # weight of the L1 between gradients of the picture, against blur
    quality: float = 0.0  # weight of the quality discriminator; 0 is Wav2Lip, 0.07 the published GAN
    hears: bool = False  # the compact discriminator hears the sound too: a face must fit it
    matching: float = 0.0  # weight of the L1 between the discriminator's maps of the made and of the true face
    mouth: float = 2.0  # how much more a pixel of the mouth counts than one of the cheek
    opening: float = 0.0  # how much more often an open mouth is drawn: most frames are nearly closed
    silence: float = 0.1  # share of windows that are taken where nobody speaks

    def save(self, run: Path) -> None:
        """Write run/config.json."""
        (run / "config.json").write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, run: Path) -> Config:
        """Read run/config.json. Raises TrainingError where the folder holds no run."""
        try:
            return cls(**json.loads((run / "config.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(f"{run} holds no run: its config.json cannot be read ({error}).") from error

    @classmethod
    def with_words(cls, task: str, words: list[str], known: Config | None = None) -> Config:
        """From NAME=VALUE words over the task's defaults (or over a known configuration). Raises TrainingError."""
        yes_or_no = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        values = asdict(known) if known else {"task": task} | DEFAULTS.get(task, {})
        kinds = {f.name: type(f.default) for f in fields(cls) if f.name != "task"}
        for word in words:
            name, _, value = word.partition("=")
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
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise TrainingError(f"{name} is one of {', '.join(map(str, allowed))}, not {getattr(self, name)!r}.")
        for name in ("steps", "base", "validate_every", "save_every", "speakers", "windows", "batch"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is 1 or more, not {getattr(self, name)}.")
        if self.windows % 4:
            raise TrainingError(f"windows is a multiple of 4, not {self.windows}: four are drawn from one clip.")


CHOICES = {"network": ("compact", "published"), "recipe": ("contrastive", "bce"), "window": (1, 3, 5)}

DEFAULTS: dict[str, dict] = {
    "expert": {"lr": 8e-4, "warmup": 20, "strength": 0.7, "misc": 0.3, "steps": 1200},
    "generator": {"lr": 6e-4, "steps": 4000, "strength": 0.4},
    "judge": {"lr": 1e-3, "base": 8, "steps": 1000, "speakers": 3, "windows": 32, "strength": 0.6, "misc": 0.3},
}
