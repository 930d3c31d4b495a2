"""Final figures on people never trained on: `python -m train evaluate --data DATA --evaluator E`.

Every share comes with n and Wilson's 95 % interval, by group of clips. The evaluator (or expert) is first shown to find
known shifts on the untouched clips of the same sets; output is then asked under a foreign voice, beside the untouched
original under that voice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from lipsync.models import lipgan

from . import networks
from .config import TrainingError
from .data.arrays import Arrays, face_region, feature_window, no_augmentation, open_arrays
from .data.shards import SIZE_PX
from .data.sync_correction import SURE, peak, sureness
from .inference import (
    crops,
    foreign,
    generate,
    lip_gaps,
    mels_of,
    movement,
    movements,
    psnr,
    references_of,
    sharpness,
    ssim,
)
from .metrics import CHANCE, MOST, embed_clip, interval, offset_curve, sync_accuracy
from .tasks import syncnet
from .tasks.wav2lip import bgr_planes

MOST_FRAMES = 75  # of a clip that are generated: three seconds
SHIFTS = (-6, -3, 0, 3, 6)  # frames by which the evaluator's sound is shifted, to see that it says so


def share(flags: Iterable[float]) -> str:
    """'83.3 % (64.1 to 93.3), n = 24'."""
    hits = [bool(f) for f in flags]
    if not hits:
        return "n = 0"
    low, high = interval(sum(hits), len(hits))
    return f"{np.mean(hits):.1%} ({low:.1%} to {high:.1%}), n = {len(hits)}"


def sync_report(embed, arrays: Arrays, clips: Iterable[int], sound: set[int] | None = None) -> dict[str, str | float]:
    """An expert or evaluator on untouched clips: pairs told apart, offsets found, known shifts found.

    sound    clips known by another network to be in sync: the same once more for these alone
    returns  offsets within a frame of 0, and within a frame of the speaker's own median (sources are late or early by
             constants), for speakers of three clips or more
    """
    apart, found, shifted, speakers = [], [], [], []
    clips = list(clips)
    for i in clips:
        audio, face = embed(i)
        apart.append(sync_accuracy(audio, face)[0])
        found.append(int(offset_curve(audio, face).argmax()) - MOST)
        speakers.append(arrays.clips[i].speaker)
        hits = []
        for shift in SHIFTS:
            pushed = np.roll(audio, shift, axis=0)
            keep = slice(max(shift, 0), len(audio) + min(shift, 0))
            got = int(offset_curve(pushed[keep], face[keep]).argmax()) - MOST
            hits.append(abs(got - shift) <= 1)
        shifted.append(hits)
    at, who = np.array(found), np.array(speakers)
    own = [abs(f - np.median(at[who == s])) <= 1 for f, s in zip(at, who, strict=True) if (who == s).sum() >= 3]
    out = {
        "sync_accuracy": round(float(np.mean(apart)), 4),
        "offset_within_1": share(np.abs(at) <= 1),
        "offset_within_1_of_speaker": share(own) if own else "",
        "chance": round(CHANCE, 3),
        "known_shifts_within_1": share(h for hits in shifted for h in hits),
    }
    if sound is not None:
        inside = [k for k, i in enumerate(clips) if i in sound]
        out |= {
            "sound_clips_told_apart": round(float(np.mean([apart[k] for k in inside])), 4) if inside else "",
            "sound_clips_offset_within_1": share(abs(at[k]) <= 1 for k in inside),
            "sound_clips_known_shifts_within_1": share(h for k in inside for h in shifted[k]),
        }
    return out


def embed_by_discriminator(network: lipgan.Discriminator, arrays: Arrays, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Sound and face embeddings (N, D) of a clip by LipGAN's discriminator, which sees the middle frame of each of the
    windows of five that the expert sees: the more alike, the nearer to in sync."""
    augment, clip, rows = no_augmentation(), arrays.clips[i], arrays.feature(i, "mfcc12")
    middles = range(2, clip.frames - 2)
    frames = arrays.frames(i)
    faces = np.stack([bgr_planes(augment(frames[t])) for t in middles])
    heard = np.stack([feature_window(rows, "mfcc12", clip, t, lipgan.COLUMNS, lipgan.START) for t in middles])
    with torch.no_grad():
        seen = network.face(torch.from_numpy(faces).float() / 255).numpy()
        return network.audio(torch.from_numpy(heard)[:, None]).numpy(), seen


def in_sync(embed, clips: Iterable[int]) -> set[int]:
    """Clips whose sync a network believes to be sound: one clear peak, within a frame of 0."""
    curves = {i: offset_curve(*embed(i)) for i in clips}
    return {i for i, c in curves.items() if abs(peak(c)) <= 1 and sureness(c) >= SURE}


