"""Training tasks: one line in `TASKS` and one file a task."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lipsync.renamed import current_name

from ..config import Config, TrainingError

if TYPE_CHECKING:
    from .base import Task

# Name -> module of train.tasks and class, or a class.
TASKS: dict[str, str | type[Task]] = {
    "sync_expert": "sync_expert:ExpertTask",
    "wav2lip": "wav2lip:GeneratorTask",
    "syncnet": "syncnet:SyncNetTask",
    "lipgan": "lipgan:LipGANTask",
    "speech2vid": "speech2vid:Speech2VidTask",
    "sharpener": "speech2vid:SharpenerTask",
    "occlusion": "occlusion:OcclusionTask",
}
OLD_NAMES = {"expert": "sync_expert", "generator": "wav2lip", "judge": "syncnet"}  # of before 2026-12, still read


def task_class(name: str) -> type[Task]:
    """The task of a name. Raises TrainingError where there is none."""
    name = current_name(name, OLD_NAMES, "training task")
    if name not in TASKS:
        raise TrainingError(f"There is no training task {name!r}: choose one of {', '.join(TASKS)}.")
    entry = TASKS[name]
    if not isinstance(entry, str):
        return entry
    module, _, kind = entry.partition(":")
    return getattr(importlib.import_module(f"train.tasks.{module}"), kind)


def config_class(name: str) -> type[Config]:
    """The configuration of a task."""
    return task_class(name).Config
