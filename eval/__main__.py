"""The command line.

    python -m eval score FILE|FOLDER|LIST.csv… [--reference …] [--protocol short] [--csv OUT.csv | --json]
    python -m eval offset FILE [--fix OUT.mp4]
    python -m eval frechet REAL… --generated GENERATED… [--crop faces]
    python -m eval leakage VIDEO [--foreign VOICE] [--model NAME]
    python -m eval retrieval FILE|FOLDER…
    python -m eval validity FOLDER --out DIR

Exit codes: 0 done, 1 a clip could not be scored or a file is not as it should be, 2 wrong usage, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lipsync.console import Bar, Parser, guarded, plain_signs
from lipsync.files import refuse_overwriting
from lipsync.progress import Monitor
from lipsync.renamed import add_old_flag

from .protocols import PROTOCOLS
from .reference import FAMILIES, names

WIDE = 15  # shifts that `offset` tries to each side where the clip is long enough: 600 ms
RETRIEVED = 80  # frames of a clip that look for their sound: three seconds
SYNC = ("offset", "lse_d", "lse_c", "certainty")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    plain_signs()
    args = _parser().parse_args(argv)
    return guarded("eval", lambda: args.run(args), "Stopped; rows that were done are kept.")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m eval", description="Score lip-sync.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    score = commands.add_parser("score", help="a row of scores for each video")
    score.set_defaults(run=_score)
    score.add_argument("files", type=Path, nargs="+", metavar="FILE", help="videos, folders, or CSV lists of files")
    score.add_argument(
        "--reference", type=Path, nargs="+", default=[], metavar="FILE", help="what they should look like"
    )
    score.add_argument(
        "--measures",
        default="",
        metavar="LIST",
        help=f"beside sync: {', '.join(FAMILIES)} (all with --reference, else none)",
    )
    form = score.add_mutually_exclusive_group()
    form.add_argument(
        "--csv", type=Path, metavar="OUT", help="append rows to this file; those in it are not done again"
    )
    form.add_argument(
        "--json", action="store_true", help="standard output holds a list in argument order, nothing else"
    )
    _judging(score)

    offset = commands.add_parser("offset", help="find a constant offset of the sound, and repair it")
    offset.set_defaults(run=_offset)
    offset.add_argument("file", type=Path)
    offset.add_argument("--fix", type=Path, metavar="OUT", help="write the video with its sound moved into place")
    _judging(offset)

    frechet = commands.add_parser("frechet", help="distance between two sets of pictures: FID where Inception is here")
    frechet.set_defaults(run=_frechet)
    frechet.add_argument("real", type=Path, nargs="+", metavar="REAL")
    frechet.add_argument("--generated", type=Path, nargs="+", required=True, metavar="FILE")
    frechet.add_argument(
        "--crop", choices=("whole", "faces"), default="whole", help="whole frames as published, or faces"
    )
    frechet.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth frame (%(default)s)")
    frechet.add_argument("--encoder", choices=("auto", "inception", "lab"), default="auto")
    frechet.add_argument("--cache", type=Path, metavar="DIR", help="keep the statistics of sets here")

    frechet.add_argument(
        "--paired", action="store_true", help="each was made from the real one of its name: a better extrapolated value"
    )
    _as_json(frechet)

    leak = commands.add_parser("leakage", help="does a re-voiced mouth still follow its old voice?")
    leak.set_defaults(run=_leakage)
    leak.add_argument("file", type=Path)
    leak.add_argument("--foreign", type=Path, metavar="VOICE", help="another voice, to be tried beside silence")
    leak.add_argument("--model", default="", help="a name from `python -m lipsync models`")
    _as_json(leak)
    _judging(leak, detector=False)

    find = commands.add_parser("retrieval", help="does a picture find its own sound among those of all clips?")
    find.set_defaults(run=_retrieval)
    find.add_argument("files", type=Path, nargs="+", metavar="FILE")
    _as_json(find)
    _judging(find)

    valid = commands.add_parser("validity", help="do the measures move as they should? a table and plots")
    valid.set_defaults(run=_validity)
    valid.add_argument("files", type=Path, nargs="+", metavar="FILE")
    valid.add_argument("--out", type=Path, required=True, metavar="DIR")
    valid.add_argument("--most", type=int, default=12, help="clips at most (%(default)s)")
    _judging(valid, detector=False)
    return parser


def _as_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="standard output holds one object, nothing else")


def _judging(parser: argparse.ArgumentParser, detector: bool = True) -> None:
    parser.add_argument(
        "--protocol", choices=tuple(PROTOCOLS), default="short", help="see docs/metrics.md (%(default)s)"
    )
    parser.add_argument("--shifts", type=int, metavar="N", help="frames tried to each side (the protocol's own)")
    parser.add_argument("--evaluator", default="auto", help="syncnet-v2 where it is here, else syncnet-lab")
    add_old_flag(parser, "--judge", "--evaluator")
    if detector:
        parser.add_argument("--detector", help="mediapipe or s3fd (the evaluator's own)")
    parser.add_argument("--fast", action="store_true", help="bf16: the same within 1 %%, its own protocol hash")


def _evaluator(args: argparse.Namespace):
    from .protocols import protocol
    from .syncnet import Evaluator

    return Evaluator(args.evaluator, args.fast), protocol(args.protocol).with_shifts(args.shifts)


def _score(args: argparse.Namespace) -> int:
    from .inputs import items
    from .metrics.base import MeasureError
    from .results import CsvRows
    from .score import score_clip
    from .table import rows_table, summary_table

    families = [f for f in args.measures.split(",") if f] or (list(FAMILIES) if args.reference else [])
    if wrong := [f for f in families if f not in FAMILIES]:
        raise MeasureError(f"There is no measure {wrong[0]!r}: choose from {', '.join(FAMILIES)}.")
    wanted = items(args.files, args.reference)
    if args.csv:
        read = [path for item in wanted for path in (item.path, item.reference) if path]
        refuse_overwriting([("table", args.csv)], [*args.files, *args.reference, *read])
    evaluator, protocol = _evaluator(args)
    kept = CsvRows(args.csv, names(families)) if args.csv else None
    rows = []
    for number, item in enumerate(wanted, 1):
        with Bar() as show:
            monitor = Monitor(lambda p, n=number: show(replace(p, stage=f"{n}/{len(wanted)} {p.stage}")))
            row = score_clip(item, evaluator, protocol, families, args.detector, monitor, kept)
        rows.append(row)
    if args.json:
        print(json.dumps([row.record() for row in rows], indent=1, allow_nan=False))
    else:
        console = Console(width=None if sys.stdout.isatty() else 160)
        shown = [*SYNC, *names(families)]
        console.print(rows_table(rows, shown))
        if len(rows) > 1:
            console.print("\n", summary_table(rows, shown))
        if evaluator.name != "syncnet-v2":
            console.print(
                f"\nThe evaluator is {evaluator.name}, trained here. `python -m lipsync fetch syncnet-v2` brings the "
                "published one, which gives the standard LSE-D and LSE-C."
            )
    return 1 if any(row.error for row in rows) else 0


def _offset(args: argparse.Namespace) -> int:
    from .offset import fix, fixable, words
    from .score import score_file

    if args.fix:
        fixable(args.file, args.fix)
    evaluator, protocol = _evaluator(args)

    def scored(path: Path, shifts: int | None):
        with Bar() as show:
            return score_file(path, evaluator, protocol.with_shifts(shifts), args.detector, Monitor(show))

    row = scored(args.file, args.shifts or max(protocol.shifts, WIDE))
    if row.error and not args.shifts and protocol.shifts < WIDE:  # too short for so many, perhaps
        row = scored(args.file, None)
    print(words(row))
    if row.error or row.offset is None:
        return 1
    if args.fix:
        if not row.offset:
            print("There is nothing to repair; no file was written.")
            return 0
        for sentence in fix(args.file, args.fix, row.offset):
            print(sentence)
        again = scored(args.fix, row.shifts)
        print(f"{args.fix}: {words(again)}")
        return 1 if again.error else 0
    return 0


def _frechet(args: argparse.Namespace) -> int:
    from .encoders import VARIANTS, open_encoder, set_statistics
    from .inputs import items
    from .metrics import frechet
    from .metrics.base import MeasureError

    encoder = open_encoder(args.encoder)
    if args.paired:  # each generated one beside the real one of its name, so that row i is of the same picture in both
        pairs = items(args.generated, args.real, stills=True)
        real, made = [i.reference for i in pairs], [i.path for i in pairs]
    else:
        real, made = ([i.path for i in items(files, stills=True)] for files in (args.real, args.generated))
    a, b = (set_statistics(paths, encoder, args.crop, args.cache, args.every) for paths in (real, made))
    if args.paired and (a.notes or b.notes):
        raise MeasureError(f"The sets cannot be paired: {(*a.notes, *b.notes)[0]}")
    found = frechet.evaluate(a, b, args.paired)
    if args.json:
        facts = {
            "encoder": encoder.name,
            "encoder_sha256": encoder.sha256,
            "title": encoder.title,
            "crop": VARIANTS[args.crop],
            "paired": args.paired,
            "notes": [*a.notes, *b.notes],
        }
        print(json.dumps(facts | found, indent=1))
        return 1 if a.notes or b.notes else 0
    print(
        f"{encoder.title} ({VARIANTS[args.crop]}; {encoder.name} {encoder.sha256[:8]}): {found['frechet']:.3f} with "
        f"{found['n_a']} real and {found['n_b']} generated pictures"
    )
    print(
        f"extrapolated to endless sets: {_said(found['frechet_extrapolated'])}; KID: {_said(found['kid'], 5)}"
        + (f" ± {found['kid_std']:.5f}" if found["kid_std"] is not None else "")
    )
    if encoder.name != "inception":
        print("This is no FID: `python -m lipsync fetch inception` brings the network that FID is defined by.")
    for note in (*a.notes, *b.notes):
        print(note)
    return 1 if a.notes or b.notes else 0


def _said(value: float | None, digits: int = 3) -> str:
    return "cannot be told" if value is None else f"{value:.{digits}f}"


def _leakage(args: argparse.Namespace) -> int:
    from .metrics import leakage
    from .score import unscored

    evaluator, protocol = _evaluator(args)
    found = leakage.measured(args.file, evaluator, protocol, args.foreign, args.model)
    _print_values(unscored(args.file, evaluator, protocol), leakage.MEASURES, found, args.json)
    return 0


def _retrieval(args: argparse.Namespace) -> int:
    from .clips import main_face
    from .inputs import items
    from .metrics import retrieval
    from .metrics.base import reason
    from .score import embeddings, unscored

    evaluator, protocol = _evaluator(args)
    video, audio, left_out = [], [], 0
    for item in items(args.files):
        try:
            seen, heard = embeddings(main_face(item.path, evaluator, protocol, args.detector, RETRIEVED), evaluator)
        except Exception as error:
            print(f"left out: {reason(error)}", file=sys.stderr)
            left_out += 1
            continue
        video.append(seen)
        audio.append(heard)
    found = retrieval.evaluate(retrieval.distances(video, audio)) | {"clips": len(video)}
    _print_values(unscored(Path(), evaluator, protocol, args.detector), retrieval.MEASURES, found, args.json)
    return 1 if left_out else 0


def _print_values(made_by, measures, found: dict, as_json: bool) -> None:
    """Values under the heading of what made them, a row without scores; or all as one JSON object."""
    from .table import title

    if as_json:
        facts = ("evaluator", "evaluator_sha256", "protocol", "protocol_hash", "detector", "shifts", "fast", "engine")
        print(json.dumps({name: getattr(made_by, name) for name in facts} | found, indent=1))
        return
    print(made_by.heading())
    if "clips" in found:
        print(f"{found['clips']} clips")
    for measure in measures:
        print(f"{title(measure, made_by.evaluator)}: {_said(found[measure.name])}")


def _validity(args: argparse.Namespace) -> int:
    from .inputs import items, spread
    from .validity import validity

    evaluator, protocol = _evaluator(args)
    table = validity(spread([i.path for i in items(args.files)], args.most), evaluator, protocol, args.out)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
