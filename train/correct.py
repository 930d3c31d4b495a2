"""Sync correction: where an expert finds each clip's offset, what is shifted and what is dropped.

A source recorded or cut by one chain is late or early by one constant: its clips are shifted by their common offset.
Clips of mixed origin are shifted one by one where the expert is sure, and dropped where no shift fits better than
another.
Written to DATA/corrections.json, which every run reads. `python -m train correct --data DATA --expert NAME`.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np

from . import networks
from .data import open_arrays
from .measure import MOST, embed_clip, offset_curve

SURE = 0.35  # share of a curve's height that its peak must stand above the median to be believed
ENOUGH = 0.5  # share of a group's clips within a frame of the common offset for it to count as one source


def correct(data: Path, expert: str, splits: list[str], write: bool = True) -> dict:
    """Estimate offsets of all clips of some splits; returns what was found, by group."""
    network = networks.teacher(expert)
    arrays = open_arrays(data, splits, offsets={})
    curves = {
        clip.key: offset_curve(*embed_clip(network, arrays, i, network.window)) for i, clip in enumerate(arrays.clips)
    }
    found = {key: int(c.argmax()) - MOST for key, c in curves.items()}
    sure = {key: sureness(c) for key, c in curves.items()}
    known = json.loads((data / "corrections.json").read_text()) if (data / "corrections.json").exists() else {}
    offsets, drop, says = dict(known.get("offsets", {})), set(known.get("drop", [])), {}
    for group in sorted({c.group for c in arrays.clips}):
        keys = [c.key for c in arrays.clips if c.group == group]
        mean = np.mean([_finite(curves[k]) for k in keys], axis=0)
        common = int(mean.argmax()) - MOST
        agree = float(np.mean([abs(found[k] - common) <= 1 for k in keys]))
        says[group] = {"clips": len(keys), "common": common, "agree": round(agree, 3),
                       "histogram": dict(sorted(Counter(found[k] for k in keys).items()))}  # fmt: skip
        if agree >= ENOUGH:
            offsets[group] = common
            continue
        for key in keys:
            if sure[key] >= SURE:
                offsets[key] = found[key]
            else:
                drop.add(key)
        says[group] |= {"shifted": sum(k in offsets for k in keys), "dropped": sum(k in drop for k in keys)}
    if write:
        (data / "corrections.json").write_text(json.dumps({"offsets": offsets, "drop": sorted(drop)}, indent=1))
    return says


def sureness(curve: np.ndarray) -> float:
    """How far the peak stands above the median, against the spread between best and worst: 0.5 .. 1 when there is one
    peak."""
    curve = _finite(curve)
    away = np.delete(curve, range(max(curve.argmax() - 2, 0), curve.argmax() + 3))
    return float((curve.max() - away.max()) / max(np.ptp(curve), 1e-6)) if len(away) else 0.0


def _finite(curve: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(curve), curve, curve[np.isfinite(curve)].min())
