"""How fast do runs learn against a plain loop? Same networks, same batches: float32, channels first, no work ahead."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .config import Config
from .loop import Loop
from .run import build


def speed(data: Path, steps: int = 6) -> dict[str, dict[str, float]]:
    """Windows a second of the expert, faces a second of the generator: ours, plain, and the ratio; `waits`: the share
    of ours that is spent waiting for data."""
    found = {}
    for config in (Config("expert", warmup=0, ramp=0), Config("generator", warmup=0, expert="")):
        ours, waits = _rate(config, data, steps, ahead=True)
        plain, _ = _rate(replace(config, bf16=False, channels_last=False), data, steps, ahead=False)
        found[config.task] = {"ours": ours, "plain": plain, "times": round(ours / plain, 2), "waits": waits}
    return found


def _rate(config: Config, data: Path, steps: int, ahead: bool) -> tuple[float, float]:
    task = build(config, data)
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(task, config, Path(folder))
        if ahead:
            loop.config = replace(config, steps=steps + 1, validate_every=10**9, save_every=10**9)
            loop._validate = lambda: {}
            loop.go()
            import json

            lines = [json.loads(x) for x in (Path(folder) / "log.jsonl").read_text().splitlines()][1:]
            rate = np.mean([1 / x[f"{task.unit}_a_second"] for x in lines])
            return round(1 / float(rate), 2), round(
                sum(x["waited_s"] for x in lines) / (rate * task.per_step * len(lines)), 3
            )
        rates = []
        for step in range(steps + 1):
            started = time.monotonic()
            drawn = task.batch(np.random.default_rng([0, step]), step)
            batch = {k: torch.from_numpy(v).to(loop.device) for k, v in drawn.items()}
            task.step(batch, loop)
            rates.append(time.monotonic() - started)
        return round(task.per_step / float(np.mean(rates[1:])), 2), 0.0
