"""Closure at p, b and m (eval.metrics.closure) of systems, on the pairs of a set whose voices have phoneme times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.closure import closures, spoken_at
from eval.metrics.closure import evaluate
from lipsync.errors import LipsyncError
from lipsync.progress import Monitor

from .records import BenchmarkError, BenchmarkSet
from .runner import pair_file


def closure_rows(chosen: BenchmarkSet, folders: Sequence[Path], monitor: Monitor | None = None) -> list[dict[str, Any]]:
    """A row a folder of videos ID.mp4, as the runner keeps them or a submission holds them: its name, the figures of
    metrics.closure.evaluate, `missing` (how many pairs have no video there) and `failed` (pair to reason).

    Raises BenchmarkError where no voice of the set has phoneme times.
    """
    monitor = monitor or Monitor()
    times = {pair.id: pair.voice.path.with_suffix(".json") for pair in chosen.pairs}
    spoken = {pair: moments for pair, path in times.items() if path.exists() and len(moments := spoken_at(path))}
    if not spoken:
        raise BenchmarkError(
            "No voice of the set {name} has phoneme times: a file of the voice's name that ends in .json.",
            name=chosen.name,
        )
    rows, total = [], len(folders) * len(spoken)
    for turn, folder in enumerate(folders):
        events: list[np.ndarray] = []
        failed: dict[str, str] = {}
        missing = 0
        for k, (pair, moments) in enumerate(spoken.items()):
            monitor.step("pairs", turn * len(spoken) + k, total)
            video = folder / f"{pair_file(pair)}.mp4"
            if not video.exists():
                missing += 1
                continue
            try:
                events.append(closures(video, moments))
            except LipsyncError as error:
                failed[pair] = str(error)
        rows.append({"system": folder.name} | evaluate(events) | {"missing": missing, "failed": failed})
    monitor.step("pairs", total, total)
    return rows
