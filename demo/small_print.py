"""What stands below the tabs: what becomes of a visitor's files, on what terms, within which limits."""

from __future__ import annotations

import gradio as gr

from . import work
from .jobs import Store
from .settings import Settings
from .texts import words_for


def build(page: gr.Blocks, store: Store, settings: Settings) -> None:
    """One line, in the visitor's language."""
    line = gr.Markdown(elem_classes="small")

    def words(request: gr.Request) -> str:
        t = words_for(request)
        said = t["privacy"].format(minutes=f"{settings.keep_minutes:g}")
        said += " " + t["limits"].format(seconds=f"{settings.max_seconds:g}", megabytes=f"{settings.max_megabytes:g}")
        for name, card in work.models().items():
            said += " " + t["licence"].format(model=name, licence=card.licence)
        return said

    page.load(words, None, line, show_progress="hidden", api_visibility="private")
