"""What a measure is, so that each is described once: for the docs, the table's headings and the tests.

A module with measures has three verbs: `validate(...)` raises MeasureError with a sentence, functions on arrays give
the numbers, `evaluate(...)` gives a dict that has every name of the module's MEASURES (None: cannot be told).
"""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass

from lipsync.errors import LipsyncError
from lipsync.messages import Message


class MeasureError(LipsyncError):
    """Something cannot be measured; the sentence says why, with which value, and what to do."""


def reason(error: Exception) -> str:
    """Why a clip has no number, in one line: an error of ours says it itself, any other is a mistake of ours."""
    if isinstance(error, LipsyncError | OSError):
        return getattr(error, "message", str(error))
    if os.environ.get("LIPSYNC_DEBUG"):
        traceback.print_exception(error)
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return Message("internal error: {error}", error=said)


@dataclass(frozen=True)
class Measure:
    """One measured quantity.

    name    key in rows and dicts
    title   heading in tables; {evaluator} and {encoder} are filled in
    unit    of its values, "" where it has none
    low, high  the range of possible values
    better  "higher", "lower", or "" where neither is
    source  paper or protocol.md section
    """

    name: str
    title: str
    unit: str
    low: float
    high: float
    better: str
    source: str
