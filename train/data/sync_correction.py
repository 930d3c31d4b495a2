"""Sync correction: how late each source's sound is, what is shifted, and what is dropped.

What one chain recorded or cut is late or early by one constant: all clips of a speaker are shifted by what their summed
curve says, to a quarter of a frame (10 ms, a row of MFCC). Where a speaker's clips do not agree, each is shifted by its
own where the network is sure, and dropped where no shift fits better than another. `--zero GROUP` calls the median
of that group's speakers in sync: a network knows no other zero than the mean of what it learnt from.
Written to DATA/corrections.json, which every run reads. `python -m train correct --data DATA --expert NAME`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .. import networks
from ..config import TrainingError
from ..metrics import MOST, embed_clip, offset_curve
from .arrays import Arrays, open_arrays

SURE = 0.25  # how far a curve's peak must stand above all shifts that are not its neighbours, against its whole height
ENOUGH = 0.5  # share of a speaker's clips that must lie within a frame and a half of their common offset
FURTHEST = 8.0  # frames: a peak beyond it may be the edge of something further away
FEWEST = 15  # windows: shorter clips say nothing by themselves


def correct(data: Path, network: str, splits: list[str], zero: str = "", write: bool = True) -> dict:
    """Estimate offsets of all speakers and clips of some splits, by an expert or an evaluator; returns what was found.

    network  a checkpoint's name or file: an expert, or an evaluator (which should only ever correct its own split)
    zero     group of clips whose speakers' median offset counts as in sync; empty: the network's own zero
    """
    arrays = open_arrays(data, splits, offsets={})
    embed = _embedder(network, arrays)
    curves = {}
    for i, clip in enumerate(arrays.clips):
        audio, face = embed(i)
        if len(face) >= FEWEST:
            curves[clip.key] = (offset_curve(audio, face), len(face))
    offsets: dict[str, float] = {}  # of clips
    people: dict[str, float] = {}  # of speakers, as far as their clips agree
    drop: list[str] = []
    for speaker, ids in arrays.speakers.items():
        keys = [arrays.clips[i].key for i in ids]
        asked = [k for k in keys if k in curves]
        if asked:
            common = np.average([_finite(curves[k][0]) for k in asked], axis=0, weights=[curves[k][1] for k in asked])
            agree = np.mean([abs(peak(curves[k][0]) - peak(common)) <= 1.5 for k in asked])
            if agree >= ENOUGH and sureness(common) >= SURE and abs(peak(common)) <= FURTHEST:
                people[speaker] = peak(common)
                offsets |= dict.fromkeys(keys, people[speaker])
                continue
        for key in keys:
            curve = curves.get(key, (None, 0))[0]
            if curve is not None and sureness(curve) >= SURE and abs(peak(curve)) <= FURTHEST:
                offsets[key] = peak(curve)
            else:
                drop.append(key)
    groups = {c.speaker: c.group for c in arrays.clips}
    zeros = [v for k, v in people.items() if groups[k] == zero]
    if zero and not zeros:
        raise TrainingError(
            f"No speaker of the group {zero!r} agrees on an offset, so that it cannot say what counts as in sync; the "
            f"groups here are {', '.join(sorted(set(groups.values())))}."
        )
    still = float(np.median(zeros)) if zero else 0.0
    offsets, people = ({k: round((v - still) * 4) / 4 for k, v in d.items()} for d in (offsets, people))
    keys = {c.key for c in arrays.clips}
    if write:
        path = data / "corrections.json"
        known = json.loads(path.read_text()) if path.exists() else {"offsets": {}, "drop": []}
        fixes = {
            "offsets": {k: v for k, v in known["offsets"].items() if k not in keys} | offsets,
            "drop": sorted((set(known["drop"]) - keys) | set(drop)),
        }
        path.write_text(json.dumps(fixes, indent=1))
    says: dict = {"zero": round(still, 2)}
    for group in sorted(set(groups.values())):
        own = {c.key for c in arrays.clips if c.group == group}
        says[group] = {
            "clips": len(own),
            "shifted": sum(offsets.get(k, 0) != 0 for k in own),
            "dropped": len(own & set(drop)),
            "speakers": sum(g == group for g in groups.values()),
            "offsets": {s: v for s, v in people.items() if groups[s] == group},
        }
    return says


def _embedder(source: str, arrays: Arrays):
    state = networks.weights(source)
    if "netcnnlip.0.weight" in state:
        from ..tasks import syncnet as evaluator

        network = networks.trained_evaluator(source)
        return lambda i: evaluator.embed_clip(network, arrays, i)
    network = networks.trained_expert(source)
    return lambda i: embed_clip(network, arrays, i, network.window)


def peak(curve: np.ndarray) -> float:
    """Where a curve over shifts -MOST .. MOST is highest, in frames, by a parabola through its three highest points."""
    curve = _finite(curve)
    k = int(curve.argmax())
    if not 0 < k < len(curve) - 1:
        return float(k - MOST)
    bend = curve[k - 1] - 2 * curve[k] + curve[k + 1]
    return float(k - MOST + (0.5 * (curve[k - 1] - curve[k + 1]) / bend if bend else 0.0))


def sureness(curve: np.ndarray) -> float:
    """How far the peak stands above the median, against the spread between best and worst: 0.5 .. 1 when there is one
    peak."""
    curve = _finite(curve)
    away = np.delete(curve, slice(max(curve.argmax() - 2, 0), curve.argmax() + 3))
    return float((curve.max() - away.max()) / max(np.ptp(curve), 1e-6)) if len(away) else 0.0


def _finite(curve: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(curve), curve, curve[np.isfinite(curve)].min())
