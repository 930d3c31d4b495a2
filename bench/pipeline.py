"""Speed and memory on this machine: `make bench`, or `python -m bench.pipeline [--seconds 20]`.

A made clip of 576 x 768 at 25 fps is synced by the engine and by a plain path (float32 eager torch, one stage after
the other; same detector, codec and thread count), for the default model and for Wav2Lip, compact and of full size, in
turns within one run, so that ratios hold where the machine's speed drifts. Full-size weights are random: speed does not
depend on them. Then each stage runs alone, which is its own limit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future
from fractions import Fraction
from pathlib import Path

from lipsync.options import Options

SIZE, FPS = (576, 768), Fraction(25)
COMPACT = "wav2lip-gan-lab"  # Wav2Lip's network at half its width


class Inline:
    """An executor that runs at once, in the caller's thread."""

    def __init__(self, _workers: int) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def submit(self, function, *args) -> Future:
        future: Future = Future()
        future.set_result(function(*args))
        return future


def full_size(folder: Path) -> str:
    """Put a generator of the published width, with random weights, where the registry finds it."""
    import torch
    from safetensors.torch import save_file

    from lipsync.checkpoints.quantize import pack
    from lipsync.checkpoints.registry import cards, write_card
    from lipsync.networks.wav2lip import Wav2Lip

    torch.manual_seed(0)
    path = folder / "full-size.safetensors"
    save_file(pack(Wav2Lip(16).state_dict(), "bf16"), path)
    compact = cards()[COMPACT]
    write_card(
        path,
        {**compact.facts, "name": "full-size", "config": {"width": 16}, "origin": "random weights for the benchmark"},
    )
    return "full-size"


def one(model: str, plain: bool, clip: Path, voice: Path, out: Path) -> dict:
    """One sync in this process: seconds by stage, frames a second, memory."""
    import lipsync
    from lipsync import pipeline, render
    from lipsync.media import reader as media
    from lipsync.models.base import open_model

    if plain:

        class Whole(media.FrameReader):
            def __iter__(self):
                frames = []
                with contextlib.suppress(StopIteration):
                    while True:
                        frames.append(self.__next__())
                return iter(frames)

        render.ThreadPoolExecutor = Inline
        render.FrameReader = pipeline.FrameReader = Whole
    engine = "torch cpu float32" if plain else "auto"
    open_model(model, engine)  # warm: a server has loaded its model once
    options = lipsync.Options(model=model, engine=engine)
    report = lipsync.sync(clip, voice, out, options)
    return {
        "frames_per_s": report.frames / report.total_seconds,
        "seconds": report.total_seconds,
        "stages": report.seconds,
        "engine": report.engine,
        "peak_rss_mb": report.peak_rss_mb,
        "faces_per_s": report.frames_synced / report.seconds["generate"],
    }


def alone(clip: Path, voice: Path, folder: Path, models: list[str]) -> dict[str, float]:
    """Frames a second of each stage with the machine to itself."""
    import numpy as np

    from lipsync import engines
    from lipsync.blending import match_colour, mouth_mask, paste
    from lipsync.faces.tracking import find_faces
    from lipsync.geometry import CropRule, crop_face
    from lipsync.media.reader import FrameReader, VideoWriter, probe
    from lipsync.models.base import open_model

    def rate(count: int, began: float) -> float:
        return count / (time.perf_counter() - began)

    info, table = probe(clip), {}
    began = time.perf_counter()
    with FrameReader(info) as reader:
        table["read"] = rate(sum(1 for _ in reader), began)
    with FrameReader(info, [(0, 100)]) as reader:
        frames = list(reader)
    began = time.perf_counter()
    track = find_faces(frames, info.fps).tracks[0]
    table["faces"] = rate(len(frames), began)
    place, points, rule = CropRule().alignment(track.boxes[0]), track.landmarks[0], CropRule()
    began = time.perf_counter()
    for i, frame in enumerate(frames):
        crop, mask = crop_face(frame, rule.alignment(track.boxes[i]), 96), mouth_mask(points, place)
    table["crop"] = rate(len(frames), began)
    began = time.perf_counter()
    for frame in frames:
        paste(frame, place, match_colour(crop, crop, mask), mask)
    table["paste"] = rate(len(frames), began)
    began = time.perf_counter()
    with VideoWriter(folder / "alone.mp4", *SIZE, FPS) as writer:
        for frame in frames:
            writer.write(frame)
    table["encode"] = rate(len(frames), began)
    for name_of_model in models:
        model = open_model(name_of_model, "torch")
        inputs = model.sample()
        spec = engines.NetworkSpec(model.card, tuple(model.inputs.items()), model.outputs, model.sample)
        for name, make in engines.candidates().items():
            engine = make(spec)
            engine.run(inputs)
            runs = []
            for _ in range(3):
                began = time.perf_counter()
                engine.run(inputs)
                runs.append(rate(engines.BATCH, began))
            table[f"generate {name_of_model} {name}"] = float(np.median(runs))
    return table


