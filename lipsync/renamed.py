"""Old names that are still read for one version, each with a warning that says the new one."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from typing import Any, TypeVar

_log = logging.getLogger(__name__)
T = TypeVar("T")


def current_name(name: str, old_names: Mapping[str, str], what: str) -> str:
    """What a thing is called now.

    old_names  old name: new name
    what       the kind of thing, for the warning: "option", "setting"
    """
    if name not in old_names:
        return name
    _log.warning("The %s %s is called %s now.", what, name, old_names[name])
    return old_names[name]


def current_names(given: Mapping[str, T], old_names: Mapping[str, str], what: str) -> dict[str, T]:
    """Values by the names of today; the old name's counts where both are given, as `dataclasses.replace` does."""
    read = {name: value for name, value in given.items() if name not in old_names}
    return read | {current_name(name, old_names, what): given[name] for name in given if name in old_names}


def add_old_flag(parser: argparse._ActionsContainer, old: str, new: str, **takes: Any) -> None:
    """Let a command line read a flag by its old name, which its help does not show.

    old, new  as `--judge` and `--evaluator`
    takes     type, choices and the like, as of the new flag
    """
    hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    dest = new.removeprefix("--").replace("-", "_")
    parser.add_argument(old, dest=dest, action=_OldFlag, **hidden, **takes)


class _OldFlag(argparse.Action):
    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, flag: str | None = None) -> None:
        current_name(str(flag), {str(flag): f"--{self.dest.replace('_', '-')}"}, "flag")
        setattr(namespace, self.dest, values)
