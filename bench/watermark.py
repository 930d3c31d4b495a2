"""What the watermark survives and costs, on clips of your own: `python -m bench.watermark PART CLIP ...`

survive CLIP ...     marks the first two seconds of each, codes them at crf 18 as the engine does, attacks, looks
alarms CLIP ...      looks for five keys that marked nothing in a window of each
effect CLIP ...      LSE-D and LSE-C of the first two seconds of each, coded with and without the mark
time                 embedding on one thread, and finding
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from lipsync.label.watermark import CHANCE, Pattern, Watermark, match, shots
from lipsync.media.reader import Frame, FrameReader, VideoWriter, probe

FRAMES = 50
KEYS = 5  # that marked nothing, asked in one window
DAY = date(2026, 11, 29)
Frames = list[Frame]


@dataclass(frozen=True)
class Attack:
    """A change of the picture, and how it is coded afterwards."""

    change: Callable[[Frames], Frames] = list
    crf: int = 23
    fps: Callable[[float], float] = float


def resized(scale: float, wide: float = 1.0) -> Callable[[Frames], Frames]:
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return lambda frames: [cv2.resize(f, None, fx=scale * wide, fy=scale, interpolation=how) for f in frames]


def cropped(share: float) -> Callable[[Frames], Frames]:
    """Cut off this share of width and height, more on one side than on the other."""

    def cut(frame: Frame) -> Frame:
        height, width = frame.shape[:2]
        top, left = round(height * share * 0.3), round(width * share * 0.6)
        kept = frame[top : top + round(height * (1 - share)), left : left + round(width * (1 - share))]
        return np.ascontiguousarray(kept)

    return lambda frames: [cut(f) for f in frames]


def turned(degrees: float) -> Callable[[Frames], Frames]:
    def turn(frame: Frame) -> Frame:
        height, width = frame.shape[:2]
        move = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        return cv2.warpAffine(frame, move, (width, height), flags=cv2.INTER_CUBIC)

    return lambda frames: [turn(f) for f in frames]


def toned(frames: Frames) -> Frames:
    """Gamma 1.25, contrast 0.9, brightness +15."""
    table = (np.linspace(0, 1, 256) ** 1.25 * 255 * 0.9 + 15).clip(0, 255).astype(np.uint8)
    return [table[f] for f in frames]


def filmed(frames: Frames) -> Frames:
    """A screen recorded: drawn at 0.83 of its size, a little soft, noise of 3 levels, other tones."""
    rng = np.random.default_rng(5)
    soft = [cv2.GaussianBlur(f, (0, 0), 0.7) for f in resized(0.83)(frames)]
    return toned([(f + rng.normal(0, 3, f.shape)).clip(0, 255).astype(np.uint8) for f in soft])


def then(*changes: Callable[[Frames], Frames]) -> Callable[[Frames], Frames]:
    def all_of_them(frames: Frames) -> Frames:
        for change in changes:
            frames = change(frames)
        return frames

    return all_of_them


ATTACKS = {
    "crf 18": Attack(crf=18),
    "crf 23": Attack(),
    "crf 28": Attack(crf=28),
    "crf 35": Attack(crf=35),
    "half size": Attack(resized(0.5)),
    "half size, crf 28": Attack(resized(0.5), 28),
    "one and a half": Attack(resized(1.5)),
    "crop 10 %": Attack(cropped(0.1)),
    "crop 10 %, half size": Attack(then(cropped(0.1), resized(0.5))),
    "crop 30 %": Attack(cropped(0.3)),
    "speed +5 %": Attack(fps=lambda fps: fps * 1.05),
    "speed -5 %": Attack(fps=lambda fps: fps * 0.95),
    "15 a second": Attack(lambda f: [f[int(n * 25 / 15)] for n in range(len(f) * 15 // 25)], fps=lambda _: 15.0),
    "brightness, contrast, gamma": Attack(toned),
    "turned 1 degree": Attack(turned(1)),
    "turned 2 degrees": Attack(turned(-2)),
    "turned 3 degrees": Attack(turned(3)),
    "screen recording, crf 26": Attack(filmed, 26),
    "crf 40": Attack(crf=40),
    "turned 5 degrees": Attack(turned(5)),
    "squeezed 3 %": Attack(resized(1, 0.97)),
    "third of the size": Attack(resized(1 / 3)),
    "blurred, 2 px": Attack(lambda frames: [cv2.GaussianBlur(f, (0, 0), 2) for f in frames]),
    "turned 1 degree, half size": Attack(then(turned(1), resized(0.5))),
    "mirrored": Attack(lambda frames: [np.ascontiguousarray(f[:, ::-1]) for f in frames]),
}


def write(path: Path, frames: Frames, fps: float, crf: int) -> Path:
    """Code frames as the engine does, or as anyone else would."""
    height, width = frames[0].shape[:2]
    rate = Fraction(fps).limit_denominator(1000)
    with VideoWriter(path, width, height, rate, crf=crf, threads=1) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def read(path: Path, count: int = FRAMES, skip: int = 0) -> Frames:
    info = probe(path)
    stop = min(skip + count, max(info.frames, 1))
    with FrameReader(info, [(skip, stop)]) as reader:
        return list(reader)


def psnr(one: Frames, other: Frames) -> float:
    """Of luma, dB."""
    error = [
        np.square(cv2.absdiff(*(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in pair)).astype(float)).mean()
        for pair in zip(one, other, strict=True)
    ]
    return float(10 * np.log10(255**2 / np.mean(error)))


def survive(clips: list[Path], folder: Path) -> None:
    """Table of attacks: found of all, payload right of all, lowest and median score; then each clip's figures."""
    rows: dict[str, list] = {name: [] for name in ATTACKS}
    for clip in clips:
        frames, fps, key = read(clip), float(probe(clip).fps), os.urandom(32)
        marked = [f.copy() for f in frames]
        mark = Watermark(*frames[0].shape[1::-1], key, DAY)
        for frame in marked:
            mark.apply(frame)
        sizes = {
            crf: [write(folder / "a.mp4", f, fps, crf).stat().st_size for f in (frames, marked)] for crf in (23, 18)
        }
        grown = ", ".join(f"{100 * (b / a - 1):+.0f} % at crf {crf}" for crf, (a, b) in sizes.items())
        print(f"{clip.name} {frames[0].shape[1]} x {frames[0].shape[0]}: {psnr(frames, marked):.1f} dB, size {grown}")
        result, want = read(folder / "a.mp4"), Pattern(key).payload(DAY)
        for name, attack in ATTACKS.items():
            path = write(folder / "b.mp4", attack.change(result), attack.fps(fps), attack.crf)
            began = time.thread_time()
            found = match(shots(probe(path)), [key])
            rows[name].append((found, found.payload == want))
            print(
                f"  {name:28} {found.score:5.1f} {found.chance:8.1e} {found.payload == want} "
                f"{time.thread_time() - began:.1f} s",
                flush=True,
            )
    print(f"\n| attack | found, of {len(clips)} | payload right | score: lowest, median |\n|---|---|---|---|")
    for name, row in rows.items():
        scores = [f.score for f, _ in row]
        seen = [right for f, right in row if f.chance <= CHANCE]
        print(f"| {name} | {len(seen)} | {sum(seen)} | {min(scores):.1f}, {statistics.median(scores):.1f} |")


