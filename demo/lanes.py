"""Lanes for short work that opens visitors' files outside the job queue: a few at once, a few more waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from lipsync.errors import InputError
from lipsync.messages import Message

T = TypeVar("T")


class Lane:
    """Runs functions in threads of their own.

    what      what it does, as a sentence names it
    at_once   how many run at the same time; waiting: how many more may wait
    """

    def __init__(self, what: Message, at_once: int = 2, waiting: int = 24):
        self._what, self._most = what, at_once + waiting
        self._places, self._here = asyncio.Semaphore(at_once), 0

    async def run(self, function: Callable[..., T], *given: object) -> T:
        """The function's result. Raises InputError at once where too many wait."""
        if self._here >= self._most:
            raise InputError("Too many visitors are {what} at the moment; try again in a minute.", what=self._what)
        self._here += 1
        try:
            async with self._places:
                return await asyncio.to_thread(function, *given)
        finally:
            self._here -= 1
