"""Theme of the page: system fonts, nothing loaded from elsewhere; static/ has its CSS and scripts."""

from pathlib import Path

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "NanumSquareRound", "Noto Sans KR", "sans-serif")

THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="slate",
    radius_size="lg",
    font=FONTS,
    font_mono=("ui-monospace", "Consolas", "monospace"),
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_border_width="1px",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    body_text_color_subdued="*neutral_500",  # 4.5 to 1 on the page
    body_text_color_subdued_dark="*neutral_400",
    checkbox_border_color="*neutral_500",  # 3 to 1 on a field
    checkbox_border_color_dark="*neutral_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_600",
    button_primary_text_color="white",
)

_STATIC = Path(__file__).parent / "static"


def static(name: str) -> str:
    """The text of a file in static/."""
    return (_STATIC / name).read_text(encoding="utf-8")


# Gradio prefixes the rules of page.css and moves them below its content; what is around that has a style of its own.
HEAD = f"<style>\n{static('around.css')}</style>"
