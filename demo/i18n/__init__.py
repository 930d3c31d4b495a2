"""Every sentence of the page, in English and Korean; the browser's language decides.

The page's own stand under keys in en.json and ko.json. Those of the engine come as `Message`: their English templates
stand in the code, the Korean ones in messages.ko.json, under the English.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import gradio as gr
from gradio.i18n import I18nData

from lipsync.messages import FIELD, Message


def _read(language: str) -> dict[str, str]:
    return json.loads((Path(__file__).parent / f"{language}.json").read_text(encoding="utf-8"))


ENGLISH, KOREAN = _read("en"), _read("ko")
MESSAGES = _read("messages.ko")  # English template -> Korean template
LEAST_LETTERS = 12  # by which a template is recognized: of fewer, "{first} or {second}" would fit what it did not make
_OWN = "page_"  # gradio's own keys must not be met
I18N = gr.I18n(**{lang: {_OWN + k: v for k, v in t.items()} for lang, t in {"en": ENGLISH, "ko": KOREAN}.items()})


def text(key: str) -> I18nData:
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
    """A sentence of the engine in the language of `t`.

    One that lost its parts, as in a row of the store, is recognized by its template, or else stays English.
    """
    if t is not KOREAN:
        return str(sentence)
    known = sentence if isinstance(sentence, Message) else recognized(sentence)
    return known.by(MESSAGES)


@lru_cache(maxsize=4096)
def recognized(sentence: str) -> Message:
    """The message that a plain English sentence was made from: of the templates that fit it, the one that says most."""
    for template in _BY_LENGTH:
        values = _values(sentence, template)
        if values is not None:
            return Message.of(template, {name: recognized(value) for name, value in values.items()})
    return Message("{said}", said=sentence)


def letters(template: str) -> int:
    """How many letters of a template are its own."""
    return sum(map(str.isalpha, FIELD.sub("", template)))


_BY_LENGTH = sorted((k for k in MESSAGES if letters(k) >= LEAST_LETTERS), key=letters, reverse=True)


def _values(sentence: str, template: str) -> dict[str, str] | None:
    """What stands in the places of a template, each up to the next words of it; None where it does not fit."""
    first, *words = FIELD.sub("\0", template).split("\0")
    if not sentence.startswith(first):
        return None
    names, values, at = [field[0] for field in FIELD.findall(template)], {}, len(first)
    for n, (name, word) in enumerate(zip(names, words, strict=True), 1):
        end = sentence.find(word, at + 1) if n < len(words) else len(sentence) - len(word)
        if end < at:
            return None
        values[name], at = sentence[at:end], end + len(word)
    return values if Message.of(template, values) == sentence else None
