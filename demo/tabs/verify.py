"""Second tab: is a video's label whole?"""

from __future__ import annotations

import gradio as gr

from lipsync.errors import LipsyncError

from .. import html, tasks
from ..context import Context
from ..i18n import text
from ..uploads import uploaded

KEY = "tab_label"


def build(page: gr.Blocks, context: Context) -> None:
    """Lay the tab out."""
    gr.Markdown(text("check_lead"), elem_classes="small")
    file = gr.File(label=text("check_file"), file_types=["video", "image"], height=140, elem_id="check")
    said = gr.HTML(elem_id="verdict")

    async def check(path: str | None) -> str:
        if not path:
            return ""
        try:
            found = await context.labels.run(tasks.verdict, uploaded(path))
        except LipsyncError as error:
            return html.sentence(str(error))
        return html.sentence(html.label(found), "quiet" if found["labelled"] else "bad")

    file.change(check, file, said, show_progress="minimal", api_visibility="private")
