"""Batches for experts and evaluators: groups of windows of one speaker, so that no voice or face tells which sound is
whose.

Contrasted over a whole batch, an expert soon knows which voice belongs to which face and stops looking at lips. So each
group holds windows of a single speaker, several from one clip, and is contrasted within itself; windows of one clip
closer than `APART` frames are no negatives of each other: they nearly say the same.
"""

from __future__ import annotations

import numpy as np

from .arrays import Arrays, augment_mel, column, draw_augmentation, mel_window, no_augmentation

APART = 3
BOX_PX = 160 / 1.56  # side of the face box in a stored crop
SIDE_BY_SIDE = 4  # windows that are drawn from one clip

Weights = tuple[list[str], np.ndarray]
Place = tuple[int, int, float]  # clip, first frame, rate of speech


def speaker_weights(arrays: Arrays, group_weights: dict[str, float]) -> Weights:
    """Speakers and how often each is drawn: the root of its frames, times its group's weight."""
    names = list(arrays.speakers)
    frames = [sum(arrays.clips[i].frames for i in arrays.speakers[n]) for n in names]
    group = [group_weights.get(arrays.clips[arrays.speakers[n][0]].group, 1.0) for n in names]
    weights = np.sqrt(frames) * group
    return names, weights / weights.sum()


def drawn_clips(arrays: Arrays, weights: Weights, count: int, rng: np.random.Generator) -> list[int]:
    """Clips of drawn speakers."""
    names, shares = weights
    return [int(rng.choice(arrays.speakers[names[s]])) for s in rng.choice(len(names), count, p=shares)]


def places_of(
    arrays: Arrays, rng: np.random.Generator, weights: Weights, groups: int, windows: int, frames: int, stretch: float
) -> tuple[list[Place], np.ndarray]:
    """Where a batch looks: G W places, and near (G, W, W) bool: pairs that are neither positives nor negatives.

    stretch  share of clips whose speech is made faster or slower, sound and picture together
    """
    names, probability = weights
    places: list[Place] = []
    for s in rng.choice(len(names), groups, replace=groups > len(names), p=probability):
        ids = arrays.speakers[names[s]]
        lengths = np.array([arrays.clips[i].frames for i in ids], float)
        for i in rng.choice(ids, windows // SIDE_BY_SIDE, p=lengths / lengths.sum()):
            rate = float(np.exp(rng.uniform(-0.12, 0.12))) if rng.random() < stretch else 1.0
            count = arrays.clips[i].frames - int(np.ceil((frames - 1) * rate))  # starts are below it
            spread = SIDE_BY_SIDE * APART
            free = np.sort(
                rng.choice(max(count, spread) - (SIDE_BY_SIDE - 1) * (APART - 1), SIDE_BY_SIDE, replace=False)
            )
            starts = np.minimum(free + np.arange(SIDE_BY_SIDE) * (APART - 1), count - 1)
            places += [(int(i), int(t), rate) for t in starts]
    which = np.array([p[0] for p in places]).reshape(groups, windows)
    when = np.array([p[1] for p in places]).reshape(groups, windows)
    near = (which[:, :, None] == which[:, None]) & (np.abs(when[:, :, None] - when[:, None]) < APART)
    near[:, np.arange(windows), np.arange(windows)] = False
    return places, near


def sync_batch(
    arrays: Arrays,
    rng: np.random.Generator,
    weights: Weights,
    groups: int = 4,
    windows: int = 32,
    frames: int = 5,
    strength: float = 1.0,
) -> dict[str, np.ndarray]:
    """One batch for an expert; `windows` is a multiple of SIDE_BY_SIDE.

    returns  mel (G W, 1, 80, 16) float32; window (G W, 3 frames, 48, 96) uint8, BGR, frame by frame; near, see
             places_of; shape (G W, 4 frames) float32, see mouth_shape
    """
    count = groups * windows
    places, near = places_of(arrays, rng, weights, groups, windows, frames, 0.4 if strength else 0.0)
    mels = np.empty((count, 1, 80, 16), np.float32)
    faces = np.empty((count, frames, 3, 48, 96), np.uint8)
    shape = np.empty((count, frames, 4), np.float32)
    for first in range(0, len(places), SIDE_BY_SIDE):  # one look and one voice for the windows of a clip
        one = places[first][0]
        augment = draw_augmentation(rng, strength) if strength else no_augmentation()
        mel = augment_mel(arrays.mel(one), rng, strength) if strength else arrays.mel(one)
        pictures, shapes = arrays.frames(one), mouth_shape(arrays.landmarks(one))
        for k, (i, t, rate) in enumerate(places[first : first + SIDE_BY_SIDE], first):
            mels[k, 0] = mel_window(mel, column(arrays.clips[i], t), rate)
            for f in range(frames):
                at = min(t + round(f * rate), len(pictures) - 1)
                picture, shape[k, f] = augment(pictures[at], rng), shapes[at]
                faces[k, f] = picture[48:, :, ::-1].transpose(2, 0, 1)
    return {
        "mel": mels,
        "window": faces.reshape(count, frames * 3, 48, 96),
        "near": near,
        "shape": shape.reshape(count, -1),
    }


def mouth_shape(points: np.ndarray) -> np.ndarray:
    """(T, 29, 2) pixels -> (T, 4): lip gap and mouth width, first as they are, then against the clip's mean; about 0
    +- 1."""
    gap = np.linalg.norm(points[:, 23] - points[:, 24], axis=1) / BOX_PX
    width = np.linalg.norm(points[:, 21] - points[:, 22], axis=1) / BOX_PX
    both = np.stack([gap / 0.02, width / 0.02], 1)
    return np.concatenate([both - [1.0, 15.0], both - both.mean(0)], 1).clip(-4, 4)
