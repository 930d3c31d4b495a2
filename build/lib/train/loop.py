"""The loop that every run goes through: steps, log, checkpoints, exact resume, several processes, clear stops.

A run's folder holds config.json, log.jsonl (a line a step and a validation), last.pt (everything needed to go on,
written whole or not at all) and best.safetensors (the averaged weights that validated best). Random numbers of a step
come from (seed, rank, step) alone, so that a killed and resumed run ends bit-equal on a CPU to one that was left alone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from .config import Config, TrainingError
from .data.arrays import Arrays
from .networks import autocast

FULL = (errno.ENOSPC, errno.EDQUOT)
# What torch and safetensors make of them; "unexpected pos": of a torch file less was written than asked.
FULL_SIGNS = ("No space left", "unexpected pos", "(os error 28)", "(os error 122)")


class Task(Protocol):
    """What is trained. `kept` names the network whose averaged weights are validated and kept."""

    teach: Arrays  # to learn from
    tune: Arrays  # that choose
    networks: dict[str, nn.Module]
    optimisers: dict[str, Optimizer]
    kept: str
    measure: str  # the validation's figure that chooses the best checkpoint; larger is better
    unit: str  # what is counted for the speed: windows or faces
    per_step: int

    def batch(self, rng: np.random.Generator, step: int) -> dict[str, np.ndarray]: ...

    def step(self, batch: dict[str, Tensor], loop: Loop) -> dict[str, float]: ...

    def validate(self, network: nn.Module) -> dict[str, float]: ...


class Loop:
    """One run of one process. `rank` and `world` tell it from the others of a torch.distributed group."""

    def __init__(self, task: Task, config: Config, run: Path, rank: int = 0, world: int = 1) -> None:
        self.task, self.config, self.run, self.rank, self.world = task, config, run, rank, world
        self.step, self.best, self.waits = 0, -float("inf"), 0
        self.device = (
            torch.device("cuda", rank % torch.cuda.device_count()) if torch.cuda.is_available() else torch.device("cpu")
        )
        for network in task.networks.values():
            network.to(self.device)
            if config.channels_last:
                for p in network.parameters():
                    if p.ndim == 4:  # nn.Module.to refuses networks that have 3D layers too
                        p.data = p.data.contiguous(memory_format=torch.channels_last)
        kept = task.networks[task.kept]
        self.average = {k: v.detach().clone() for k, v in kept.state_dict().items()} if config.average else {}

    # --- what tasks use ---------------------------------------------------------------------------------------

    def autocast(self) -> torch.autocast:
        """bfloat16 where the run says so and the device computes in it."""
        return autocast(self.device, self.config.bf16)

    def learn(self, optimiser: str, loss: Tensor) -> float:
        """Backward, averaged over the processes, clipped, one step at the scheduled rate; returns the gradient's norm.

        Raises TrainingError, the weights untouched, where the loss or the gradient is not a number.
        """
        optimise = self.task.optimisers[optimiser]
        parameters = [p for group in optimise.param_groups for p in group["params"]]
        optimise.zero_grad(set_to_none=True)
        loss.backward()
        if self.world > 1:
            flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in parameters])
            torch.distributed.all_reduce(flat)
            for p, part in zip(parameters, (flat / self.world).split([p.numel() for p in parameters]), strict=True):
                p.grad = part.view_as(p)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        if not torch.isfinite(norm) or not torch.isfinite(loss.detach()):
            raise TrainingError(
                f"Step {self.step}: the loss is {float(loss.detach()):.3g} and its gradient {float(norm):.3g}. "
                f"The run stops; {self.run / 'last.pt'} holds the last good state: resume with a lower lr or clip, "
                f"or without bf16."
            )
        for group in optimise.param_groups:
            group["lr"] = self.rate() * group.get("scale", 1.0)
        optimise.step()
        return float(norm)

    def rate(self) -> float:
        """The learning rate of this step."""
        c = self.config
        if self.step < c.warmup:
            return c.lr * (self.step + 1) / c.warmup
        done = min(1.0, (self.step - c.warmup) / max(c.steps - c.warmup, 1))
        return c.lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))

    # --- the run ----------------------------------------------------------------------------------------------

    def go(self, minutes: float | None = None) -> dict[str, float]:
        """Train until the configured step, the end of patience, or so many minutes; returns the last validation."""
        started, figures = time.monotonic(), {}
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._draw, self.step)
            while self.step < self.config.steps:
                t0 = time.monotonic()
                batch = {k: torch.from_numpy(v).to(self.device) for k, v in coming.result().items()}
                waited = time.monotonic() - t0
                coming = ahead.submit(self._draw, self.step + 1)
                for network in self.task.networks.values():
                    network.train()
                numbers = self.task.step(batch, self)
                self._average()
                self.step += 1
                took = time.monotonic() - t0
                self._log({"step": self.step, "lr": self.rate(), **numbers, "waited_s": round(waited, 4),
                           f"{self.task.unit}_a_second": round(self.task.per_step * self.world / took, 2)})  # fmt: skip
                last = self.step >= self.config.steps
                out_of_time = minutes is not None and bool(self._agreed(time.monotonic() - started > 60 * minutes))
                if self.step % self.config.validate_every == 0 or last or out_of_time:
                    figures = self._validate()
                if self.step % self.config.save_every == 0 or last or out_of_time:
                    self.save()
                if out_of_time or self.config.patience and self.waits >= self.config.patience:
                    break
        self.save()
        return figures

    def _draw(self, step: int) -> dict[str, np.ndarray]:
        return self.task.batch(np.random.default_rng([self.config.seed, self.rank, step]), step)

    def _average(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        for key, value in self.task.networks[self.task.kept].state_dict().items() if self.average else ():
            if value.is_floating_point():
                self.average[key].lerp_(value.detach(), 1 - decay)
            else:
                self.average[key].copy_(value)

    def _validate(self) -> dict[str, float]:
        """Validate the averaged weights (rank 0 alone), keep them where they are the best so far."""
        figures: dict[str, float] = {}
        kept = self.task.networks[self.task.kept]
        if self.rank == 0:
            own = {k: v.detach().clone() for k, v in kept.state_dict().items()}
            kept.load_state_dict(self.average or own)
            kept.eval()
            with torch.no_grad():
                figures = self.task.validate(kept)
            if figures[self.task.measure] > self.best:
                self.best, self.waits = float(figures[self.task.measure]), 0
                best = {k: v.contiguous().cpu() for k, v in kept.state_dict().items()}
                self._write(lambda path: save_file(best, path), "best.safetensors")
            else:
                self.waits += 1
            kept.load_state_dict(own)
            kept.train()
            self._log({"step": self.step, "processes": self.world, "validation": figures})
        self.waits = int(self._agreed(self.waits))
        return figures

    def _agreed(self, value: float) -> float:
        """Rank 0's value, in every process: each has its own clock, and only one validates."""
        if self.world == 1:
            return value
        told = torch.tensor([float(value)], device=self.device)
        torch.distributed.broadcast(told, 0)
        return float(told)

    # --- files ------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write last.pt. Raises TrainingError where the disk is full; the one before is kept."""
        if self.rank == 0:
            state = {
                "networks": {k: n.state_dict() for k, n in self.task.networks.items()},
                "optimisers": {k: o.state_dict() for k, o in self.task.optimisers.items()},
                "average": self.average, "step": self.step, "best": self.best, "waits": self.waits,
            }  # fmt: skip
            self._write(lambda path: torch.save(state, path), "last.pt")

    def resume(self) -> None:
        """Go on from last.pt. Raises TrainingError where there is none, or one of other networks."""
        path = self.run / "last.pt"
        if not path.exists():
            raise TrainingError(f"{self.run} holds no last.pt to resume from: start the run without --resume.")
        state = torch.load(path, map_location=self.device, weights_only=True)
        try:
            for name, network in self.task.networks.items():
                network.load_state_dict(state["networks"][name])
            for name, optimiser in self.task.optimisers.items():
                optimiser.load_state_dict(state["optimisers"][name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"{path} was written under settings that made other networks ({str(error).splitlines()[0]}): resume "
                f"with those of {self.run / 'config.json'}, or begin another run with "
                f"start={self.run / 'best.safetensors'}."
            ) from error
        self.average, self.step, self.best, self.waits = (state[k] for k in ("average", "step", "best", "waits"))
        if self.rank == 0:  # lines after the checkpoint belong to steps that are made again
            kept = [line for line in read_log(self.run) if line["step"] <= self.step]
            (self.run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))

    def _log(self, line: dict) -> None:
        if self.rank == 0:
            short = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in line.items()}
            self._guard(lambda: _append(self.run / "log.jsonl", json.dumps(short)))

    def _write(self, write, name: str) -> None:
        temporary = self.run / f".{name}.part"

        def whole() -> None:
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.replace(self.run / name)

        try:
            self._guard(whole)
        finally:
            temporary.unlink(missing_ok=True)

    def _guard(self, do) -> None:
        try:
            do()
        except (OSError, RuntimeError, SafetensorError) as error:
            full = getattr(error, "errno", None) in FULL or any(sign in str(error) for sign in FULL_SIGNS)
            if not full:
                raise
            raise TrainingError(
                f"The disk of {self.run} is full ({error}). The run stops at step {self.step}; "
                f"the checkpoint before is whole: make room and resume."
            ) from error


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


def read_log(run: Path) -> list[dict]:
    """The lines of run/log.jsonl; one that is being written, or was when the run was killed, is left out."""
    lines = []
    for line in (run / "log.jsonl").read_text().splitlines() if (run / "log.jsonl").exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines
