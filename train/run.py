"""Start or resume a run from its folder: `python -m train TASK --data OUT --run DIR [--resume]`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from lipsync.renamed import current_name

from .config import Config, TrainingError
from .data.arrays import Arrays, open_arrays
from .loop import Loop
from .tasks import OLD_NAMES, task_class
from .tasks.base import Task


def corrected(data: Path, splits: list[str]) -> Arrays:
    """The arrays of some splits; data/corrections.json, where there is one, says which clips to leave out and which
    offsets to read. Raises TrainingError where nothing is left."""
    fixes = json.loads((data / "corrections.json").read_text()) if (data / "corrections.json").exists() else {}
    arrays = open_arrays(data, splits, set(fixes.get("drop", [])), fixes.get("offsets", {}))
    if not arrays.clips:
        raise TrainingError(f"{data} has no clips left in {', '.join(splits)}: corrections.json drops them all.")
    return arrays


def pools(task: str, data: Path) -> tuple[Arrays, Arrays]:
    """The arrays to learn from and those that choose. The evaluator learns from its own split, of which every tenth
    person chooses."""
    learn, choose = task_class(task).splits
    if learn != choose:
        return corrected(data, [learn]), corrected(data, [choose])
    both = corrected(data, [learn])
    people = sorted(both.speakers, key=lambda s: -len(both.speakers[s]))
    if len(people) < 2:
        raise TrainingError(f"The split {learn!r} of {data} has one speaker: have another, who chooses checkpoints.")
    chosen = set(people[4::10] or people[-1:])  # every tenth, by number of clips: some with many, some with few
    return both.only(lambda c: c.speaker not in chosen), both.only(lambda c: c.speaker in chosen)


def build(config: Config, data: Path) -> Task:
    """The task of a configuration."""
    return task_class(config.task)(config, *pools(config.task, data))


def start(
    task: str,
    data: Path,
    run: Path,
    settings: Sequence[str],
    resume: bool = False,
    minutes: float | None = None,
    threads: int = 0,
) -> dict:
    """Train in this process, as one of several where torchrun started them; returns the last validation's figures."""
    if threads:
        torch.set_num_threads(threads)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if (run / "last.pt").exists() and not resume:
        raise TrainingError(f"{run} holds a run already: give --resume to go on, or another folder.")
    known = Config.load(run) if resume else None
    task = current_name(task, OLD_NAMES, "training task")
    if known and known.task != task:
        raise TrainingError(f"{run} holds a run of the {known.task}: resume it with `python -m train {known.task}`.")
    config = task_class(task).Config.with_settings(settings, known)
    torch.use_deterministic_algorithms(True, warn_only=True)
    made = build(config, data)
    both = sorted(set(made.teach.speakers) & set(made.tune.speakers))
    if both and rank == 0:
        print(f"{', '.join(both)} both learn and choose: the figures say little of people never seen.", file=sys.stderr)
    loop = Loop(made, config, run, rank, world)
    if resume:
        loop.resume()
    if rank == 0:
        run.mkdir(parents=True, exist_ok=True)
        config.save(run)
    try:
        return loop.go(minutes)
    finally:
        if world > 1:
            torch.distributed.destroy_process_group()
