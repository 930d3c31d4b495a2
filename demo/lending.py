"""Files handed to gradio, which serves what lies in its own temporary folder to whoever has the path.

Each is lent under an unguessable name; the sweeper takes it back with everything else there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Container, Iterable
from pathlib import Path


def gradio_folder() -> Path:
    """Gradio's cache of uploads and outputs; app.py puts it into the work folder."""
    return Path(os.environ["GRADIO_TEMP_DIR"])


def new_path(name: str) -> Path:
    """A path for a file that gradio is to show, in a folder of its own."""
    folder = gradio_folder() / secrets.token_urlsafe(24)
    folder.mkdir(parents=True)
    return folder / name


def lend(path: Path) -> str:
    """A copy of a file for gradio to show."""
    lent = new_path(path.name)
    shutil.copyfile(path, lent)
    return str(lent)


def take_back(paths: Iterable[str], but: Container[str] = ()) -> None:
    """Remove what was lent or uploaded, but for some; paths elsewhere are left alone."""
    for path in (Path(p) for p in paths if p not in but):
        if path.resolve().is_relative_to(gradio_folder().resolve()):
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()
