"""The command line.

    python -m resynced run --set NAME --system NAME… [--limit N] [--workers N] [--ray ADDRESS]
    python -m resynced submit FOLDER|ZIP --card CARD.toml [--set NAME]
    python -m resynced pairs draw FOLDER --name NAME --count CATEGORY=N… [--seed N]
    python -m resynced leaderboard [--set NAME] [--category C] [--csv | --json]
    python -m resynced closure --set NAME [FOLDER…] [--json]
    python -m resynced card ROW
    python -m resynced withdraw score|system KEY --reason WHY
    python -m resynced export FOLDER [--as parquet|csv|every-eval-ever|hugging-face|croissant]
    python -m resynced import FOLDER
    python -m resynced study create NAME --set NAME --system NAME… [--design D] [--language en|ko] …
    python -m resynced study prepare|open|close|publish|unpublish|status|export NAME
    python -m resynced simulate [--raters N] [--votes N] [--repeat N] [--json]

The store is the file of LIPSYNC_DATABASE or the database of DATABASE_URL, else one in the data folder (LIPSYNC_DATA).
Exit codes: 0 done, 1 something failed or is not as it should be, 2 wrong usage, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lipsync.console import Bar, Parser, guarded, plain_signs
from lipsync.progress import Monitor
from lipsync.renamed import add_old_flag

from . import studies_cli
from .records import CATEGORIES, BenchmarkError

STAGES = {"check": "Checking the evaluator", "pairs": "Pairs", "distances": "Fréchet distances"}
SHORT = {  # headings of the terminal's table
    "lse_d": "LSE-D",
    "lse_c": "LSE-C",
    "in_sync": "in sync",
    "identity": "identity",
    "sharpness": "sharpness",
    "movement": "silence",
    "speed": "frames/s",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    plain_signs()
    args = _parser().parse_args(argv)
    args.typed = shlex.join(["python", "-m", "resynced", *(sys.argv[1:] if argv is None else argv)])
    return guarded("resynced", lambda: args.run(args), "Stopped; what was done is kept, the same command goes on.")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m resynced", description="The ReSyncED benchmark.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="make and score a set's pairs by systems, as far as that is not done")
    run.set_defaults(run=_run)
    run.add_argument("--set", required=True, dest="set_name", metavar="NAME", help="a set's name, or its folder")
    run.add_argument(
        "--system",
        required=True,
        nargs="+",
        action="extend",
        metavar="NAME",
        help="a model of `python -m lipsync models`, also as MODEL:detail=false,pad=0.1; a folder of outputs; "
        "submission:NAME; or a TOML block of a command; the "
        "untouched clips and, where the set has them, real ones are always run too",
    )
    run.add_argument("--limit", type=int, metavar="N", help="pairs of each system, of all categories in turn")
    run.add_argument("--workers", type=int, default=1, metavar="N", help="pairs at a time (%(default)s)")
    run.add_argument("--ray", metavar="ADDRESS", help="work on this Ray cluster; local: one that is begun here")
    run.add_argument("--again", action="store_true", help="try failed pairs again")
    run.add_argument("--no-videos", action="store_true", help="do not keep the scored videos: no Fréchet distance")
    run.add_argument("--protocol", default="short", help="short, real-video or lrs: see docs/metrics.md (%(default)s)")
    run.add_argument("--evaluator", default="auto", help="syncnet-v2 where it is here, else syncnet-lab")
    add_old_flag(run, "--judge", "--evaluator")
    _placed(run)

    submit = commands.add_parser("submit", help="check outputs of a system, keep them, and score them")
    submit.set_defaults(run=_submit)
    submit.add_argument("source", type=Path, metavar="FOLDER|ZIP", help="ID.mp4 for each pair of the set")
    submit.add_argument("--card", required=True, type=Path, metavar="CARD.toml", help="who made them, and with what")
    submit.add_argument("--set", default="starter", dest="set_name", metavar="NAME", help="(%(default)s)")
    submit.add_argument("--check", action="store_true", help="only say what is wrong; nothing is kept")
    submit.add_argument("--no-run", action="store_true", help="keep them, and score them later by `run`")
    submit.add_argument("--limit", type=int, metavar="N", help="pairs to score, of all categories in turn")
    submit.add_argument("--workers", type=int, default=1, metavar="N", help="pairs at a time (%(default)s)")
    submit.set_defaults(ray=None, again=False, no_videos=False, protocol="short", evaluator="auto")
    _placed(submit)

    pairs = commands.add_parser("pairs", help="lists of pairs").add_subparsers(required=True, metavar="COMMAND")
    draw = pairs.add_parser("draw", help="make a set of a folder with media and their clips.csv: draw and freeze pairs")
    draw.set_defaults(run=_draw)
    draw.add_argument("folder", type=Path, metavar="FOLDER")
    draw.add_argument("--name", required=True, metavar="NAME", help="letters, digits, dots and dashes")
    draw.add_argument("--version", default="1", metavar="V", help="(%(default)s)")
    draw.add_argument("--title", metavar="TEXT", help="(the name)")
    draw.add_argument("--licence", default="", metavar="TEXT")
    draw.add_argument("--footer", default="", metavar="TEXT", help="the credit line under every table")
    draw.add_argument("--count", nargs="+", required=True, metavar="CATEGORY=N", help=", ".join(CATEGORIES))
    draw.add_argument("--seed", type=int, default=0, metavar="N", help="(%(default)s)")

    board = commands.add_parser("leaderboard", help="the table of a set")
    board.set_defaults(run=_leaderboard)
    board.add_argument("--set", dest="set_name", metavar="NAME", help="the set (that of the latest row)")
    board.add_argument(
        "--view", metavar="ID", help="set, evaluator and protocol by their id, of which no two are mixed"
    )
    board.add_argument("--category", default="", choices=["", *CATEGORIES], metavar="C", help=", ".join(CATEGORIES))
    board.add_argument("--rank-by", default="lse_d", metavar="MEASURE", help="lse_d, lse_c, in_sync … (%(default)s)")
    form = board.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="standard output holds a line a system, nothing else")
    form.add_argument("--json", action="store_true", help="standard output holds one object, nothing else")
    board.add_argument("--published", action="store_true", help="the papers' figures instead, not measured here")
    _placed(board)

    closure = commands.add_parser(
        "closure", help="do the lips shut at p, b, m? of the videos that runs kept, or FOLDERs"
    )
    closure.set_defaults(run=_closure)
    closure.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="outputs ID.mp4 (what runs kept)")
    closure.add_argument("--set", required=True, dest="set_name", metavar="NAME", help="a set's name, or its folder")
    closure.add_argument("--json", action="store_true", help="standard output holds a list, nothing else")

    card = commands.add_parser("card", help="all about a row, and the commands that make it again, as JSON")
    card.set_defaults(run=_card)
    card.add_argument("key", metavar="ROW", help="the row's key, or its first digits")
    _placed(card)

    withdraw = commands.add_parser("withdraw", help="let a row or a system count no more; nothing is deleted")
    withdraw.set_defaults(run=_withdraw)
    withdraw.add_argument("kind", choices=("score", "system"))
    withdraw.add_argument("key", help="the row's key, or the system's fingerprint")
    withdraw.add_argument("--reason", required=True, metavar="WHY", help="a sentence that stays beside it")
    _placed(withdraw)

    export = commands.add_parser("export", help="write everything, or a set's table in a format of others")
    export.set_defaults(run=_export)
    export.add_argument("folder", type=Path, metavar="FOLDER")
    forms = ("parquet", "csv", "every-eval-ever", "hugging-face", "croissant")
    export.add_argument("--as", dest="form", choices=forms, default="parquet", help="(%(default)s)")
    export.add_argument("--set", dest="set_name", metavar="NAME", help="for the last three: the set")
    export.add_argument(
        "--dataset",
        default="lipsync-lab/resynced",
        metavar="OWNER/NAME",
        help="for hugging-face and croissant: the set's repository (%(default)s)",
    )
    _placed(export)

    load = commands.add_parser("import", help="add what `export` wrote as parquet or csv")
    load.set_defaults(run=_import)
    load.add_argument("folder", type=Path, metavar="FOLDER")
    _placed(load)
    studies_cli.add(commands, _placed)
    return parser


def _placed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="PLACE", help="a path, or postgresql://… (LIPSYNC_DATABASE, DATABASE_URL)")


def _submit(args: argparse.Namespace) -> int:
    from .manifests import load_set
    from .submissions import SubmissionRefused, check, register

    chosen = load_set(args.set_name)
    kept = None
    with Bar({"unpack": "Unpacking", "check": "Checking", "frames": "Reading"}) as show:
        try:
            if args.check:
                faults = check(args.source, chosen, args.card, Monitor(show))
            else:
                kept, faults = register(args.source, chosen, args.card, Monitor(show)), []
        except SubmissionRefused as refused:
            faults = refused.faults
    if faults:
        print(*faults, sep="\n")
        print(f"{len(faults)} faults: nothing was kept." if len(faults) > 1 else "1 fault: nothing was kept.")
        return 1
    if args.check or kept is None:
        print("Nothing is wrong with it.")
        return 0
    print(f"Accepted as submission:{kept.name}")
    if args.no_run:
        return 0
    args.system = [f"submission:{kept.name}"]
    args.typed = shlex.join(["python", "-m", "resynced", "run", "--set", args.set_name, "--system", *args.system])
    return _run(args)


def _draw(args: argparse.Namespace) -> int:
    from .pairs import draw_set

    counts = {}
    for said in args.count:
        category, _, number = said.partition("=")
        if category not in CATEGORIES or not number.isdecimal():
            raise BenchmarkError(f"{said!r} is no count: write CATEGORY=N, with one of {', '.join(CATEGORIES)}.")
        counts[category] = int(number)
    facts = {"name": args.name, "version": args.version, "title": args.title or args.name}
    facts |= {k: v for k, v in {"licence": args.licence, "footer": args.footer}.items() if v}
    print(f"{sum(counts.values())} pairs, frozen as {draw_set(args.folder, facts, counts, args.seed)}")
    return 0


def _run(args: argparse.Namespace) -> int:
    from .manifests import load_set
    from .runner import run
    from .scoring import Scoring
    from .store import Store, data_folder
    from .systems import open_system, with_limits

    chosen = load_set(args.set_name)
    systems = with_limits([open_system(word) for word in args.system], chosen)
    scoring = Scoring(evaluator=args.evaluator, protocol=args.protocol)
    typed = re.sub(r"--store[ =]\S+", "--store …", args.typed)  # it may hold a password
    with Store(args.store) as store, Bar(STAGES) as show:
        done = run(
            chosen,
            systems,
            store,
            data_folder(),
            scoring,
            limit=args.limit,
            workers=args.workers,
            ray=args.ray,
            again=args.again,
            keep=not args.no_videos,
            command=typed,
            monitor=Monitor(show),
        )
    print(done.words())
    return 1 if done.failed else 0


def _leaderboard(args: argparse.Namespace) -> int:
    from .leaderboard import find_view, flat, leaderboard
    from .published import NOTES, published
    from .store import Store

    if args.published:
        print(
            published().to_csv(index=False)
            if args.csv
            else published().to_json(orient="records")
            if args.json
            else published().drop(columns=["what"]).to_string(index=False, na_rep="–")
        )
        if not (args.csv or args.json):
            print("\nPublished, not measured here.", *NOTES, sep="\n")
        return 0
    with Store(args.store) as store:
        table = leaderboard(store, find_view(store, args.set_name, args.view), args.category, args.rank_by)
    if args.json:
        print(json.dumps(table, ensure_ascii=False, indent=1))
    elif args.csv:
        sys.stdout.write(flat(table).to_csv(index=False))
    else:
        _print_table(table)
    return 0


def _print_table(table: dict) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(escape(table["answer"]["text"]), style="bold")
    shown = Table(title=escape(table["heading"]), title_justify="left", box=None, padding=(0, 2, 0, 0))
    shown.add_column("Rank", justify="right")
    shown.add_column("System", overflow="fold")
    columns = [c for c in table["columns"] if c["name"] in SHORT]
    for column in columns:
        arrow = {"higher": " ↑", "lower": " ↓"}.get(column["better"], "")
        shown.add_column(SHORT[column["name"]] + arrow, justify="right")
    titles = {row["distance"]["title"] for row in table["rows"] if row["distance"]}
    shown.add_column(f"{titles.pop() if titles else 'Fréchet'} ↓", justify="right")
    shown.add_column("n", justify="right")
    shown.add_column("failed", justify="right")
    for row in table["rows"]:
        rank = "–" if not row["rank"] else "–".join(map(str, dict.fromkeys(row["rank"])))
        cells = [_cell(row["values"][c["name"]], c["digits"], c["name"] == table["rank_by"]) for c in columns]
        distance = row["distance"] and row["distance"]["frechet"]
        shown.add_row(
            rank,
            escape(row["label"]),
            *cells,
            "–" if distance is None else f"{distance:.3f}",
            str(row["scored"]),
            str(row["failed"]),
        )
    console.print(shown)
    for row in table["rows"]:
        if row["unranked"] and row["unranked"] != table["cannot_rank"]:
            console.print(escape(f"{row['label']}: {row['unranked']}"))
    if table["changes"] is not None:
        clips = "1 clip" if table["changes"] == 1 else f"{table['changes']} clips"
        console.print(f"{clips} would have to go the other way for first place to change.")
    for note in filter(None, (*table["notes"], table["footer"])):
        console.print(escape(note))


def _cell(value: dict, digits: int, whole: bool) -> str:
    """A mean; `whole`: with its interval."""
    if value["mean"] is None:
        return "–"
    span = "" if value["low"] is None or not whole else f" ({value['low']:.{digits}f}–{value['high']:.{digits}f})"
    return f"{value['mean']:.{digits}f}{span}"


def _closure(args: argparse.Namespace) -> int:
    from .closure import closure_rows
    from .manifests import load_set
    from .runner import videos_folder
    from .store import data_folder

    chosen = load_set(args.set_name)
    kept = videos_folder(data_folder(), chosen.name, chosen.sha256)
    folders = args.folders or sorted(p for p in kept.glob("*") if p.is_dir())
    if not folders:
        raise BenchmarkError(
            "No run of the set {name} has kept videos here: make one, or name folders.", name=chosen.name
        )
    with Bar(STAGES) as show:
        rows = closure_rows(chosen, folders, Monitor(show))
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        found = "too few" if row["closure"] is None else f"{row['closure']:.2f}"
        span = "" if row["closure_low"] is None else f" ({row['closure_low']:.2f} to {row['closure_high']:.2f})"
        print(f"{row['system']}: closure {found}{span}, {row['events']} events in {row['clips']} clips")
        if row["missing"]:
            print(f"  {row['missing']} pairs have no video there")
        for pair, why in row["failed"].items():
            print(f"  {pair}: {why}")
    return 0


def _card(args: argparse.Namespace) -> int:
    from .export import row_card
    from .store import Store

    with Store(args.store) as store:
        print(json.dumps(row_card(store, args.key), ensure_ascii=False, indent=1))
    return 0


def _withdraw(args: argparse.Namespace) -> int:
    from .store import Store

    with Store(args.store) as store:
        new = store.withdraw(args.kind, args.key, args.reason)
    print("Withdrawn." if new else "It was withdrawn before.")
    return 0


def _export(args: argparse.Namespace) -> int:
    from . import export
    from .leaderboard import find_view
    from .store import FORMS, Store

    with Store(args.store) as store:
        if args.form in FORMS:
            counts = store.export(args.folder, args.form)
            print(", ".join(f"{count} {name}" for name, count in counts.items() if count) or "The store is empty.")
            return 0
        view = find_view(store, args.set_name)
        if args.form == "every-eval-ever":
            written = export.every_eval_ever(store, view, args.folder)
        elif args.form == "hugging-face":
            written = [
                _written(args.folder / export.pair_file(name) / ".eval_results" / "resynced.yaml", text)
                for name, text in export.eval_results(store, view, args.dataset).items()
            ]
            written += [
                _written(args.folder / export.pair_file(name) / "model-index.json", json.dumps(index, indent=1))
                for name, index in export.model_index(store, view, args.dataset).items()
            ]
        else:
            found = export.croissant(store, view.set_sha256, f"https://huggingface.co/datasets/{args.dataset}")
            written = [_written(args.folder / "croissant.json", json.dumps(found, ensure_ascii=False, indent=1))]
    for path in written:
        print(path)
    return 0


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", "utf-8")
    return path


def _import(args: argparse.Namespace) -> int:
    from .store import Store

    if not args.folder.is_dir():
        raise BenchmarkError(f"There is no folder {args.folder}.")
    with Store(args.store) as store:
        counts = store.load(args.folder)
    print(", ".join(f"{count} new {name}" for name, count in counts.items() if count) or "Nothing of it is new.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
