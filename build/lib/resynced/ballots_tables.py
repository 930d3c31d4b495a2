"""The tables of studies: records, raters, ballots and votes, in SQLite or PostgreSQL.

Facts are only ever added; what a rater deletes is the one exception. A vote is one row written in one transaction, and
a unique index over ballot and revision lets it be written once, whoever sends it twice. Nothing computed is kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Executable, Index, String, Text, UniqueConstraint, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .studies import StudyError

BUSY_S = 60  # that a writer waits for those before it
POOL = 10  # connections at once


class StudyBase(DeclarativeBase):
    """The tables of studies."""


class StudyRow(StudyBase):
    """A study's record (studies.Study as JSON), written before the first answer and never changed."""

    __tablename__ = "studies"
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    record: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    date: Mapped[str] = mapped_column(String(32))


class StudyEvent(StudyBase):
    """A study was opened or closed; the last event says which it is."""

    __tablename__ = "study_events"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    study: Mapped[str] = mapped_column(String(63), index=True)
    event: Mapped[str] = mapped_column(String(16))
    date: Mapped[str] = mapped_column(String(32))


class RaterRow(StudyBase):
    """A rater in a study: a hash, and nothing that leads back to anybody. `panel`: sent by one."""

    __tablename__ = "study_raters"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    study: Mapped[str] = mapped_column(String(63), index=True)
    panel: Mapped[bool]
    date: Mapped[str] = mapped_column(String(32), index=True)


class RaterFact(StudyBase):
    """What a rater said or did besides voting: consent (with the hash of its text), description, sound check, ..."""

    __tablename__ = "study_rater_facts"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    rater: Mapped[str] = mapped_column(String(32), index=True)
    fact: Mapped[str] = mapped_column(String(32))
    value: Mapped[str] = mapped_column(Text)
    date: Mapped[str] = mapped_column(String(32))


class BallotRow(StudyBase):
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


class VoteRow(StudyBase):
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


def create(engine: Engine) -> None:
    """Make the tables that are not there yet."""
    StudyBase.metadata.create_all(engine)


class Database:
    """Where studies are kept.

    url  "sqlite:///PATH" (in WAL, every commit on disk before it is acknowledged) or "postgresql+psycopg://..."
    Raises StudyError for another kind of address, or none.
    """

    def __init__(self, url: str) -> None:
        try:
            place = make_url(url)
            self.engine = self._sqlite(place) if place.get_backend_name() == "sqlite" else self._postgresql(place)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise StudyError(f"Studies cannot be kept there: {error}. Use sqlite:/// and a path.") from error
        create(self.engine)

    def _sqlite(self, place) -> Engine:
        if place.database and place.database != ":memory:":
            Path(place.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(place, pool_size=POOL, max_overflow=0, pool_timeout=BUSY_S)
        self._lock: threading.Lock | nullcontext = threading.Lock()  # at once; SQLite itself would poll
        self._waiting: deque[_Waiting] = deque()

        @event.listens_for(engine, "connect")
        def prepare(connection, _) -> None:
            connection.isolation_level = None  # we say when a transaction begins
            for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={1000 * BUSY_S}", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}").close()

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get("writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    def _postgresql(self, place) -> Engine:
        if place.get_backend_name() != "postgresql":
            raise StudyError(f"Studies are kept in SQLite or PostgreSQL, not in {place.get_backend_name()}.")
        self._lock = nullcontext()
        return create_engine(place, pool_size=POOL, max_overflow=POOL, pool_timeout=BUSY_S, pool_pre_ping=True)

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

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()


@dataclass
class _Waiting:
    statement: Executable
    row: Mapping[str, Any]
    done: bool = False
    error: Exception | None = None
