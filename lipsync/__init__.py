"""Lip-sync a video to a voice: `import lipsync; lipsync.sync("clip.mp4", "voice.wav", "out.mp4")`.

Names are loaded on first use, so that the decoding child processes, which import this package too, start light.
"""

from typing import TYPE_CHECKING, Any

from .libraries import settle
from .version import VERSION

settle()
__version__ = VERSION

_HOMES = {
    "sync": "pipeline",
    "segment": "segments",
    "read_segments": "segments",
    "find": "pipeline",
    "preview": "pipeline",
    "Clip": "clip",
    "Options": "options",
    "Report": "report",
    "verify": "label.manifest",
    "LipsyncError": "errors",
}
__all__ = ["Clip", "LipsyncError", "Options", "Report", "find", "preview", "read_segments", "segment", "sync", "verify"]

if TYPE_CHECKING:
    from .clip import Clip
    from .errors import LipsyncError
    from .label.manifest import verify
    from .options import Options
    from .pipeline import find, preview, sync
    from .report import Report
    from .segments import read_segments, segment


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lipsync' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