def alarms(clips: list[Path]) -> None:
    """Scores of keys that marked nothing, over one window of 24 frames of each clip."""
    scores, chances = [], []
    for number, clip in enumerate(clips):
        with av.open(str(clip)) as container:  # a known file, so no child is needed
            frames = [f.to_ndarray(format="gray") for f in itertools.islice(container.decode(video=0), 24)]
        mean = np.mean(frames, 0, np.float32)
        shrink = min(1.0, 540 / min(mean.shape))
        mean = cv2.resize(mean, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        found = match([mean], [os.urandom(32) for _ in range(KEYS)])
        scores.append(found.score)
        chances.append(found.chance)
        if number % 50 == 49 or number + 1 == len(clips):
            top = np.sort(scores)[::-1]
            print(
                f"{number + 1} windows, {KEYS} keys each: median {np.median(scores):.2f}, highest "
                f"{', '.join(f'{s:.2f}' for s in top[:5])}; lowest chance {min(chances):.1e}; "
                f"{sum(c <= CHANCE for c in chances)} alarms",
                flush=True,
            )
    # the law of the largest of many: its tail gives how often the least score that counts would be passed
    from scipy.stats import gumbel_r

    least = 8.5
    fit = gumbel_r(*gumbel_r.fit(scores))
    print(f"Gumbel fit: location {fit.args[0]:.3f}, scale {fit.args[1]:.3f}; above {least}: {fit.sf(least):.1e}")


def effect(clips: list[Path], folder: Path) -> None:
    """What the shipped evaluator says of each clip's first seconds, coded at crf 18 with and without the mark."""
    from eval.protocols import PROTOCOLS
    from eval.score import score_file
    from eval.syncnet import Evaluator
    from lipsync.media.reader import SoundReader

    evaluator, told = Evaluator(fast=True), []
    for clip in clips:
        info, frames, lse = probe(clip), read(clip), []
        with SoundReader(clip) as reader:
            samples = np.concatenate(list(reader))[: round(len(frames) / info.fps * 48_000)]
        for marked in (False, True):
            mark = Watermark(info.width, info.height, os.urandom(32), DAY)
            with VideoWriter(folder / "effect.mp4", info.width, info.height, info.fps, 48_000, threads=1) as writer:
                for frame in frames:
                    if marked:
                        mark.apply(frame)
                    writer.write(frame)
                writer.write_sound(samples)
            row = score_file(folder / "effect.mp4", evaluator, PROTOCOLS["short"])
            if row.error:
                raise SystemExit(f"{clip.name}: {row.error}")
            lse.append((row.lse_d, row.lse_c))
        told.append(np.subtract(*lse[::-1]))
        print(clip.name, " ".join(f"LSE-D {d:.3f} LSE-C {c:.3f}" for d, c in lse), flush=True)
    print(
        "change with the mark, mean of LSE-D, LSE-C:",
        np.mean(told, 0).round(3),
        "largest",
        np.abs(told).max(0).round(3),
    )


def pace() -> None:
    """Milliseconds a frame on one thread, processor time; a copy of the frame beside it."""
    rng = np.random.default_rng(0)
    for width, height in ((640, 360), (1280, 720), (1920, 1080), (3840, 2160)):
        frame = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3), np.uint8), (0, 0), 3)
        mark = Watermark(width, height, bytes(32), DAY)
        spent = [[_spent(lambda: mark.apply(frame)), _spent(frame.copy)] for _ in range(100)]  # noqa: B023
        apply, copy = np.array(spent).T * 1000
        mean, other = cv2.resize(frame[..., 1], (960, 540)).astype(np.float32), os.urandom(32)
        print(
            f"{width} x {height}: {np.median(apply):.2f} ms a frame (least {apply.min():.2f}), a copy of it "
            f"{np.median(copy):.2f} ms; not found after {_spent(lambda: match([mean], [other])):.1f} s"  # noqa: B023
        )


def _spent(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("survive", "alarms", "effect", "time"))
    parser.add_argument("clips", nargs="*", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIPSYNC_KEYS"] = folder
        if args.part == "time":
            pace()
        elif args.part == "alarms":
            alarms(args.clips)
        else:
            {"survive": survive, "effect": effect}[args.part](args.clips, Path(folder))


if __name__ == "__main__":
    main()
