"""Many pairs in one run: a bad pair is reported and counted, and the rest goes on."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from .errors import Cancelled, InputError, LipsyncError
from .pipeline import sync
from .records import Options

SKIPPED = {".csv", ".json", ".txt", ".md"}


def pairs_of(source: Path, voice: Path | None, out: Path) -> list[tuple[Path, Path, Path]]:
    """The (video, voice, result) triples of a folder or a CSV.

    A folder: each file in it with `voice`.
    A CSV: columns video, voice and, if wanted, out; paths are relative to the CSV. Raises InputError.
    """
    if source.is_dir():
        files = sorted(p for p in source.iterdir() if p.is_file() and p.suffix.lower() not in SKIPPED)
        triples = [(p, voice, out / f"{p.stem}.mp4") for p in files if voice is None or p.resolve() != voice.resolve()]
    else:
        try:
            with source.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"The list of pairs {source} cannot be read: {error}.") from error
        if not rows or not {"video", "voice"} <= set(rows[0]):
            raise InputError(f"The list of pairs {source} needs a header with the columns video and voice.")
        beside = source.parent
        triples = [
            (beside / r["video"], beside / r["voice"], out / (r.get("out") or f"{n:04d}-{Path(r['video']).stem}.mp4"))
            for n, r in enumerate(rows)
        ]
    if not triples:
        raise InputError(f"There is nothing to sync in {source}.")
    return triples


def run_batch(source: Path, voice: Path | None, out: Path, report: Path | None, options: Options) -> int:
    """Sync every pair; prints one line each. Returns 0, or 1 if any pair failed. Finished results are kept."""
    triples = pairs_of(source, voice, out)
    out.mkdir(parents=True, exist_ok=True)
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
    failed = 0
    for number, (video, sound, result) in enumerate(triples, 1):
        try:
            done = sync(video, sound, result, options)
            if report is not None:
                done.save(report / f"{result.stem}.json")
            line = f"{done.frames_synced} of {done.frames} frames in {done.total_seconds:.1f} s -> {result}"
        except Cancelled:
            raise
        except LipsyncError as error:
            failed += 1
            line = f"FAILED: {error}"
        print(f"[{number}/{len(triples)}] {video.name}: {line}", flush=True)
    if failed:
        print(f"{failed} of {len(triples)} pairs failed.", file=sys.stderr)
    return 1 if failed else 0
