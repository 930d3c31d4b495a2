"""What gradio's fields for files give: the path that the gate let through, and nothing is opened or left on the way.

Gradio's own make an empty file of each upload and open pictures, in the server's process. The classes are changed, not
one field: gradio makes a field anew whenever its looks change in a session. (A subclass will not do: for each, gradio
writes a file beside this one.)
"""

from __future__ import annotations

import gradio as gr
from gradio.data_classes import FileData, ListFiles


def give_paths() -> None:
    """From now on, in this process, fields for a file or a picture give its path, or None; those for files a list."""
    for kind in (gr.File, gr.UploadButton, gr.Image):
        kind.preprocess = _path  # pyrefly: ignore[bad-assignment]


def _path(self: gr.components.Component, payload: FileData | ListFiles | None) -> str | list[str] | None:
    if isinstance(payload, ListFiles):
        return [file.path for file in payload]
    return payload.path if payload else None