def main() -> None:
    """Run everything and print a table and its JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the clip (20)")
    parser.add_argument("--turns", type=int, default=3, help="runs of each path; medians are printed (3)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        model, plain, *paths = args.one
        print(json.dumps(one(model, plain == "plain", *map(Path, paths))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LIPSYNC_WEIGHTS"] = name
        from tests.conftest import make_clip, make_voice

        clip = make_clip(folder / "clip.mp4", round(args.seconds * FPS), FPS, SIZE)
        voice = make_voice(folder / "voice.wav", args.seconds)
        models = [Options.model, COMPACT, full_size(folder)]
        cpu = platform.processor() or platform.machine()
        print(f"{cpu}, {os.cpu_count()} cores, {args.seconds:g} s of {SIZE[0]} x {SIZE[1]} at {FPS} fps\n")
        figures: dict = {"cpu": cpu, "cores": os.cpu_count(), "seconds": args.seconds, "paths": {}}
        for model in models:
            turns: dict[str, list[dict]] = {"engine": [], "plain": []}
            run(model, "engine", clip, voice, folder)  # converts the network and chooses the engine, once
            for _ in range(args.turns):
                for path, done in turns.items():
                    done.append(run(model, path, clip, voice, folder))
            mid = {
                p: {k: statistics.median(d[k] for d in done) for k in ("frames_per_s", "faces_per_s", "peak_rss_mb")}
                for p, done in turns.items()
            }
            whole = statistics.median(
                e["frames_per_s"] / p["frames_per_s"] for e, p in zip(turns["engine"], turns["plain"], strict=True)
            )
            generator = statistics.median(
                e["faces_per_s"] / p["faces_per_s"] for e, p in zip(turns["engine"], turns["plain"], strict=True)
            )
            figures["paths"][model] = {**mid, "whole": whole, "generator": generator, "turns": turns}
            print(
                f"{model} on {turns['engine'][0]['engine']}: {mid['engine']['frames_per_s']:.1f} frames/s, "
                f"plain path {mid['plain']['frames_per_s']:.1f}; whole {whole:.2f} times, generator stage "
                f"{generator:.2f} times; peak {mid['engine']['peak_rss_mb']:.0f} MB\n  stages, s: "
                + json.dumps(turns["engine"][-1]["stages"])
            )
        figures["alone"] = alone(clip, voice, folder, models)
        print("\neach stage alone, frames/s:")
        for stage, value in figures["alone"].items():
            print(f"  {stage:48} {value:8.1f}")
        if args.out:
            args.out.write_text(json.dumps(figures, indent=1) + "\n")


def run(model: str, path: str, clip: Path, voice: Path, folder: Path) -> dict:
    """`one` in a process of its own, so that memory is its own too."""
    command = [
        sys.executable,
        "-m",
        "bench.pipeline",
        "--one",
        model,
        path,
        str(clip),
        str(voice),
        str(folder / "out.mp4"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
