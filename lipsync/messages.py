"""Sentences that know their template and values, so that whoever shows them can say them in another language.

An English template stands in the code, as a literal, and is its own key, as with gettext. Values are written once, when
the sentence is made; afterwards text is only put in for names, so a template from elsewhere (a child's answer, a file)
can do nothing but be shown. A value may be a message itself: a list of choices, a reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

FIELD = re.compile(r"\{(\w+)(?:!(r))?(?::([^{}]*))?\}")  # {name}, {name!r}, {name:.2f}; any other brace is a brace
_KEYS = {"message", "values"}


class Message(str):
    """A sentence in English; `template` and `values` (texts and messages by name) are what it was made of.

    Message("{name} has {megabytes:.0f} MB.", name=…, megabytes=…); a name without a value stays as it is, and may get
    one later: Message(message, name=…).
    """

    template: str
    values: dict[str, str]

    def __new__(cls, template: str = "", /, **values: Any) -> Self:
        known = dict(template.values) if isinstance(template, Message) else {}
        plain = str(template.template if isinstance(template, Message) else template)
        for name, conversion, form in FIELD.findall(plain):
            if name in values:
                known[name] = _written(values[name], conversion, form)
        return cls.of(plain, known)

    @classmethod
    def of(cls, template: str, values: dict[str, str]) -> Self:
        """A message of texts that are written already."""
        made = super().__new__(cls, FIELD.sub(lambda field: values.get(field[1], field[0]), template))
        made.template, made.values = template, values
        return made

    @classmethod
    def join(cls, between: str, parts: Iterable[str]) -> Self:
        """Several sentences or words as one message: nothing but its parts is there to be translated."""
        values = {str(k): part if isinstance(part, Message) else str(part) for k, part in enumerate(parts)}
        return cls.of(between.join(f"{{{name}}}" for name in values), values)

    def by(self, table: Mapping[str, str]) -> str:
        """The sentence by another language's templates; what the table lacks stays English."""
        said = {k: v.by(table) if isinstance(v, Message) else v for k, v in self.values.items()}
        return FIELD.sub(lambda field: said.get(field[1], field[0]), table.get(self.template, self.template))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, (self.template, self.values)


def _written(value: Any, conversion: str, form: str) -> str:
    """A value as it stands in a sentence."""
    value = getattr(value, "message", value) if isinstance(value, BaseException) else value
    if isinstance(value, Message):
        return value
    return format(repr(value) if conversion else value, form)


def as_json(value: Any) -> Any:
    """What JSON can hold of a value of dicts, lists and messages: messages keep their parts."""
    if isinstance(value, Message):
        return {"message": value.template, "values": {k: as_json(v) for k, v in value.values.items()}}
    if isinstance(value, dict):
        return {k: as_json(v) for k, v in value.items()}
    return [as_json(v) for v in value] if isinstance(value, list | tuple) else value


def from_json(value: Any, most: int | None = None) -> Any:
    """`as_json` taken back.

    most  letters that a message may have, where it comes from somebody who may not mean well: others stay a template
    """
    if isinstance(value, list):
        return [from_json(v, most) for v in value]
    if not isinstance(value, dict):
        return value
    made = {k: from_json(v, most) for k, v in value.items()}
    if made.keys() != _KEYS or not isinstance(made["message"], str) or not isinstance(made["values"], dict):
        return made
    template, texts = str(made["message"]), {k: v if isinstance(v, str) else str(v) for k, v in made["values"].items()}
    if (
        most is not None
        and len(template) + sum(len(texts.get(name, "")) for name, *_ in FIELD.findall(template)) > most
    ):
        return template[:most]
    return Message.of(template, texts)
