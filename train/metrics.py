"""Measures on arrays: can a network tell sync from off-sync, and where does it find a clip's offset?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from . import networks
from .data.arrays import Arrays, column, mel_window, no_augmentation

if TYPE_CHECKING:
    from lipsync.faces.tracking import Track

MOST = 10  # frames: shifts tried on both sides
CHANCE = 3 / (2 * MOST + 1)  # of an offset within one frame


def expert_windows(arrays: Arrays, i: int, frames: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """All windows of a clip: mel (N, 1, 80, 16) float32 and faces (N, 3 frames, 48, 96) float32 BGR 0..1."""
    augment, mel, clip = no_augmentation(), arrays.mel(i), arrays.clips[i]
    lower = np.stack([augment(f)[48:, :, ::-1].transpose(2, 0, 1) for f in arrays.frames(i)]).astype(np.float32) / 255
    count = clip.frames - 4  # five whatever the window, so that the sets compared are the same
    mels = np.stack([mel_window(mel, column(clip, t)) for t in range(count)])[:, None]
    faces = np.stack([lower[t : t + frames].reshape(-1, 48, 96) for t in range(count)])
    return mels, faces


def embed_clip(network: nn.Module, arrays: Arrays, i: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Sound and face embeddings (N, D) of all windows of a clip, of `frames` faces each."""
    mels, faces = expert_windows(arrays, i, frames)
    device = next(network.parameters()).device
    with torch.no_grad(), networks.autocast(device):
        a = network.audio(torch.from_numpy(mels).to(device))
        f = network.face(torch.from_numpy(faces).to(device))
    return a.float().cpu().numpy(), f.float().cpu().numpy()


def offset_curve(audio: np.ndarray, face: np.ndarray, most: int = MOST) -> np.ndarray:
    """Mean likeness for each shift of the sound, -most..most frames, over the windows that have both: (2 most + 1,)."""
    likeness = face @ audio.T  # face t, sound u
    n = len(face)
    return np.array([likeness.diagonal(s).mean() if abs(s) < n - 3 else -np.inf for s in range(-most, most + 1)])


def sync_accuracy(audio: np.ndarray, face: np.ndarray, apart: int = 3) -> tuple[float, int]:
    """Share of (true, false) pairs of one clip, at least `apart` frames from each other, in which the true sound is
    liked better; and how many windows were asked."""
    likeness = face @ audio.T
    n = len(face)
    far = np.abs(np.arange(n)[:, None] - np.arange(n)) >= apart
    wins = (likeness.diagonal()[:, None] > likeness) & far
    return float(wins.sum() / max(far.sum(), 1)), n


def sync_figures(embed: Callable[[int], tuple[np.ndarray, np.ndarray]], clips: list[int]) -> dict[str, float]:
    """Off-sync accuracy and the share of clips whose offset is found within one frame."""
    shares, counts, offsets = [], [], []
    for i in clips:
        audio, face = embed(i)
        share, n = sync_accuracy(audio, face)
        shares.append(share)
        counts.append(n)
        offsets.append(int(offset_curve(audio, face).argmax()) - MOST)
    hits = np.abs(offsets) <= 1
    return {
        "sync_accuracy": float(np.average(shares, weights=counts)),
        "within_1": float(hits.mean()),
        "median_offset": float(np.median(offsets)),
        "clips": len(clips),
    }


def track_sync(
    expert: str, track: Track, frames: Sequence[np.ndarray], waveform: np.ndarray, fps: Fraction, most: int = 150
) -> float:
    """How much a tracked face looks like the source of a sound: the best mean likeness within two frames of in sync,
    above the median over all shifts. At most `most` frames of the track are asked."""
    from lipsync import audio
    from lipsync.geometry import CropRule, crop_face

    from .networks import trained_expert

    network = _kept(expert, trained_expert)
    seen = [t for t in range(track.start, track.stop) if track.has(t)][:most]
    if len(seen) < 2 * MOST:
        return -1.0
    first, count = seen[0], len(seen)
    places = [CropRule().alignment(track.boxes[t - track.start]) for t in range(first, first + count)]
    faces = np.stack([crop_face(frames[first + k], place, 96) for k, place in enumerate(places)])
    lower = faces[:, 48:, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
    windows = np.stack([lower[t : t + network.window].reshape(-1, 48, 96) for t in range(count - 4)])
    mels = audio.mel_windows(audio.mel(waveform), audio.frame_columns("mel", first, count - 4, fps))
    with torch.no_grad():
        sound = network.audio(torch.from_numpy(mels[:, None])).numpy()
        face = network.face(torch.from_numpy(windows)).numpy()
    curve = offset_curve(sound, face)
    return float(curve[MOST - 2 : MOST + 3].max() - np.median(curve))


@cache
def _kept(expert: str, load: Callable[[str], nn.Module]) -> nn.Module:
    return load(expert)


def interval(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not n:
        return 0.0, 1.0
    z, p = 1.96, hits / n
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float((middle - half) / (1 + z * z / n)), float((middle + half) / (1 + z * z / n))
