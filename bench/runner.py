"""The benchmark's runner, killed and in parallel, with real systems on the starter set: python -m bench.runner FOLDER

FOLDER, which must not be there, keeps the stores and videos. Makes a table undisturbed, makes the same table while the
run is killed so many times at random moments, and says what was lost, doubled or came out otherwise. `--ray` instead
compares two workers of a Ray cluster with one.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from sqlalchemy import select

from resynced.leaderboard import leaderboard
from resynced.store import ScoreFact, Store

SYSTEMS = ("wav2lip-warp-lab", "wav2lip-gan-lab:detail=false", "wav2lip-lab:detail=false")  # beside the untouched clips
MEASURES = ("lse_d", "lse_c", "offset", "certainty", "coverage", "identity", "sharpness", "movement")


def begun(folder: Path, systems: list[str], limit: int, *more: str) -> subprocess.Popen:
    """A run in a process of its own, whose store and files lie in `folder`."""
    command = [sys.executable, "-m", "resynced", "run", "--set", "starter", "--limit", str(limit), "--system", *systems]
    own = {"LIPSYNC_DATA": str(folder), "LIPSYNC_DATABASE": str(folder / "store.sqlite"), "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, *more], env=os.environ | own, stdout=quiet, stderr=quiet)


def timed(folder: Path, systems: list[str], limit: int, *more: str) -> float:
    """Seconds that a run takes. Raises RuntimeError where it fails."""
    folder.mkdir()
    start = time.monotonic()
    if begun(folder, systems, limit, *more).wait():
        raise RuntimeError(f"the run in {folder.name} failed")
    return time.monotonic() - start


def scores(folder: Path) -> dict[tuple[str, str], list[dict[str, float | None]]]:
    """The measures of every row, by system and pair."""
    found: dict[tuple[str, str], list[dict[str, float | None]]] = {}
    with Store(folder / "store.sqlite") as store, store.read() as session:
        for row in session.scalars(select(ScoreFact)):
            found.setdefault((row.system, row.pair), []).append({name: getattr(row, name) for name in MEASURES})
    return found


def places(folder: Path) -> list[tuple]:
    """System and rank, in the table's order."""
    with Store(folder / "store.sqlite") as store:
        return [(row["system"], row.get("rank")) for row in leaderboard(store)["rows"]]


def compared(one: Path, other: Path) -> str:
    """What is lost, doubled, and how far the same measure of the same pair is from itself."""
    left, right = scores(one), scores(other)
    lost, doubled = len(left.keys() - right.keys()), sum(len(rows) - 1 for rows in right.values())
    far = dict.fromkeys(MEASURES, 0.0)
    for key in left.keys() & right.keys():
        for name in MEASURES:
            a, b = left[key][0][name], right[key][0][name]
            if (a is None) != (b is None):
                far[name] = float("inf")
            elif a is not None:
                far[name] = max(far[name], abs(a - b))
    same = "the same" if places(one) == places(other) else "NOT the same"
    furthest = ", ".join(f"{name} {value:.2g}" for name, value in far.items())
    return f"{len(right)} rows, lost {lost}, doubled {doubled}; table {same}; furthest apart: {furthest}"


def killed(folder: Path, systems: list[str], limit: int, kills: int, seconds: float) -> int:
    """Let a run end that is killed `kills` times, each time after a random part of its time; returns kills that hit."""
    folder.mkdir()
    draw, hits = random.Random(0), 0
    for _ in range(kills):
        run = begun(folder, systems, limit)
        time.sleep(draw.uniform(0.2, 1.8) * seconds / kills)
        hits += run.poll() is None
        run.kill()
        run.wait()
    if begun(folder, systems, limit).wait():
        raise RuntimeError("the run that was let go failed")
    return hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", nargs="+", default=list(SYSTEMS), help="(%(default)s)")
    parser.add_argument("--limit", type=int, default=36, help="pairs of each system (%(default)s)")
    parser.add_argument("--kills", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--ray", action="store_true", help="one and two workers of a Ray cluster begun here")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    folder = args.folder.absolute()
    folder.mkdir()
    if args.ray:
        one, two = (timed(folder / n, args.system, args.limit, "--ray", "local", "--workers", n) for n in ("1", "2"))
        print(f"one worker {one:.0f} s, two {two:.0f} s: {one / two:.2f} times as fast")
        print(compared(folder / "1", folder / "2"))
        return
    whole = timed(folder / "whole", args.system, args.limit)
    print(f"undisturbed: {whole:.0f} s", flush=True)
    hits = killed(folder / "killed", args.system, args.limit, args.kills, whole)
    print(f"killed {hits} times: {compared(folder / 'whole', folder / 'killed')}")


if __name__ == "__main__":
    main()
