"""Speed of the evaluator: `python -m bench.syncnet` (a part of `make bench`).

A made clip is scored by `lrs` (no face search: what is measured is reading, cropping, embedding, comparing) in three
ways, in turns within one run: the straightforward one (each frame to JPEG and back, windows stacked one by one, batches
of 20 through float32 SyncNet), ours in float32, ours in the fast mode. For the shipped evaluator, and for one of the
published width with random weights: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch

FPS = Fraction(25)
OFF = {"float32": 1e-3, "fast": 1e-2}  # how far LSE-D may be from the straightforward way's, relative


def full_width(folder: Path) -> str:
    """Put an evaluator of the published width, with random weights, where the registry finds it."""
    from safetensors.torch import save_file

    from lipsync.checkpoints.registry import write_card
    from lipsync.networks.syncnet import SyncNet

    torch.manual_seed(0)
    path = folder / "syncnet-full.safetensors"
    save_file(SyncNet(32).state_dict(), path)
    write_card(path, {"architecture": "syncnet", "base": 32, "licence": "none", "origin": "random weights"})
    return path.stem


def straightforward(clip: Path, name: str, folder: Path, ending: str = "jpg") -> float:
    """LSE-D as the published script goes about it; with the ending png nothing is lost between frame and network."""
    from eval.crops import whole
    from eval.metrics import sync
    from eval.protocols import PROTOCOLS
    from eval.syncnet import audio_features, sound_windows
    from lipsync.checkpoints import registry as checkpoints
    from lipsync.media.reader import FrameReader, probe

    network = checkpoints.load(name)
    facts = checkpoints.cards()[name].facts.get("input", {})
    unit, size = facts.get("compare") == "unit length", facts.get("lip_px", 224)
    mfcc, _, _ = audio_features(clip)
    with FrameReader(probe(clip)) as reader:
        for index, frame in enumerate(reader):
            cv2.imwrite(str(folder / f"{index:06d}.{ending}"), whole(frame, size)[..., ::-1])
    names = sorted(folder.glob(f"*.{ending}"))
    frames = np.stack([cv2.imread(str(p)) for p in names]).astype(np.float32)
    count = len(frames) - 5
    seen, heard = [], []
    with torch.no_grad():
        for first in range(0, count, 20):
            windows = range(first, min(first + 20, count))
            lips = torch.cat([torch.from_numpy(frames[t : t + 5].transpose(3, 0, 1, 2)[None]) for t in windows])
            if size != 224:
                lips = torch.nn.functional.interpolate(lips.flatten(1, 2), size=224, mode="bilinear").unflatten(
                    1, (3, 5)
                )
            rows = [torch.from_numpy(sound_windows(mfcc, [t]).transpose(0, 2, 1)[None]) for t in windows]
            seen.append(network.lip(lips))
            heard.append(network.audio(torch.cat(rows).float()))
    seen, heard = torch.cat(seen), torch.cat(heard)
    if unit:
        seen, heard = (torch.nn.functional.normalize(e) for e in (seen, heard))
    rows = sync.distance_rows(seen.numpy(), heard.numpy(), shifts=PROTOCOLS["lrs"].shifts)
    return sync.score(rows, certainty=False).lse_d


def main() -> None:
    """Run everything and print a line for each evaluator."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        os.environ["LIPSYNC_WEIGHTS"] = name
        from eval.protocols import PROTOCOLS
        from eval.score import score_file
        from eval.syncnet import Evaluator
        from lipsync.media.reader import FrameReader, SoundReader, VideoWriter, probe
        from tests.conftest import make_clip, make_voice

        folder = Path(name)
        picture = make_clip(folder / "picture.mp4", round(args.seconds * FPS), FPS, (288, 288))
        voice, clip = make_voice(folder / "voice.wav", args.seconds), folder / "clip.mp4"
        with (
            FrameReader(probe(picture)) as frames,
            SoundReader(voice, 16_000, 1) as sound,
            VideoWriter(clip, 288, 288, FPS, 16_000, 1) as writer,
        ):
            for frame in frames:
                writer.write(frame)
            for chunk in sound:
                writer.write_sound(chunk)
        for evaluator in ("syncnet-lab", full_width(folder)):
            ways = {"float32": Evaluator(evaluator), "fast": Evaluator(evaluator, fast=True)}
            seconds: dict[str, list[float]] = {"plain": [], "float32": [], "fast": []}
            scores: dict[str, float] = {}
            for _ in range(args.turns):
                with tempfile.TemporaryDirectory() as pictures:
                    began = time.perf_counter()
                    scores["plain"] = straightforward(clip, evaluator, Path(pictures))
                    seconds["plain"].append(time.perf_counter() - began)
                for way, opened in ways.items():
                    began = time.perf_counter()
                    row = score_file(clip, opened, PROTOCOLS["lrs"])
                    seconds[way].append(time.perf_counter() - began)
                    assert row.lse_d is not None, row.error
                    scores[way] = row.lse_d
            with tempfile.TemporaryDirectory() as pictures:  # JPEG moves the score itself
                exact = straightforward(clip, evaluator, Path(pictures), "png")
            count = round(args.seconds * FPS)
            rate = {way: count / statistics.median(took) for way, took in seconds.items()}
            figures[evaluator] = {"frames": count, "seconds": seconds, "lse_d": scores | {"exact": exact}}
            line = f"{evaluator}: straightforward {rate['plain']:.0f} frames/s"
            for way in ways:
                ratio = statistics.median(p / s for p, s in zip(seconds["plain"], seconds[way], strict=True))
                off = abs(scores[way] / exact - 1)
                assert off <= OFF[way], f"{evaluator}, {way}: LSE-D is {off:.2%} off, {OFF[way]:.1%} is allowed"
                figures[evaluator][way] = {"ratio": ratio, "off": off}
                line += f"; {way} {rate[way]:.0f} frames/s, {ratio:.2f} times, LSE-D {off:.2%} off"
            print(line)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