def generator_rows(
    network: nn.Module, evaluator: nn.Module, arrays: Arrays, clips: Iterable[int]
) -> list[dict[str, float]]:
    """One row a clip: own voice against the truth, foreign voice before the evaluator, silence."""
    rows = []
    for i in clips:
        faces = crops(arrays, i)[:MOST_FRAMES]
        shown = references_of(arrays, i, faces, network)
        mels = mels_of(arrays, i, len(faces), network.mel_start)
        own = generate(network, faces, shown, mels)
        voice = foreign(arrays, i)
        length = min(len(faces), arrays.clips[voice].frames)
        other = generate(network, faces[:length], shown[:length], mels_of(arrays, voice, length, network.mel_start))
        row = {
            "psnr": psnr(faces, own),
            "ssim": ssim(faces, own),
            "psnr_reference": psnr(faces, shown[..., :3]),
            "ssim_reference": ssim(faces, shown[..., :3]),
            "sharpness_ratio": sharpness(own) / sharpness(faces),
            "motion_truth": movement(faces),
        }
        row |= movements(network, faces, int(lip_gaps(arrays, i)[: len(faces)].argmin()), mels)
        for name, lower in (("output", other), ("untouched", faces[:length])):
            stored = put_back(arrays.frames(i)[:length], lower)
            audio, face = syncnet.embed_faces(evaluator, syncnet.lip_frames(stored, None), arrays, voice)
            row[name] = int(offset_curve(audio, face).argmax()) - MOST
            row[f"{name}_apart"] = sync_accuracy(audio, face)[0]
        rows.append(row)
    return rows


def put_back(stored: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Stored crops (T, 160, 160, 3) with the lower half of the networks' crop replaced by (T, 96, 96, 3), hard-edged
    but for four pixels; the evaluator sees what a viewer would."""
    x0, y0, x1, y1 = face_region()
    fx, fy = (x1 - x0) / 96, (y1 - y0) / 96
    matrix = np.array([[fx, 0, x0 + 0.5 * fx - 0.5], [0, fy, y0 + 0.5 * fy - 0.5]])
    side = np.clip(np.minimum(np.arange(96), 95 - np.arange(96)), 0, 4)  # columns
    down = np.clip(np.minimum(np.arange(96) - 46, 95 - np.arange(96)), 0, 4)  # rows
    ramp = np.minimum(side, down[:, None])
    mask = cv2.warpAffine((ramp / 4).astype(np.float32), matrix, (SIZE_PX, SIZE_PX))[..., None]
    out = []
    for frame, face in zip(stored, lower, strict=True):
        big = cv2.warpAffine(face, matrix, (SIZE_PX, SIZE_PX), flags=cv2.INTER_CUBIC)
        out.append((frame * (1 - mask) + big * mask + 0.5).astype(np.uint8))
    return np.stack(out)


def evaluate_generator(network: nn.Module, evaluator: str, arrays: Arrays, clips: Iterable[int]) -> dict[str, float]:
    """Means of generator_rows; `within_1` is the share of outputs whose offset the evaluator finds within one frame."""
    rows = generator_rows(network, networks.trained_evaluator(evaluator), arrays, clips)
    means = {k: float(np.mean([r[k] for r in rows])) for k in rows[0] if k not in ("output", "untouched")}
    return means | {"within_1": float(np.mean([abs(r["output"]) <= 1 for r in rows])), "clips": len(rows)}


def evaluate(
    data: Path,
    splits: list[str],
    evaluator: str,
    expert: str = "",
    generators: Sequence[str] = (),
    most: int = 1000,
    discriminator: Path | None = None,
) -> dict:
    """All final figures of some splits, by group of clips; at most `most` clips a group, evenly taken.

    discriminator  folder of a LipGAN run, whose discriminator is asked what the expert is asked
    """
    if generators and not evaluator:
        raise TrainingError("Generators are asked before an evaluator: name one.")
    arrays = open_arrays(data, splits)
    asked = networks.trained_evaluator(evaluator) if evaluator else None
    sync_expert = networks.trained_expert(expert) if expert else None
    judging = networks.trained_discriminator(discriminator) if discriminator else None
    out: dict[str, dict] = {}
    for group in sorted({c.group for c in arrays.clips}):
        ids = [i for i, c in enumerate(arrays.clips) if c.group == group]
        ids = ids[:: max(1, -(-len(ids) // most))]
        found: dict[str, Any] = {"clips": len(ids), "speakers": len({arrays.clips[i].speaker for i in ids})}
        out[group] = found
        embed = partial(embed_clip, sync_expert, arrays, frames=sync_expert.window) if sync_expert else None
        if embed is not None:
            found[expert] = sync_report(embed, arrays, ids)
        if judging is not None:
            found["discriminator"] = sync_report(lambda i: embed_by_discriminator(judging, arrays, i), arrays, ids)
        if asked is not None:
            sound = in_sync(embed, ids) if embed is not None else None
            found[evaluator] = sync_report(lambda i: syncnet.embed_clip(asked, arrays, i), arrays, ids, sound)
        for name in generators:
            rows = generator_rows(networks.trained_generator(name), asked, arrays, ids)
            means = {
                k: round(float(np.mean([r[k] for r in rows])), 4) for k in rows[0] if k not in ("output", "untouched")
            }
            found[name] = means | {
                "output_within_1": share([abs(r["output"]) <= 1 for r in rows]),
                "untouched_within_1": share([abs(r["untouched"]) <= 1 for r in rows]),
            }
    return out
