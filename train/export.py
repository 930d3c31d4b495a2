"""A run's best weights as a registered checkpoint: packed safetensors, a card, and what packing cost."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lipsync.checkpoints import quantize as packing
from lipsync.checkpoints import registry
from lipsync.checkpoints import state_dict as fitting

from .config import Config, TrainingError
from .data.shards import FPS
from .loop import read_log
from .run import build


def export(
    run: Path,
    data: Path,
    name: str,
    form: str,
    folder: Path,
    licence: str = "research use only",
    note: str = "",
    source: str = "the trainer's own clips",
    parts: Mapping[str, str] | None = None,
) -> dict:
    """Write folder/NAME.safetensors and its card from run/best.safetensors; returns the card.

    form   bf16 or int8 (packing.pack); the best weights are validated before and after, and the card says both
    source where the faces come from, a sentence for the card
    parts  second networks of the model, by what they do: names of other checkpoints
    """
    config = Config.load(run)
    if not (run / "best.safetensors").exists():
        raise TrainingError(f"{run} has no best.safetensors yet: it is written at the first validation.")
    plain = fitting.read(run / "best.safetensors")
    packed = packing.pack(plain, form)
    task = build(config, data)
    network = task.networks[task.kept]
    figures = [_validated(task, network, state) for state in (plain, packing.unpack(packed))]
    learn, choose = task.teach, task.tune
    architecture, dimensions = task.architecture(config)
    checks = [line for line in read_log(run) if "validation" in line]
    best = max(checks, key=lambda line: line["validation"][task.measure])  # the first of the best: that was kept
    seen = best["step"] * task.per_step * best.get("processes", 1)
    card = {
        "architecture": architecture,
        "config": dimensions,
        **({"parts": dict(parts)} if parts else {}),
        "parameters": sum(v.numel() for v in plain.values()),
        "dtype": f"weights of two or more axes {form}, the rest float32",
        "licence": licence,
        "origin": f"trained for this project by `python -m train {config.task}`",
        **task.card(config),
        "data": {
            "learnt from": _people(learn),
            "chosen on": _people(choose),
            "note": source,
        },
        "training": {
            "steps": best["step"],
            "seen": f"{seen} {task.unit}",
            "started from": _named(config.start) or "random weights",
            "commit": _commit(),
            "config": {k: _named(v) for k, v in asdict(config).items()},
        },
        "metrics": {"chosen on": figures[0], "as stored": figures[1]},
        "note": note,
    }
    weights = run / f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in packed.items()}, weights)
    registry.register(weights, card, folder)
    return card


def _validated(task, network: torch.nn.Module, state: dict[str, Tensor]) -> dict[str, float]:
    network.load_state_dict(state)
    network.eval()
    with torch.no_grad():
        return {k: round(v, 4) for k, v in task.validate(network).items()}


def _people(arrays) -> dict:
    minutes = sum(c.frames for c in arrays.clips) / FPS / 60
    return {"clips": len(arrays.clips), "speakers": len(arrays.speakers), "minutes": round(minutes, 1)}


def _named(value: object) -> object:
    """A file's name in place of its path, which says something about this machine alone; a run's name for its best."""
    if isinstance(value, str) and value.endswith((".safetensors", ".pth", ".pt")):
        path = Path(value)
        return path.parent.name if path.stem in ("best", "last") else path.stem
    return value


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
