"""`python -m train COMMAND`: from raw clips to registered checkpoints.

python -m train preprocess shared/data/manifest.csv work/clips
python -m train unpack work/clips work/arrays
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lipsync.errors import LipsyncError
from lipsync.renamed import add_old_flag, current_name

from .tasks import OLD_NAMES, TASKS

OLD_COMMANDS = {"finals": "evaluate"}  # of before 2026-12, still read


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = argparse.ArgumentParser(
        "python -m train", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    pre = commands.add_parser("preprocess", help="videos or a manifest CSV -> coded crops in tar shards")
    pre.add_argument("src", type=Path)
    pre.add_argument("out", type=Path)
    pre.add_argument("--workers", type=int, default=2)
    pre.add_argument("--splits", nargs="*", help="only these (default: all)")
    pre.add_argument("--expert", help="registered expert that finds who speaks where several faces are seen")
    pre.add_argument("--ray", action="store_true", help="spread over a Ray cluster instead of local processes")

    un = commands.add_parser("unpack", help="tar shards -> plain arrays (needs numpy and opencv alone)")
    un.add_argument("src", type=Path)
    un.add_argument("out", type=Path)
    un.add_argument("--splits", nargs="*")

    for task in (*TASKS, *OLD_NAMES):
        it = commands.add_parser(task, help=f"train: {task}" if task in TASKS else argparse.SUPPRESS)
        it.add_argument("--data", type=Path, required=True, help="folder of arrays, from unpack")
        it.add_argument("--run", type=Path, required=True, help="folder of the run")
        it.add_argument("--resume", action="store_true", help="go on from the run's last.pt")
        it.add_argument("--minutes", type=float, help="stop after so many, whole; resume later")
        it.add_argument("--threads", type=int, default=0, help="processor threads (default: torch's choice)")
        it.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="see train/config.py and the task's Config")

    fix = commands.add_parser("correct", help="find offsets by an expert; write corrections.json beside the arrays")
    fix.add_argument("--data", type=Path, required=True)
    fix.add_argument("--expert", required=True, help="registered name or file; an evaluator for its own split")
    fix.add_argument("--zero", default="", metavar="GROUP", help="whose median counts as in sync; own clips: clips")
    fix.add_argument("--splits", nargs="*", default=["teach", "tune"])

    doc = commands.add_parser("doctor", help="is this data fit? facts and a ten-minute trial")
    doc.add_argument("data", type=Path)
    doc.add_argument("--splits", nargs="*", default=["teach"])
    doc.add_argument("--minutes", type=float, default=10, help="of the trial; 0: none")

    rep = commands.add_parser("report", help="a run as a page; may be written while it trains")
    rep.add_argument("run", type=Path)
    rep.add_argument("--data", type=Path, help="arrays, for the ROC, offsets and samples")

    exp = commands.add_parser("export", help="a run's best weights as a checkpoint with its card")
    exp.add_argument("run", type=Path)
    exp.add_argument("--data", type=Path, required=True)
    exp.add_argument("--name", required=True)
    exp.add_argument("--form", choices=["bf16", "int8"], default="bf16")
    exp.add_argument("--folder", type=Path, help="default: the first of LIPSYNC_WEIGHTS, else the cache")
    exp.add_argument("--licence", default="research use only")
    exp.add_argument("--note", default="")
    exp.add_argument("--part", action="append", default=[], metavar="WHAT=NAME", help="a second network of the model")
    exp.add_argument("--source", default="the trainer's own clips", help="where the faces come from, for the card")

    fin = commands.add_parser("evaluate", aliases=[*OLD_COMMANDS], help="final figures on people never trained on")
    fin.add_argument("--data", type=Path, required=True)
    fin.add_argument("--splits", nargs="*", default=["val"])
    fin.add_argument("--evaluator", default="syncnet-lab")
    add_old_flag(fin, "--judge", "--evaluator")
    fin.add_argument("--expert", default="")
    fin.add_argument("--generators", nargs="*", default=[])
    fin.add_argument("--most", type=int, default=1000, help="clips a group")
    fin.add_argument("--discriminator", type=Path, help="folder of a LipGAN run: asked what the expert is asked")

    look = commands.add_parser("sheet", help="faces never trained on under a foreign voice, as one picture to look at")
    look.add_argument("out", type=Path, help="a PNG file")
    look.add_argument("--data", type=Path, required=True)
    look.add_argument("--splits", nargs="*", default=["val", "test"])
    look.add_argument("--generators", nargs="+", required=True, help="a row each, under that of the untouched clip")
    look.add_argument("--people", type=int, default=20)

    abl = commands.add_parser("ablation", help="window 1, 3, 5 x expert frozen or fine-tuned, one table")
    abl.add_argument("--data", type=Path, required=True)
    abl.add_argument("--out", type=Path, required=True)
    abl.add_argument("--faces", type=int, default=30000, help="that each generator sees")
    abl.add_argument("--windows", type=int, default=60000, help="that each expert sees")
    abl.add_argument("--evaluator", default="syncnet-lab")
    add_old_flag(abl, "--judge", "--evaluator")
    abl.add_argument("--expert", default="", help="what every expert starts from: a name or a file (default: nothing)")
    abl.add_argument("--start", default="wav2lip-lab", help="what every generator starts from: a name or a file")
    abl.add_argument("settings", nargs="*", help="NAME=VALUE, from train/config.py, for every generator")

    s2v = commands.add_parser("ablation-speech2vid", help="skips, stills, upsampling, losses, sharpening: one table")
    s2v.add_argument("--data", type=Path, required=True)
    s2v.add_argument("--out", type=Path, required=True)
    s2v.add_argument("--faces", type=int, default=20000, help="that each arm sees")
    s2v.add_argument("--sharpener", default="", help="a trained sharpener, name or file")
    s2v.add_argument("settings", nargs="*", help="NAME=VALUE, for every arm")

    speed = commands.add_parser("speed", help="steps a second against a plain float32 loop")
    speed.add_argument("--data", type=Path, required=True)

    args = parser.parse_args(argv)
    args.command = current_name(args.command, OLD_COMMANDS, "command")
    try:
        return _run(args)
    except LipsyncError as error:
        print(error, file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    if args.command == "preprocess":
        from .data.preprocess import preprocess

        print(json.dumps(preprocess(args.src, args.out, args.workers, args.splits, args.expert, args.ray), indent=1))
    elif args.command == "unpack":
        from .data.shards import unpack

        print(json.dumps(unpack(args.src, args.out, args.splits)))
    elif args.command in (*TASKS, *OLD_NAMES):
        from .run import start

        print(
            json.dumps(start(args.command, args.data, args.run, args.settings, args.resume, args.minutes, args.threads))
        )
    elif args.command == "correct":
        from .data.sync_correction import correct

        print(json.dumps(correct(args.data, args.expert, args.splits, args.zero), indent=1))
    elif args.command == "doctor":
        from .doctor import doctor

        print(json.dumps(doctor(args.data, args.splits, args.minutes), indent=1))
    elif args.command == "report":
        from .report import report

        print(report(args.run, args.data))
    elif args.command == "export":
        from .export import export

        parts = dict(part.partition("=")[::2] for part in args.part)
        card = export(
            args.run, args.data, args.name, args.form, args.folder, args.licence, args.note, args.source, parts
        )
        print(json.dumps(card["metrics"], indent=1))
    elif args.command == "evaluate":
        from .evaluate import evaluate

        found = evaluate(
            args.data, args.splits, args.evaluator, args.expert, args.generators, args.most, args.discriminator
        )
        print(json.dumps(found, indent=1))
    elif args.command == "sheet":
        import cv2

        from . import networks
        from .data.arrays import open_arrays
        from .report import contact_sheet

        found = [networks.trained_generator(name) for name in args.generators]
        sheet = contact_sheet(found, open_arrays(args.data, args.splits), args.people)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
        print(f"{args.out}: for each person the untouched clip, then {', '.join(args.generators)}")
    elif args.command == "ablation":
        from .ablation import ablation

        ablation(args.data, args.out, args.faces, args.windows, args.evaluator, args.expert, args.start, args.settings)
    elif args.command == "ablation-speech2vid":
        from .ablation_speech2vid import ablation as ablation_speech2vid

        ablation_speech2vid(args.data, args.out, args.faces, args.sharpener, args.settings)
    elif args.command == "speed":
        from .speed import speed

        print(json.dumps(speed(args.data), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
