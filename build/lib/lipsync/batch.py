"""Many pairs in one run: a bad pair is reported and counted, and the rest goes on."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from .console import SYNC_STAGES, Bar, sentence
from .errors import Cancelled, InputError, LipsyncError
from .files import identity, refuse_overwriting
from .lists import clips_in, frames_of_one, read_list
from .pipeline import sync
from .records import Options


def pairs_of(source: Path, voice: Path | None, out: Path) -> list[tuple[Path, Path, Path]]:
    """The (video, voice, result) triples of a folder or a CSV, no two with the same result.

    A folder: each clip in it (lists.clips_in) with `voice`.
    A list: columns video, voice and, if wanted, out, a path below the folder of results; the others are relative to the
    list. Raises InputError.
    """
    triples = _of_folder(source, voice, out) if source.is_dir() else _of_list(source, out)
    if not triples:
        raise InputError(f"There is nothing to sync in {source}.")
    twice = [name for name, count in Counter(str(t[2]).lower() for t in triples).items() if count > 1]
    if twice:
        raise InputError(f"Two pairs of {source} would both be written to {twice[0]}: give them different names.")
    return triples


def _of_folder(source: Path, voice: Path, out: Path) -> list[tuple[Path, Path, Path]]:
    files = [p for p in clips_in(source, stills=True, deep=False) if identity(p) != identity(voice)]
    if frames_of_one(files):
        raise InputError(
            f"The {len(files)} pictures of {source} ({files[0].name} to {files[-1].name}) look like the frames of one "
            f"film: join them into a video first, or move those that are to speak one by one into sub-folders."
        )
    alike = Counter(p.stem.lower() for p in files)  # a.mov and a.mp4 become a.mov.mp4 and a.mp4.mp4
    return [(p, voice, out / f"{p.stem if alike[p.stem.lower()] == 1 else p.name}.mp4") for p in files]


def _of_list(source: Path, out: Path) -> list[tuple[Path, Path, Path]]:
    rows = read_list(source, ("video", "voice"), "list of pairs")
    for number, row in enumerate(rows, 1):
        for column in ("video", "voice"):
            if not row.get(column):
                raise InputError(f"Pair {number} of {source} has no {column}: fill in the column.")
        target = Path(row.get("out") or "x")
        if target.is_absolute() or ".." in target.parts:
            raise InputError(f"Pair {number} of {source} would be written outside {out}: its out is {target}.")
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
    reports = [report and report / result.relative_to(out).with_suffix(".json") for _, _, result in triples]
    written = [("result", result) for _, _, result in triples] + [("report", path) for path in reports if path]
    refuse_overwriting(written, [source, *(path for pair in triples for path in pair[:2])])
    for folder in {path.parent for _, path in written} | {out}:
        folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for number, ((video, sound, result), said) in enumerate(zip(triples, reports, strict=True), 1):
        try:
            with Bar(SYNC_STAGES) as show:
                done = sync(video, sound, result, options, progress=show)
            if said:
                done.save(said)
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
