"""Where this user's files lie: folders named by a setting, else below the home folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


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
            f"What is made at first use (networks for this processor, measured speeds) could not be kept "
            f"({error.strerror}), so every run makes it again: set LIPSYNC_CACHE to a folder that can be written."
        ]
    return []
