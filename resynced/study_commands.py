"""Commands for studies: `study create|open|close|list|export`, and `simulate`; `add` hangs them into a parser."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from .ballots_tables import Database
from .desk import StudyDesk, secret_key
from .simulate import repeat, simulate
from .studies import Study, StudyError
from .study_export import write_zip
from .study_results import compute


def add(commands: argparse._SubParsersAction) -> None:
    """Add `study` and `simulate` to the subcommands of a parser; each sets `run`, a function of the arguments."""
    study = commands.add_parser("study", help="create, open, close, list and export studies with people")
    study.add_argument("--database", default="sqlite:///studies.db", help="address, default %(default)s")
    study.add_argument("--key", type=Path, default=Path("keys/ballots"), help="secret that signs ballots, %(default)s")
    what = study.add_subparsers(dest="action", required=True)
    create = what.add_parser("create", help="write down a study, from a JSON file with its fields")
    create.add_argument("record", type=Path, help="JSON: name, title, design, set_name, set_sha256, systems, items ...")
    create.set_defaults(run=_create)
    for name, run in (("open", _open), ("close", _close)):
        one = what.add_parser(name, help=f"{name} a study")
        one.add_argument("name")
        one.set_defaults(run=run)
    what.add_parser("list", help="all studies, as JSON").set_defaults(run=_list)
    export = what.add_parser("export", help="everything of a study as one zip")
    export.add_argument("name")
    export.add_argument("--out", type=Path, help="default NAME.zip")
    export.add_argument("--measures", type=Path, help="CSV with item, system and a column for each objective measure")
    export.set_defaults(run=_export)
    crowd = commands.add_parser("simulate", help="a study with simulated raters whose preferences are known")
    crowd.add_argument("--raters", type=int, default=500)
    crowd.add_argument("--votes", type=int, default=20_000)
    crowd.add_argument("--systems", type=int, default=8)
    crowd.add_argument("--bots", type=float, default=0.1, help="share that is not honest, default %(default)s")
    crowd.add_argument("--repetitions", type=int, default=1, help="more than one: coverage over so many crowds")
    crowd.add_argument("--json", action="store_true")
    crowd.set_defaults(run=_simulate)


def _desk(args: argparse.Namespace) -> StudyDesk:
    return StudyDesk(Database(args.database), secret_key(args.key))


def _create(args: argparse.Namespace) -> int:
    try:
        fields = json.loads(args.record.read_text())
    except (OSError, ValueError) as error:
        raise StudyError(f"{args.record} cannot be read as JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise StudyError(f"{args.record} holds no fields of a study.")
    sha256 = _desk(args).create(Study.from_json(json.dumps({"rule": {}, **fields})))
    print(f"Created, closed. Publish this hash of the plan before you open it: {sha256}")
    return 0


def _open(args: argparse.Namespace) -> int:
    _desk(args).open(args.name)
    return 0


def _close(args: argparse.Namespace) -> int:
    _desk(args).close(args.name)
    return 0


def _list(args: argparse.Namespace) -> int:
    print(json.dumps(_desk(args).studies(), indent=1))
    return 0


def _export(args: argparse.Namespace) -> int:
    desk = _desk(args)
    study, facts = desk.study(args.name), desk.tables(args.name)
    measures = pd.read_csv(args.measures) if args.measures else None
    out = write_zip(compute(study, facts, measures), facts, args.out or Path(f"{args.name}.zip"))
    print(out)
    return 0


def _simulate(args: argparse.Namespace) -> int:
    options = {"raters": args.raters, "votes": args.votes, "systems": args.systems, "bots": args.bots}
    found = repeat(args.repetitions, **options) if args.repetitions > 1 else simulate(**options)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    for name, value in found.items():
        if name == "table":
            print(pd.DataFrame(value).round(2).to_string(index=False))
        else:
            print(f"{name}: {value}")
    return 0
