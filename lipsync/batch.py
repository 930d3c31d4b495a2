"""Many pairs in one run: a bad pair is reported and counted, and the rest goes on."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

from .errors import Cancelled, InputError, LipsyncError
from .pipeline import sync
from .records import Options
from .shell import SYNC_STAGES, Bar, sentence

SKIPPED = {".csv", ".json", ".txt", ".md"}


def pairs_of(source: Path, voice: Path | None, out: Path) -> list[tuple[Path, Path, Path]]:
    """The (video, voice, result) triples of a folder or a CSV, no two with the same result.

    A folder: each file in it with `voice`; hidden files are passed over.
    A CSV: columns video, voice and, if wanted, out; paths are relative to the CSV. Raises InputError.
    """
    triples = _of_folder(source, voice, out) if source.is_dir() else _of_list(source, out)
    if not triples:
        raise InputError(f"There is nothing to sync in {source}.")
    twice = [name for name, count in Counter(str(t[2]).lower() for t in triples).items() if count > 1]
    if twice:
        raise InputError(f"Two pairs of {source} would both be written to {twice[0]}: give them different names.")
    return triples


def _of_folder(source: Path, voice: Path, out: Path) -> list[tuple[Path, Path, Path]]:
    files = sorted(p for p in source.iterdir() if p.is_file() and p.suffix.lower() not in SKIPPED)
    files = [p for p in files if not p.name.startswith(".") and p.resolve() != voice.resolve()]
    alike = Counter(p.stem.lower() for p in files)  # a.mov and a.mp4 become a.mov.mp4 and a.mp4.mp4
    return [(p, voice, out / f"{p.stem if alike[p.stem.lower()] == 1 else p.name}.mp4") for p in files]


def _of_list(source: Path, out: Path) -> list[tuple[Path, Path, Path]]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The list of pairs {source} cannot be read: {error}.") from error
    if not rows or not {"video", "voice"} <= set(rows[0]):
        raise InputError(f"The list of pairs {source} needs a header with the columns video and voice.")
    for number, row in enumerate(rows, 1):
        for column in ("video", "voice"):
            if not row[column]:
                raise InputError(f"Pair {number} of {source} has no {column}: fill in the column.")
    beside = source.parent
    return [
        (beside / r["video"], beside / r["voice"], out / (r.get("out") or f"{n:04d}-{Path(r['video']).stem}.mp4"))
        for n, r in enumerate(rows)
    ]


def run_batch(source: Path, voice: Path | None, out: Path, report: Path | None, options: Options) -> int:
    """Sync every pair; prints one line each. Returns 0, 1 if any pair failed, or 130 when stopped.

    Finished results are kept, whatever happens to the others.
    """
    triples = pairs_of(source, voice, out)
    out.mkdir(parents=True, exist_ok=True)
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
    failed = 0
    for number, (video, sound, result) in enumerate(triples, 1):
        try:
            with Bar(SYNC_STAGES) as show:
                done = sync(video, sound, result, options, progress=show)
            if report is not None:
                done.save(report / f"{result.stem}.json")
            line = f"{done.frames_synced} of {done.frames} frames in {done.total_seconds:.1f} s -> {result}"
        except (KeyboardInterrupt, Cancelled):
            print(f"Stopped in pair {number} of {len(triples)}; finished results are kept.", file=sys.stderr)
            return 130
        except (LipsyncError, OSError) as error:
            failed += 1
            line = f"FAILED: {sentence(error)}"
        print(f"[{number}/{len(triples)}] {video.name}: {line}", flush=True)
    if failed:
        print(f"{failed} of {len(triples)} pairs failed.", file=sys.stderr)
    return 1 if failed else 0
