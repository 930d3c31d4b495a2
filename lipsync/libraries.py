"""Manners of the libraries below us: none calls home, and none writes outside the cache.

`settle` runs when this package is imported, before any of them is.
"""

from __future__ import annotations

import atexit
import importlib.abc
import importlib.util
import os
import secrets
import shutil
import sys
import tempfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

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
    if not any(isinstance(finder, _Gradio) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Gradio())
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


class _Gradio(importlib.abc.MetaPathFinder):
    """Imports gradio without what it does for its editors: at each start it writes a .pyi beside each component, into
    the installed package, and parses every source twice for it, which is half of its import."""

    NAME = "gradio.component_meta"

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.NAME or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def without(module: ModuleType) -> None:
                execute(module)
                module.create_or_modify_pyi = lambda *_: None

            spec.loader.exec_module = without
        return spec


def _takes_files(folder: Path) -> bool:
    """Can a folder, which may not exist yet, be written to?"""
    while not os.path.lexists(folder):
        folder = folder.parent
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
