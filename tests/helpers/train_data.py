"""A tiny made data set in the arrays' format: drawn faces whose mouths open with the loudness of made sound."""

import json
from pathlib import Path

import cv2
import numpy as np

from lipsync.faces.landmarks import CORNERS, EYE_CORNERS, INNER_LIPS, LANDMARK_IDS, NOSE_BASE, NOSE_TIP
from train.data.shards import FEATURES, MEL_LEVELS, SIZE_PX

KINDS = {"teach": 4, "tune": 2, "judge": 5}


def made_arrays(folder: Path, frames: int = 26, clips: int = 2, seed: int = 0) -> Path:
    """Write teach, tune and judge under `folder`: a few speakers of `clips` clips of `frames` frames each."""
    rng = np.random.default_rng(seed)
    for split, speakers in KINDS.items():
        rows, parts = [], {n: [] for n in ("frames", *FEATURES, "points", "speech")}
        for speaker in range(speakers):
            skin = rng.integers(90, 220, 3)
            for clip in range(clips):
                loud = np.clip(np.convolve(rng.random(frames), np.ones(3) / 3, "same") * 2.4 - 1.1, 0, 1)
                sounds = _sound(loud, rng)
                rows.append(
                    {
                        "key": f"{split}_{speaker}_{clip}",
                        "speaker": f"{split}{speaker}",
                        "group": "made",
                        "offset": 0,
                        "first": len(rows) * frames,
                        "frames": frames,
                        "features": {n: [len(rows) * len(x), len(x)] for n, x in sounds.items()},
                        "split": split,
                    }
                )
                parts["frames"].append(np.stack([_face(skin, x) for x in loud]))
                parts["points"].append(np.stack([_points(x) for x in loud]).astype(np.float16))
                parts["speech"].append(loud > 0.05)
                for name, sound in sounds.items():
                    parts[name].append(sound)
        (folder / split).mkdir(parents=True)
        for name, arrays in parts.items():
            np.save(folder / split / f"{name}.npy", np.concatenate(arrays))
        (folder / split / "clips.json").write_text(json.dumps(rows))
    return folder


def _face(skin: np.ndarray, opening: float) -> np.ndarray:
    picture = np.full((SIZE_PX, SIZE_PX, 3), 60, np.uint8)
    cv2.ellipse(picture, (80, 66), (45, 56), 0, 0, 360, skin.tolist(), -1)
    cv2.ellipse(picture, (80, 90), (14, 1 + round(9 * opening)), 0, 0, 360, (40, 10, 20), -1)
    return picture


def _points(opening: float) -> np.ndarray:
    points = np.full((len(LANDMARK_IDS), 2), 80.0)
    points[CORNERS] = [[66, 90], [94, 90]]
    points[INNER_LIPS] = [[80, 90 - 9 * opening], [80, 90 + 9 * opening]]
    points[EYE_CORNERS] = [[55, 50], [70, 50], [105, 50], [90, 50]]
    points[NOSE_BASE], points[NOSE_TIP] = [80, 78], [80, 72]
    return points


def _sound(loud: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    columns = np.interp(np.arange(32 + int(len(loud) * 3.2)) - 16, np.arange(len(loud)) * 3.2, loud, left=0, right=0)
    mel = columns[:, None] * np.linspace(1, 0.3, 80) * MEL_LEVELS * 0.9 + rng.random((len(columns), 80)) * 3
    rows = np.interp(np.arange(40 + len(loud) * 4) - 20, np.arange(len(loud)) * 4, loud, left=0, right=0)
    mfcc = rows[:, None] * np.linspace(80, -40, 13) + rng.normal(0, 1, (len(rows), 13))
    mfcc = np.clip(mfcc, -127, 127).astype(np.int8)
    return {"mel": mel.astype(np.uint8), "mfcc": mfcc, "mfcc12": mfcc[:, 1:].copy()}
