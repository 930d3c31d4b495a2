"""The command line.

    python -m lipsync sync clip.mp4 voice.wav --out result.mp4
    python -m lipsync sync clip.mp4 --voice 0=anna.wav --voice 1=ben.wav --out result.mp4
    python -m lipsync sync clip.mp4 --segments parts.json --out result.mp4   several parts, voices and faces
    python -m lipsync sync clips/ voice.wav --out results/        a folder, or a CSV of video,voice[,out] rows
    python -m lipsync models | fetch NAME [--from PATH] | verify FILE

Exit codes: 0 done, 1 a file, a checkpoint or a label is not as it should be, 2 wrong usage, 130 stopped by Ctrl-C,
141 nobody read the output.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from . import __version__
from .console import SYNC_STAGES, Bar, Parser, guarded, plain_signs
from .errors import InputError
from .files import refuse_overwriting
from .options import LATEST_S, OLD_NAMES, Options
from .progress import Progress
from .renamed import add_old_flag


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    plain_signs()
    args = _parser().parse_args(argv)
    return guarded("lipsync", lambda: args.run(args), args.stopped)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m lipsync", description="Make a mouth follow a voice.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(stopped="Stopped; nothing was left behind.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _sync_arguments(commands.add_parser("sync", help="sync a video to a voice"))
    models = commands.add_parser("models", help="list the checkpoints: licence, origin, whether they are here")
    _as_json(models)
    models.set_defaults(run=_models)
    fetch = commands.add_parser("fetch", help="download a published checkpoint, or take a file that you have")
    fetch.add_argument("name", help="a name from `models`")
    fetch.add_argument("--from", dest="source", type=Path, metavar="PATH", help="take this file instead of downloading")
    fetch.add_argument("--any-version", action="store_true", help="accept a file whose sha256 is not the published one")
    fetch.set_defaults(run=_fetch, stopped="Stopped; what was downloaded so far is kept for the next try.")
    verify = commands.add_parser("verify", help="read the label of a video: 0 labelled and intact, 1 anything else")
    verify.add_argument("file", type=Path)
    _as_json(verify)
    verify.set_defaults(run=_verify)
    return parser


def _as_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="standard output holds JSON, nothing else")


def _sync_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_sync, parser=parser)
    parser.add_argument(
        "video", type=Path, help="a video or an image; a folder or a CSV of video,voice[,out] for a batch"
    )
    parser.add_argument("audio", type=Path, nargs="?", help="the voice: any file with sound")
    parser.add_argument("--out", type=Path, required=True, help="the MP4 to write; for a batch, a folder")
    parser.add_argument("--report", type=Path, help="write what was done as JSON; for a batch, a folder")
    _as_json(parser)
    parser.add_argument(
        "--preview", type=float, metavar="SECOND", help="write that frame, faces numbered, as PNG to --out"
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for row in fields(Options):
        facts = row.metadata
        if facts["group"] not in groups:
            groups[facts["group"]] = parser.add_argument_group(facts["group"])
        group = groups[facts["group"]]
        if facts["flag"]:
            group.add_argument(facts["flag"], dest=row.name, action="store_false", help=facts["help"])
            continue
        kind = {"str": str, "float": float, "int": int}[str(row.type).partition(" ")[0]]
        within = f", {facts['bounds'][0]:g} to {facts['bounds'][1]:g}" if _narrow(facts["bounds"]) else ""
        shown = "" if row.default is None else " (%(default)s)"
        takes: dict[str, Any] = {
            "type": kind,
            "choices": facts["choices"] or None,
            "metavar": None if facts["choices"] else "N" if kind is int else kind.__name__.upper(),
        }
        flag = f"--{row.name.replace('_', '-')}"
        group.add_argument(flag, **takes, default=row.default, help=facts["help"] + within + shown)
        for old in (old for old, new in OLD_NAMES.items() if new == row.name):
            add_old_flag(group, f"--{old}", flag, **takes)
    groups["faces"].add_argument(
        "--voice", action="append", metavar="N=FILE", help="give face number N of its shot this voice; repeat it"
    )
    groups["time and sound"].add_argument(
        "--segments", type=Path, metavar="FILE.json", help="a list of parts with a voice, a time and a face each"
    )


def _narrow(bounds: tuple[float, float] | None) -> bool:
    """Are these bounds worth a word?"""
    return bounds is not None and bounds[1] < LATEST_S


def _sync(args: argparse.Namespace) -> int:
    parser: argparse.ArgumentParser = args.parser
    try:
        options = Options(**{f.name: getattr(args, f.name) for f in fields(Options)})
    except InputError as error:
        parser.error(str(error))
    if args.preview is not None and not math.isfinite(args.preview):
        parser.error(f"--preview wants a second of the video, as in 1.5, not {args.preview}")
    if args.preview is not None:
        return _preview(args, options)
    ways = [args.audio is not None, bool(args.voice), args.segments is not None]
    if not any(ways) and args.video.suffix.lower() != ".csv":
        parser.error("a voice is needed: a second file, --voice N=FILE for each face, or --segments FILE.json")
    if sum(ways) > 1:
        parser.error("give one voice, --voice N=FILE for each face, or --segments FILE.json, not two of them")
    is_list = args.video.suffix.lower() == ".csv"
    if args.video.is_dir() or is_list:
        if args.voice or args.segments or (is_list and args.audio):
            parser.error("a folder takes one voice, a second file; a CSV names its voices in its column voice")
        if args.json:
            parser.error("--json is for one video; a batch writes a report each with --report FOLDER")
        from .batch import run_batch

        return run_batch(args.video, args.audio, args.out, args.report, options)
    from .pipeline import sync
    from .segments import read_segments

    voice, read = args.audio, [args.video]
    if args.voice:
        voice = _voices(args)
        read += voice.values()
    elif args.segments:
        voice = read_segments(args.segments, options)
        read += [args.segments, *(path for one in voice for path in one.voices.values())]
    else:
        read.append(voice)
    if args.report and (args.report.is_dir() or not args.report.parent.is_dir()):
        raise InputError(f"The report cannot be written to {args.report}: it must be a file in an existing folder.")
    refuse_overwriting([("result", args.out), *([("report", args.report)] if args.report else [])], read)
    with Bar(SYNC_STAGES) as show:
        report = sync(args.video, voice, args.out, options, progress=show)
    if args.report:
        report.save(args.report)
    print(json.dumps(asdict(report), indent=1) if args.json else report.words())
    return 0


def _voices(args: argparse.Namespace) -> dict[int, Path]:
    pairs = [text.partition("=") for text in args.voice]
    wrong = next((n + e + f for n, e, f in pairs if not (n.isdecimal() and f)), None)
    if wrong is not None:
        args.parser.error(f"--voice wants NUMBER=FILE, as in 0=anna.wav, not {wrong!r}")
    if len({int(n) for n, _, _ in pairs}) < len(pairs):
        args.parser.error("--voice names the same face twice")
    return {int(number): Path(file) for number, _, file in pairs}


def _preview(args: argparse.Namespace, options: Options) -> int:
    import cv2

    from .pipeline import find, preview

    unfit = InputError(f"The preview cannot be written to {args.out}: it must be a .png file in an existing folder.")
    if args.out.suffix.lower() != ".png" or not args.out.parent.is_dir():
        raise unfit
    refuse_overwriting([("preview", args.out)], [args.video])
    with Bar(SYNC_STAGES) as show:
        clip = find(args.video, options, progress=show)
    frame, faces = preview(clip, args.preview), clip.faces
    length = float(faces.frames / faces.fps)
    if not 0 <= args.preview < length and not clip.info.is_still and not args.json:
        print(f"{args.video.name} has no {args.preview:g} s, it is {length:.2f} s long: its nearest frame is shown.")
    if not cv2.imwrite(str(args.out), frame[..., ::-1]):
        raise unfit
    rows = [
        {
            "face": track.number,
            "start": round(float(track.start / faces.fps), 3),
            "end": round(float(track.stop / faces.fps), 3),
            "shot": track.shot,
            "size_px": round(track.size_px),
        }
        for track in faces.tracks
    ]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print("face {face}: {start:.2f} to {end:.2f} s, shot {shot}, {size_px} px high".format(**row))
    if not rows:
        print("no face was found")
    return 0


def _models(args: argparse.Namespace) -> int:
    from .checkpoints.registry import table

    rows = table()
    if args.json:
        print(json.dumps(rows, indent=1, default=str))
        return 0
    shown = Table(*(key.replace("_", " ") for key in rows[0]), box=None, padding=(0, 2, 0, 0))
    for row in rows:
        shown.add_row(*(str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(shown)
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from .checkpoints.registry import fetch

    with Bar(SYNC_STAGES) as show:
        path = fetch(
            args.name,
            source=args.source,
            any_version=args.any_version,
            progress=lambda done, total: show(Progress(f"Fetching {args.name}", done, total)),
        )
    print(f"{args.name} is here: {path}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from .label.manifest import describe, verify

    verdict = verify(args.file)
    if args.json:
        print(json.dumps(asdict(verdict) | {"words": describe(verdict)}, indent=1, default=str))
    else:
        print(describe(verdict))
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
