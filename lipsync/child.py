"""How the processes begin that open what visitors give: decoder.py and notary.py."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def child_process(module: str, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Arguments of subprocess.Popen or run for a module of this package, wherever the parent was started.

    settings  environment variables beside the parent's
    """
    root = str(Path(__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {
        "args": [sys.executable, "-P", "-m", f"{__package__}.{module}"],
        "process_group": 0,  # Ctrl-C is for the parent to handle
        "env": {**os.environ, **(settings or {}), "PYTHONPATH": search},
    }


def limit(memory_bytes: int) -> None:
    """Bound the memory of this process, and leave no core file when it breaks down; where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
