"""Second tab: is a video's label whole?"""

from __future__ import annotations

import gradio as gr

from lipsync.errors import LipsyncError

from .. import html, tasks
from ..context import Context
from ..i18n import text, texts_for, worded
from ..uploads import uploaded

KEY = "tab_label"


def build(page: gr.Blocks, context: Context) -> None:
    """Lay the tab out."""
    gr.Markdown(text("check_lead"), elem_classes="small")
    file = gr.File(label=text("check_file"), file_types=["video", "image"], height=140, elem_id="check")
    said = gr.HTML(elem_id="verdict")

    async def check(path: str | None, request: gr.Request) -> str:
        if not path:
            return ""
        t = texts_for(request)
        try:
            found = await context.labels.run(tasks.verdict, uploaded(path))
        except LipsyncError as error:
            return html.sentence(worded(error.message, t))
        kind, said = html.label_kind(found), html.label(found, t)
        return html.sentence(f"{said} {t['no_label']}" if kind == "quiet" else said, kind)

    file.change(check, file, said, show_progress="minimal", api_visibility="private")
