"""Where files lie: this user's folders, named by a setting or below the home folder, and which paths are one file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .errors import InputError
from .messages import Message


def user_folder(setting: str, *below: str) -> Path:
    """The folder that the environment variable `setting` names, else `below` the home folder; may not exist.

    Whoever has no home (a service's user) gets a path at which nothing can be: it reads as empty, and writing to it
    is an OSError.
    """
    named = os.environ.get(setting)
    return expanded(named or os.path.join("~", *below))


def expanded(path: str) -> Path:
    """A path with its ~ filled in, as `user_folder` does it."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # pathlib's word for "no home"
        return Path(os.devnull, *Path(path).parts[1:])


def listed(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder, by name; none where it is not there or may not be looked into."""
    try:
        return sorted(p for p in folder.glob(pattern) if os.path.isfile(p))
    except OSError:
        return []


def cache_dir() -> Path:
    """The folder of what can be had again: LIPSYNC_CACHE, else ~/.cache/lipsync. May not exist, or take no files."""
    return user_folder("LIPSYNC_CACHE", ".cache", "lipsync")


def cache_warnings() -> list[str]:
    """A sentence where the cache takes no files. It costs time and nothing else: no run may end for its sake."""
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache_dir()).close()
    except OSError as error:
        return [
            Message(
                "What is made at first use (networks for this processor, measured speeds) could not be kept "
                "({error}), so every run makes it again: set LIPSYNC_CACHE to a folder that can be written.",
                error=error.strerror,
            )
        ]
    return []


def identity(path: str | os.PathLike) -> object:
    """What two paths share that lead to one file, by whatever links: for one that is not there, its resolved path."""
    try:
        found = os.stat(path)
        return found.st_dev, found.st_ino
    except (OSError, ValueError):
        return os.path.abspath(through_links(path))


def through_links(path: str | os.PathLike) -> Path:
    """Where a file really lies or would lie: a link is followed, so that writing does not replace it."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a null byte, which no file has: said where it is used
        return Path(path)


def refuse_overwriting(written: Iterable[tuple[str, Path]], read: Iterable[str | os.PathLike]) -> None:
    """Raise InputError where a path that is to be written is also read, or written twice.

    written  (what it is, as in "result"; path); read: what the work is made from
    """
    known = {identity(path): path for path in read}
    for what, path in written:
        mine = identity(path)
        if mine in known:
            raise InputError(
                "The {what} {path} would overwrite {known}, which is needed too: choose another name.",
                what=what,
                path=path,
                known=known[mine],
            )
        known[mine] = path
