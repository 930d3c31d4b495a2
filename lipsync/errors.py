"""What can go wrong, as sentences a visitor can act on.

LipsyncError
├── InputError      a file or value that the user gave
│   └── NoFaceError     the video shows no face at all
├── ModelError      a checkpoint that is missing, broken or foreign
├── EngineError     a network cannot be run the way that was asked for
├── LabelError      a label cannot be made or read
└── Cancelled       the user stopped the work
"""

from typing import Any

from .messages import Message


class LipsyncError(Exception):
    """Base of every error this package raises on purpose; its text is one readable sentence.

    InputError("{name} holds no sound.", name=path.name): a literal template and its values, never an f-string, so that
    the page can say it in Korean (demo/i18n/messages.ko.json). `message` keeps both.
    """

    def __init__(self, template: str = "", /, **values: Any) -> None:
        self.message = Message(template, **values)
        super().__init__(self.message)


class InputError(LipsyncError):
    """A file or a value that the user gave cannot be used."""


class NoFaceError(InputError):
    """The video shows no face in any frame."""


class ModelError(LipsyncError):
    """A checkpoint is missing, broken, or belongs to another network."""


class EngineError(LipsyncError):
    """A network cannot be run the way that was asked for."""


class LabelError(LipsyncError):
    """A label cannot be made or read."""


class Cancelled(LipsyncError):
    """The user stopped the work; nothing was left behind."""
