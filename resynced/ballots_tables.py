"""The tables of studies in the store: records, raters, ballots and votes.

Facts are only ever added; what a rater deletes is the one exception. A vote is one row written in one transaction, and
a unique index over ballot and revision lets it be written once, whoever sends it twice. Nothing computed is kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Executable, Index, String, Text, UniqueConstraint
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from .store import Base, Store


class StudyRow(Base):
    """A study's record (studies.Study as JSON), written before the first answer and never changed."""

    __tablename__ = "studies"
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    record: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    date: Mapped[str] = mapped_column(String(32))


class StudyEvent(Base):
    """A study was opened or closed; the last event says which it is."""

    __tablename__ = "study_events"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    study: Mapped[str] = mapped_column(String(63), index=True)
    event: Mapped[str] = mapped_column(String(16))
    date: Mapped[str] = mapped_column(String(32))


class RaterRow(Base):
    """A rater in a study: a hash, and nothing that leads back to anybody. `panel`: sent by one."""

    __tablename__ = "study_raters"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    study: Mapped[str] = mapped_column(String(63), index=True)
    panel: Mapped[bool]
    date: Mapped[str] = mapped_column(String(32), index=True)


class RaterFact(Base):
    """What a rater said or did besides voting: consent (with the hash of its text), description, sound check, ..."""

    __tablename__ = "study_rater_facts"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    rater: Mapped[str] = mapped_column(String(32), index=True)
    fact: Mapped[str] = mapped_column(String(32))
    value: Mapped[str] = mapped_column(Text)
    date: Mapped[str] = mapped_column(String(32))


class BallotRow(Base):
    """A ballot as it was laid out (ballots.Ballot)."""

    __tablename__ = "study_ballots"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    study: Mapped[str] = mapped_column(String(63))
    rater: Mapped[str] = mapped_column(String(32))
    position: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    item: Mapped[str] = mapped_column(String(200))
    left_system: Mapped[str] = mapped_column(String(200))
    left_variant: Mapped[str] = mapped_column(String(16))
    right_system: Mapped[str] = mapped_column(String(200))  # "" where one video is shown
    right_variant: Mapped[str] = mapped_column(String(16))
    expected: Mapped[str] = mapped_column(String(16))
    repeats: Mapped[str] = mapped_column(String(32))
    date: Mapped[str] = mapped_column(String(32))
    __table_args__ = (
        Index("ix_study_ballots_rater", "rater", "position", unique=True),
        Index("ix_study_ballots_study", "study", "kind"),
    )


class VoteRow(Base):
    """One answer. Revision 0 is the first, 1 the one correction that a rater may make; the later counts."""

    __tablename__ = "study_votes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    study: Mapped[str] = mapped_column(String(63), index=True)
    rater: Mapped[str] = mapped_column(String(32), index=True)
    ballot: Mapped[str] = mapped_column(String(32))
    revision: Mapped[int]
    answer: Mapped[str] = mapped_column(Text)  # JSON, by question
    timings: Mapped[str] = mapped_column(Text)  # JSON, as the page measured
    elapsed_s: Mapped[float]  # from serving to answering, by the server's clock
    date: Mapped[str] = mapped_column(String(32))
    __table_args__ = (UniqueConstraint("ballot", "revision"),)


class Database:
    """The studies of a store, for many who vote at once: a store lets one write at a time, here votes go in together.

    store  opened; its tables are this program's by then
    """

    def __init__(self, store: Store) -> None:
        self.engine = store.engine
        self._lock: threading.Lock | nullcontext = nullcontext()
        if store.is_sqlite:
            self._lock = threading.Lock()  # at once; SQLite itself would poll
        self._waiting: deque[_Waiting] = deque()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that writes: on disk when this ends, or not at all."""
        with self._lock, self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def add(self, statement: Executable, row: Mapping[str, Any]) -> None:
        """Write one row; on disk when this returns. Raises IntegrityError where an index forbids it.

        Those who wait for the one before them are written together, by the first of them: getting onto the disk takes
        longer than the rest, and takes no longer for forty rows than for one.
        """
        if isinstance(self._lock, nullcontext):
            with self.write() as connection:
                connection.execute(statement, row)
            return
        mine = _Waiting(statement, row)
        self._waiting.append(mine)
        with self._lock:
            if not mine.done:
                self._write_waiting()
        if mine.error is not None:
            raise mine.error

    def _write_waiting(self) -> None:
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
                for one in batch:
                    try:
                        with connection.begin_nested():
                            connection.execute(one.statement, one.row)
                    except IntegrityError as error:
                        one.error = error
        except Exception as error:
            for one in batch:  # nothing of it is on disk, so nobody may believe so
                one.error = error
        for one in batch:
            one.done = True

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that reads."""
        with self.engine.connect() as connection, connection.begin():
            yield connection


@dataclass
class _Waiting:
    statement: Executable
    row: Mapping[str, Any]
    done: bool = False
    error: Exception | None = None
