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
    "preview": "pipeline",
    "Options": "records",
    "Report": "records",
    "verify": "label.manifest",
    "LipsyncError": "errors",
}
__all__ = ["LipsyncError", "Options", "Report", "preview", "sync", "verify"]

if TYPE_CHECKING:
    from .errors import LipsyncError
    from .label.manifest import verify
    from .pipeline import preview, sync
    from .records import Options, Report


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lipsync' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
