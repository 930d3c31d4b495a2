"""Studies on the command line: create, open, close, publish, export; and simulated raters."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lipsync.console import Bar
from lipsync.progress import Monitor

from .studies import DESIGNS, LANGUAGES, LONGEST_TEXT, StudyError

COUNTS = (
    "votes_per_pair",
    "per_rater",
    "training",
    "gold",
    "traps",
    "repeats",
    "items",
    "days",
    "seed",
    "least_width_px",
)
WORDS = ("title", "consent", "plan", "completion_code")


def add(commands: Any, placed: Callable[[argparse.ArgumentParser], None]) -> None:
    """The commands `study` and `simulate`; `placed` adds --store."""
    study = commands.add_parser("study", help="people's answers: set a study up, open, close and export it")
    verbs = study.add_subparsers(required=True, metavar="WHAT")
    create = verbs.add_parser("create", help="write a study down before data, and make the videos that raters see")
    create.set_defaults(run=_create)
    create.add_argument("name", help="small letters, digits and hyphens")
    create.add_argument("--set", required=True, dest="set_name", metavar="NAME", help="a set that has scored videos")
    create.add_argument("--system", required=True, nargs="+", metavar="NAME", help="systems of the leaderboard")
    create.add_argument("--design", choices=DESIGNS, default="preference", help="(%(default)s)")
    create.add_argument("--language", choices=LANGUAGES, default="en", help="of the raters (%(default)s)")
    create.add_argument("--title", default="", help="as raters read it; it must not name a system")
    create.add_argument("--plan", default="", help="what is tested and how, or @FILE: fixed before data")
    create.add_argument("--consent", default="", help="what raters agree to, or @FILE (default: a text in --language)")
    create.add_argument("--completion-code", default="", metavar="CODE", help="one for all, where a panel wants it so")
    create.add_argument("--votes-per-pair", type=int, default=100, metavar="N", help="of systems (%(default)s)")
    create.add_argument("--per-rater", type=int, default=20, metavar="N", help="counted ballots (%(default)s)")
    for name, least in (("training", 2), ("gold", 2), ("traps", 1), ("repeats", 2)):
        create.add_argument(f"--{name}", type=int, default=least, metavar="N", help="ballots a rater (%(default)s)")
    create.add_argument("--items", type=int, metavar="N", help="pairs of the set, drawn by the seed (all)")
    create.add_argument("--days", type=int, default=14, metavar="N", help="that a rater may take (%(default)s)")
    create.add_argument(
        "--least-width-px",
        type=int,
        default=0,
        metavar="N",
        help="of a rater's window; 0: any, phones too (%(default)s)",
    )
    create.add_argument("--seed", type=int, default=0, metavar="N")
    placed(create)
    for verb, help in (
        ("prepare", "make what videos are missing"),
        ("open", "let raters in"),
        ("close", "take no more answers"),
        ("publish", "show the results to everybody"),
        ("unpublish", "show them no more"),
        ("status", "counts and alarms"),
    ):
        one = verbs.add_parser(verb, help=help)
        one.set_defaults(run=_VERBS[verb])
        one.add_argument("name")
        placed(one)
    export = verbs.add_parser("export", help="votes, ballots, statistics and a methods paragraph as one zip")
    export.set_defaults(run=_export)
    export.add_argument("name")
    export.add_argument("--out", type=Path, metavar="FILE", help="(NAME.zip)")
    placed(export)

    simulated = commands.add_parser("simulate", help="raters with known preferences: is the truth found?")
    simulated.set_defaults(run=_simulate)
    for name, default in (("raters", 500), ("votes", 20_000), ("systems", 8), ("items", 60), ("seed", 0)):
        simulated.add_argument(f"--{name}", type=int, default=default, metavar="N", help="(%(default)s)")
    simulated.add_argument("--bots", type=float, default=0.1, metavar="SHARE", help="not honest (%(default)s)")
    simulated.add_argument("--repeat", type=int, metavar="N", help="so many studies: coverage of the intervals")
    simulated.add_argument("--json", action="store_true", help="standard output holds one object, nothing else")


def _text(said: str) -> str:
    """The text, or what the file of @FILE holds."""
    if not said.startswith("@"):
        return said
    path = Path(said[1:])
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(LONGEST_TEXT + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read as a text: {error}.") from error


def _create(args: argparse.Namespace) -> int:
    from .desk import open_desk
    from .store import Store, data_folder
    from .study_media import draft

    given = vars(args)
    more = {k: given[k] for k in COUNTS} | {k: _text(given[k]) for k in WORDS}
    more |= {"name": args.name, "design": args.design, "language": args.language, "title": args.title or args.name}
    with Store(args.store) as store:
        study = draft(store, data_folder(), args.set_name, args.system, **more)
        said = open_desk(store, data_folder()).create(study)
        _derive(store, study)
    print(f"{study.name} is written down and closed. Publish its hash before the first answer: {said}")
    return 0


def _derive(store: Any, study: Any) -> None:
    from .store import data_folder
    from .study_media import prepare

    with Bar({"videos": "Videos for raters"}) as show:
        prepare(store, data_folder(), study, Monitor(show))


def _prepare(args: argparse.Namespace) -> int:
    with _Desk(args) as (store, desk):
        _derive(store, desk.study(args.name))
    print(f"The videos of {args.name} are ready.")
    return 0


def _open(args: argparse.Namespace) -> int:
    from .store import data_folder
    from .study_media import check_ready

    with _Desk(args) as (_, desk):
        check_ready(desk.study(args.name), data_folder())
        desk.open(args.name)
    print(f"{args.name} is open: raters go to /rate/{args.name} on the page.")
    return 0


def _simple(verb: str, sentence: str) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        with _Desk(args) as (_, desk):
            {
                "close": desk.close,
                "publish": desk.publish,
                "unpublish": lambda name: desk.publish(name, False),
            }[verb](args.name)
        print(f"{args.name} {sentence}.")
        return 0

    return run


def _status(args: argparse.Namespace) -> int:
    from .store import data_folder
    from .study_media import ready
    from .study_results import progress

    with _Desk(args) as (_, desk):
        study = desk.study(args.name)
        state = progress(study, desk.tables(args.name))
        done, of = ready(study, data_folder())
        state |= {"open": desk.is_open(args.name), "published": desk.is_published(args.name), "sha256": study.sha256}
    print(json.dumps(state | {"items_ready": done, "items": of}, indent=1, ensure_ascii=False))
    return 0


def _export(args: argparse.Namespace) -> int:
    from .study_export import write_zip
    from .study_media import measures_of
    from .study_results import compute

    with _Desk(args) as (store, desk):
        study, facts = desk.study(args.name), desk.tables(args.name)
        results = compute(study, facts, measures_of(store, study))
        print(write_zip(results, facts, args.out or Path(f"{args.name}.zip")))
    return 0


def _simulate(args: argparse.Namespace) -> int:
    from .simulate import repeat, simulate

    options = {k: vars(args)[k] for k in ("raters", "votes", "systems", "items", "bots")}
    found = repeat(args.repeat, **options) if args.repeat else simulate(seed=args.seed, **options)
    if args.json:
        print(json.dumps(found, default=float))
        return 0
    for row in found.pop("table", []):
        held = "holds" if row["held"] else "misses"
        span = f"{row['score']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        print(f"{row['system']:12} {span}  rank {row['rank']:5} the true {row['true']:+.2f}: {held}")
    for key, value in found.items():
        print(f"{key.replace('_', ' ')}: {value}")
    return 0


class _Desk:
    """The store and its desk, closed afterwards."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._place = args.store

    def __enter__(self) -> tuple[Any, Any]:
        from .desk import open_desk
        from .store import Store, data_folder

        self._store = Store(self._place)
        return self._store, open_desk(self._store, data_folder())

    def __exit__(self, *_: object) -> None:
        self._store.close()


_VERBS = {
    "prepare": _prepare,
    "open": _open,
    "close": _simple("close", "takes no more answers"),
    "publish": _simple("publish", "shows its results to everybody"),
    "unpublish": _simple("unpublish", "shows its results to nobody"),
    "status": _status,
}
