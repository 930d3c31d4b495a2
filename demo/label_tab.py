"""The tab on which a video's label is checked."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from . import views
from .jobs import Store
from .settings import Settings
from .texts import text
from .work import verdict

TITLE = "tab_label"


def build(page: gr.Blocks, store: Store, settings: Settings) -> None:
    """Lay the tab out."""
    gr.Markdown(text("check_lead"), elem_classes="small")
    file = gr.File(label=text("check_file"), file_types=["video", "image"], height=140, elem_id="check")
    said = gr.HTML(elem_id="verdict")

    def check(path: str | None) -> str:
        if not path:
            return ""
        found = verdict(Path(path))
        return views.sentence(views.label(found), "quiet" if found["labelled"] else "bad")

    file.change(check, file, said, show_progress="minimal", api_visibility="private")
