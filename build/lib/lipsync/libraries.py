"""Manners of the libraries below us: none calls home, and none writes outside the cache.

`settle` runs when this package is imported, before any of them is.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from .files import cache_dir

SILENT = {  # set only where the environment says nothing of its own
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}
FOLDERS = {"NUMBA_CACHE_DIR": "numba", "MPLCONFIGDIR": "matplotlib"}
OTHERS = {"XDG_CACHE_HOME": "others"}  # of every other library, where the user has no cache at all


def settle() -> None:
    """Switch off what reports usage, and say where caches go. Touches no file; a second call changes nothing."""
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    # OpenVINO reports on import unless a file in the home folder forbids it; without this module it has nothing to
    # report with, for which it is prepared.
    sys.modules.setdefault("openvino_telemetry", None)
    if FOLDERS.keys() <= os.environ.keys():
        return
    root, folders = cache_dir(), FOLDERS
    if not _takes_files(root):
        # numba refuses to import librosa where it finds no place for its cache, and others know no way out either.
        root = Path(tempfile.gettempdir(), f"lipsync-{secrets.token_hex(8)}")  # made by the first library that asks
        folders = FOLDERS | OTHERS
        atexit.register(shutil.rmtree, root, ignore_errors=True)
    for name, folder in folders.items():
        os.environ.setdefault(name, str(root / folder))


def _takes_files(folder: Path) -> bool:
    """Can a folder, which may not exist yet, be written to?"""
    while not os.path.lexists(folder):
        folder = folder.parent
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
