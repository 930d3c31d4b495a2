"""Footer: what becomes of a visitor's files, on what terms, within which limits."""

from __future__ import annotations

import gradio as gr

from .. import tasks
from ..context import Context
from ..i18n import ENGLISH, texts_for


def build(page: gr.Blocks, context: Context) -> None:
    """One line, in the visitor's language."""
    line, settings = gr.Markdown(elem_classes="small"), context.settings

    def words(request: gr.Request) -> str:
        t = texts_for(request)
        said = t["privacy"].format(minutes=f"{settings.keep_minutes:g}")
        said += " " + t["limits"].format(seconds=f"{settings.max_seconds:g}", megabytes=f"{settings.max_megabytes:g}")
        terms: dict[str, list[str]] = {}
        for name, card in tasks.models().items():
            terms.setdefault(card.licence, []).append(name)
        for licence, names in terms.items():
            of_research = licence == ENGLISH["licence_research"]  # others are names, the same in every language
            shown = t["licence_research"] if of_research else licence
            said += " " + t["licence"].format(model=", ".join(names), licence=shown)
        return said

    page.load(words, None, line, show_progress="hidden", api_visibility="private")
