"""Every sentence of the page, in English and Korean; the browser's language decides.

The page's own stand under keys in en.json and ko.json. Those of the engine come as `Message`: their English templates
stand in the code, the Korean ones in messages.ko.json, under the English.
"""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr

from lipsync.messages import Message


def _read(language: str) -> dict[str, str]:
    return json.loads((Path(__file__).parent / f"{language}.json").read_text(encoding="utf-8"))


ENGLISH, KOREAN = _read("en"), _read("ko")
MESSAGES = _read("messages.ko")  # English template -> Korean template
_OWN = "page_"  # gradio's own keys must not be met
I18N = gr.I18n(**{lang: {_OWN + k: v for k, v in t.items()} for lang, t in {"en": ENGLISH, "ko": KOREAN}.items()})


def text(key: str) -> gr.I18n:
    """A sentence that the browser shows in its own language."""
    return I18N(_OWN + key)


def texts_for(request: gr.Request | None) -> dict[str, str]:
    """The sentences of a visitor, by the first language that the browser asks for."""
    accepted = request.headers.get("accept-language", "") if request is not None else ""
    return by_header(accepted)


def by_header(accepted: str) -> dict[str, str]:
    """The sentences for an Accept-Language header."""
    return KOREAN if accepted.strip().lower().startswith("ko") else ENGLISH


def worded(sentence: str, t: dict[str, str]) -> str:
    """A sentence of the engine in the language of `t`; one that is no Message, as of an old job, stays as it is."""
    return sentence.by(MESSAGES) if isinstance(sentence, Message) and t is KOREAN else str(sentence)
