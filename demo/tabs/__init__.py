"""Tabs of the page, in their order: each a module with KEY, a key of i18n, and build(page, context).

What `build` returns, where it returns something, is done when the tab is opened: handler, inputs, outputs.
"""

from typing import Any

import gradio as gr

from . import benchmark, sync, verify

TABS = (sync, benchmark, verify)


def open_when_asked(page: gr.Blocks, tabs: gr.Tabs, tab: gr.Tab, key: str, opened: tuple) -> None:
    """Let a tab be filled when it is clicked, or when the address names it: /?tab=benchmark for tab_benchmark."""
    handler, inputs, outputs = opened
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    tab.select(handler, inputs, outputs, **quiet)

    def named(request: gr.Request) -> Any:
        return gr.Tabs(selected=key) if f"tab_{request.query_params.get('tab', '')}" == key else gr.skip()

    page.load(named, None, tabs, **quiet)
