"""The record of the benchmark: sets, systems, runs, scores, distances, checks and withdrawals, in SQLite or PostgreSQL.

Facts are only ever added. A row that must not count is withdrawn by another row, with its reason; nothing derived is
the record (`Derived` and `Claim` may be emptied at any time). Every fact has a key made from its content, and a unique
index over it, so that the same fact is never kept twice, whoever brings it.

One transaction writes at a time, as SQLite has it; PostgreSQL is asked for the same (`Store.write`). So ids appear in
the order in which they can be seen, and "every row after id N" misses none.

To add tables: classes on `Base` (facts: `Fact`), and the next numbered file in migrations/versions.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import (
    JSON,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    create_engine,
    delete,
    event,
    func,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from lipsync.files import expanded, user_folder
from lipsync.messages import Message

from .records import BenchmarkError, BenchmarkSet, Media

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_S = 60  # that a writer waits for the one before it
POOL = 10  # connections at once
WRITERS = 7_317_001  # the number of PostgreSQL's advisory lock
CHUNK = 20_000  # rows held at once in export and import
FORMS = ("parquet", "csv")
NULL = "\\N"  # in CSV; a text that begins with a backslash gets another one before it

Json = JSON(none_as_null=True)


class Base(DeclarativeBase):
    """Every table."""

    type_annotation_map = {dict[str, Any]: Json}  # noqa: RUF012 - sqlalchemy reads it from the class


class Fact(Base):
    """A row that is added and never changed.

    key   64 digits, of the content
    date  when it was added, UTC, as 2026-11-30T12:00:00.000000Z
    """

    __abstract__ = True
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(unique=True)
    date: Mapped[str]


class SetFact(Fact):
    """A set: its key is its sha256. `record` lists its pairs: who is seen, consent, licence, every file's sum."""

    __tablename__ = "sets"
    name: Mapped[str]
    version: Mapped[str]
    title: Mapped[str]
    licence: Mapped[str]
    footer: Mapped[str]
    pairs: Mapped[int]
    record: Mapped[dict[str, Any]]


class SystemFact(Fact):
    """A system of one fingerprint. `card`: authors, link, licence, training data, hardware, options: what is known."""

    __tablename__ = "systems"
    name: Mapped[str]
    fingerprint: Mapped[str] = mapped_column(index=True)
    tier: Mapped[str]
    card: Mapped[dict[str, Any]]


class RunFact(Fact):
    """A start of the runner: what makes its rows again.

    command      as it can be typed
    commit       of the code, "" where it is not known; "+changes" where files differ from it
    environment  versions of Python and libraries, processor, platform
    settings     evaluator, protocol, measures, encoding
    """

    __tablename__ = "runs"
    set_sha256: Mapped[str]
    command: Mapped[str]
    commit: Mapped[str]
    environment: Mapped[dict[str, Any]]
    settings: Mapped[dict[str, Any]]


class ScoreFact(Fact):
    """A ScoreRow of a pair by a system, with its main numbers as columns; `record` has it whole.

    run            key of the run that made it
    work           key of what was computed: the same clip, voice, system and settings, in whatever set
    attempt        0, or higher where a failed pair was tried again
    identity       cosine with the original's face; sharpness: mouth / original's; movement: lips in silence, % of box/s
    frames         of the video that was scored
    seconds        that the system took to make the video, loading left out where the system says so
    reason         why there are no numbers, in a sentence; None where there are
    video_sha256   of the video that was scored, encoded as all are; "" where none was made
    """

    __tablename__ = "scores"
    run: Mapped[str] = mapped_column(index=True)
    work: Mapped[str] = mapped_column(index=True)
    set_name: Mapped[str]
    set_sha256: Mapped[str]
    pair: Mapped[str]
    category: Mapped[str]
    speaker: Mapped[str]
    language: Mapped[str]
    system: Mapped[str]
    fingerprint: Mapped[str]
    tier: Mapped[str]
    attempt: Mapped[int]
    measure_version: Mapped[str]
    evaluator: Mapped[str]
    evaluator_sha256: Mapped[str]
    protocol: Mapped[str]
    protocol_hash: Mapped[str]
    offset: Mapped[int | None]
    lse_d: Mapped[float | None]
    lse_c: Mapped[float | None]
    certainty: Mapped[float | None]
    coverage: Mapped[float | None]
    identity: Mapped[float | None]
    sharpness: Mapped[float | None]
    movement: Mapped[float | None]
    frames: Mapped[int]
    seconds: Mapped[float | None]
    reason: Mapped[str | None]
    video_sha256: Mapped[str]
    record: Mapped[dict[str, Any]]

    __table_args__ = (
        Index("ix_scores_view", "set_sha256", "protocol_hash", "evaluator_sha256", "measure_version", "id"),
        Index("ix_scores_pair", "set_sha256", "fingerprint", "pair"),
    )


class DistanceFact(Fact):
    """A Fréchet distance of a system's videos of a category ("" for all) to the clips they were made from.

    encoder, encoder_sha256  the network of features; title: what the distance is called (FID for one network alone)
    crop                     what of each frame it saw
    clips                    how many videos; n_real, n_made: pictures
    """

    __tablename__ = "distances"
    run: Mapped[str]
    set_sha256: Mapped[str] = mapped_column(index=True)
    system: Mapped[str]
    fingerprint: Mapped[str]
    category: Mapped[str]
    encoder: Mapped[str]
    encoder_sha256: Mapped[str]
    title: Mapped[str]
    crop: Mapped[str]
    clips: Mapped[int]
    n_real: Mapped[int]
    n_made: Mapped[int]
    frechet: Mapped[float | None]
    extrapolated: Mapped[float | None]
    kid: Mapped[float | None]


class CheckFact(Fact):
    """Does the evaluator find known shifts of sound in real clips of the set? Where not, nothing is ranked."""

    __tablename__ = "checks"
    run: Mapped[str]
    set_sha256: Mapped[str] = mapped_column(index=True)
    measure_version: Mapped[str]
    evaluator: Mapped[str]
    evaluator_sha256: Mapped[str]
    protocol: Mapped[str]
    protocol_hash: Mapped[str]
    tried: Mapped[int]
    found: Mapped[int]
    record: Mapped[dict[str, Any]]


class Withdrawal(Fact):
    """What no longer counts, and why: a score by its key, or all scores of a system by its fingerprint."""

    __tablename__ = "withdrawals"
    kind: Mapped[str]  # score or system
    target: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str]


class Claim(Base):
    """A pair that somebody works on; void after `until` (seconds since 1970). Not a fact."""

    __tablename__ = "claims"
    work: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    until: Mapped[float]


class Derived(Base):
    """What was computed from rows up to some id. Not a fact."""

    __tablename__ = "derived"
    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[dict[str, Any]]


KINDS = ("score", "system")


def now() -> str:
    """This moment, as facts are dated."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def digest(*parts: Any) -> str:
    """64 digits over anything that JSON holds."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """As both databases take it: a number that is not finite is None, a text has no NUL and no broken surrogate."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {plain(str(k)): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def data_folder() -> Path:
    """Where the store and the runner's videos lie: LIPSYNC_DATA, else ~/.local/share/lipsync. May not exist."""
    return user_folder("LIPSYNC_DATA", ".local", "share", "lipsync")


def database_url(place: str | Path | None = None) -> URL:
    """The address of a store: `place`, else LIPSYNC_DATABASE, else DATABASE_URL, else a file in the data folder.

    place  the path of an SQLite file, or a URL sqlite:///PATH or postgresql://…
    Raises BenchmarkError for any other kind of database.
    """
    said = str(place or os.environ.get("LIPSYNC_DATABASE") or os.environ.get("DATABASE_URL") or "")
    if not said:
        said = str(data_folder() / "resynced.sqlite")
    if "://" not in said:
        return URL.create("sqlite", database=str(expanded(said)))
    try:
        url = make_url(said)
    except ArgumentError:
        raise BenchmarkError("The database's address cannot be read: give a path, or postgresql://…") from None
    kind = url.get_backend_name()
    if kind in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite" and url.database:
        return url.set(drivername="sqlite")
    raise BenchmarkError("A store is an SQLite file or a PostgreSQL database, not {driver!r}.", driver=url.drivername)


class Store:
    """The record, opened; brought to this program's schema first. Any number of processes and threads may use one.

    place  as in `database_url`
    Raises BenchmarkError where it cannot be opened, or was made by a later version of this program.
    """

    def __init__(self, place: str | Path | None = None) -> None:
        self.url = database_url(place)
        self.name = self.url.render_as_string(hide_password=True)
        if self.url.get_backend_name() == "sqlite":
            try:
                Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BenchmarkError(
                    "The store {database} cannot be made: {error}.", database=self.url.database, error=error.strerror
                ) from error
        self.engine = _engine(self.url)
        try:
            _migrate(self.engine)
        except SQLAlchemyError as error:
            self.engine.dispose()
            raise BenchmarkError(
                "The store {name} cannot be opened: {error}.", name=self.name, error=_said(error)
            ) from error
        except BaseException:
            self.engine.dispose()
            raise

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the store. Raises BenchmarkError for what the database says."""
        with self._sentences(), Session(self.engine, expire_on_commit=False) as session:
            if not self.is_sqlite:
                session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is committed at its end, or undone by an error; the only one that writes at this time."""
        engine = self.engine.execution_options(writes=True)
        with self._sentences(), Session(engine, expire_on_commit=False) as session, session.begin():
            if not self.is_sqlite:
                session.execute(select(func.pg_advisory_xact_lock(WRITERS)))
            yield session

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise BenchmarkError(
                "The store {name} could not do that: {error}.", name=self.name, error=_said(error)
            ) from error

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ facts

    def add(self, table: type[Fact], rows: Sequence[Mapping[str, Any]]) -> int:
        """Add facts, each with its `key`; those already there stay as they are. Returns how many are new."""
        with self.write() as session:
            return insert_new(session, table, rows)

    def add_set(self, chosen: BenchmarkSet) -> str:
        """Keep a set's record; returns its key."""
        record = {
            "notes": list(chosen.notes),
            "pairs": [
                {
                    "id": p.id,
                    "category": p.category,
                    "video": media_facts(p.video),
                    "voice": media_facts(p.voice),
                    "reference": p.reference is not None,
                }
                for p in chosen.pairs
            ],
        }
        self.add(
            SetFact,
            [
                {
                    "key": chosen.sha256,
                    "name": chosen.name,
                    "version": chosen.version,
                    "title": chosen.title,
                    "licence": chosen.licence,
                    "footer": chosen.footer,
                    "pairs": len(chosen.pairs),
                    "record": record,
                }
            ],
        )
        return chosen.sha256

    def add_system(self, name: str, fingerprint: str, tier: str, card: Mapping[str, Any] | None = None) -> str:
        """Keep a system's card; returns its key. Another card for the same fingerprint is another fact."""
        card = plain(dict(card or {}))
        key = digest(name, fingerprint, tier, card)
        self.add(SystemFact, [{"key": key, "name": name, "fingerprint": fingerprint, "tier": tier, "card": card}])
        return key

    def add_run(self, set_sha256: str, command: str, commit: str, environment: dict, settings: dict) -> str:
        """Keep that a run began; returns its key."""
        key = digest(set_sha256, command, commit, environment, settings, now(), os.getpid(), time.monotonic_ns())
        self.add(
            RunFact,
            [
                {
                    "key": key,
                    "set_sha256": set_sha256,
                    "command": command,
                    "commit": commit,
                    "environment": environment,
                    "settings": settings,
                }
            ],
        )
        return key

    def add_rows(self, rows: Iterable[Mapping[str, Any]], session: Session | None = None) -> int:
        """Keep scores, named by the columns of ScoreFact but id, key and date; the same one is never kept twice.

        session  of `write`, where they belong to a larger transaction
        returns  how many are new
        """
        named = ("work", "set_sha256", "pair", "system", "fingerprint", "tier", "attempt")
        keyed = [{**facts, "key": digest(*(facts[n] for n in named))} for facts in rows]
        return insert_new(session, ScoreFact, keyed) if session is not None else self.add(ScoreFact, keyed)

    def add_row(self, facts: Mapping[str, Any], session: Session | None = None) -> bool:
        """Keep one score as `add_rows` does; returns whether it is new."""
        return bool(self.add_rows([facts], session))

    def withdraw(self, kind: str, target: str, reason: str) -> bool:
        """Let a score (by key) or a system (by fingerprint) count no more; returns whether that is new.

        Raises BenchmarkError for another kind, no reason, or what is not in the store.
        """
        if kind not in KINDS:
            raise BenchmarkError("A {kind!r} cannot be withdrawn: choose {choices}.", kind=kind, choices=_either(KINDS))
        if not reason.strip():
            raise BenchmarkError("A withdrawal needs its reason: say in a sentence why it no longer counts.")
        column = ScoreFact.key if kind == "score" else ScoreFact.fingerprint
        with self.write() as session:
            if session.scalar(select(func.count()).select_from(ScoreFact).where(column == target)) == 0:
                raise BenchmarkError(
                    "There is no {kind} {target} in the store {name}.", kind=kind, target=target[:16], name=self.name
                )
            return bool(insert_new(session, Withdrawal, [withdrawal(kind, target, reason)]))

    # ----------------------------------------------------------------- claims

    def claim(self, work: str, owner: str, seconds: float, gone: Iterable[str] = ()) -> bool:
        """Take a piece of work for so many seconds, unless another owner has it.

        gone  owners that are known to be no more: their claims are void
        """
        until = time.time() + seconds
        with self.write() as session:
            held = session.get(Claim, work)
            if held is None:
                session.add(Claim(work=work, owner=owner, until=until))
                return True
            if held.owner != owner and held.until > time.time() and held.owner not in set(gone):
                return False
            held.owner, held.until = owner, until
            return True

    def renew(self, owner: str, seconds: float) -> None:
        """Hold all claims of an owner for so many seconds from now."""
        with self.write() as session:
            session.execute(update(Claim).where(Claim.owner == owner).values(until=time.time() + seconds))

    def release(self, work: str, owner: str) -> None:
        """Give a claim up."""
        with self.write() as session:
            session.execute(delete(Claim).where(Claim.work == work, Claim.owner == owner))

    def owners(self) -> set[str]:
        """Whoever holds a claim, void or not."""
        with self.read() as session:
            return set(session.scalars(select(Claim.owner).distinct()))

    # ------------------------------------------------------- export and import

    def export(self, folder: Path, form: str = "parquet") -> dict[str, int]:
        """Write every fact, one file a table, into a folder. Returns how many rows of each; one state of the store.

        form  parquet or csv; in CSV a missing value is \\N, and what is no text, number or flag is JSON
        Raises BenchmarkError for another form, or where a file of that name is there; OSError.
        """
        _check_form(form)
        folder.mkdir(parents=True, exist_ok=True)
        counts = {}
        for table in fact_tables():
            if (folder / f"{table.name}.{form}").exists():
                raise BenchmarkError(
                    "{folder} already holds {table}.{form}: give an empty folder.",
                    folder=folder,
                    table=table.name,
                    form=form,
                )
        with self.read() as session:
            for table in fact_tables():
                columns = [c for c in table.columns if c.name != "id"]
                found = session.execute(
                    select(*columns).order_by(table.c.id), execution_options={"yield_per": CHUNK}
                ).partitions(CHUNK)
                write = _write_parquet if form == "parquet" else _write_csv
                counts[table.name] = write(folder / f"{table.name}.{form}", columns, found)
        return counts

    def load(self, folder: Path) -> dict[str, int]:
        """Add the facts that `export` wrote, of either form; what is known already stays. All of it, or nothing.

        returns  how many rows of each table are new
        Raises BenchmarkError where there is no such file, or one does not fit.
        """
        form = next((f for f in FORMS if any((folder / f"{t.name}.{f}").is_file() for t in fact_tables())), None)
        if form is None:
            raise BenchmarkError(
                "{folder} holds no exported store: scores.parquet or scores.csv would be there.", folder=folder
            )
        counts = {}
        with self.write() as session:
            for table in fact_tables():
                path = folder / f"{table.name}.{form}"
                if not path.is_file():
                    continue
                columns = [c for c in table.columns if c.name != "id"]
                read = _read_parquet if form == "parquet" else _read_csv
                kind = _class_of(table.name)
                try:
                    counts[table.name] = sum(insert_new(session, kind, rows) for rows in read(path, columns))
                except (ValueError, KeyError, TypeError, OSError, csv.Error, DBAPIError) as error:
                    raise BenchmarkError(
                        "{path} cannot be read as {table} ({error}).", path=path, table=table.name, error=_said(error)
                    ) from error
        return counts


def withdrawal(kind: str, target: str, reason: str) -> dict[str, Any]:
    """The row of a withdrawal."""
    return {"key": digest(kind, target), "kind": kind, "target": target, "reason": reason}


def media_facts(media: Media) -> dict[str, Any]:
    """What the store says of a file of a set; never where it lies."""
    return {
        "id": media.id,
        "file": media.path.name,
        "sha256": media.sha256,
        "language": media.language,
        "speaker": media.speaker,
        "consent": media.consent,
        "licence": media.licence,
        "source": media.source,
    }


def insert_new(session: Session, table: type[Fact], rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert facts whose keys are not there; returns how many."""
    if not rows:
        return 0
    dated = now()
    rows = [plain({"date": dated, **row}) for row in rows]
    kind = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    before = session.scalar(select(func.coalesce(func.max(table.id), 0)))
    session.execute(kind.insert(table).on_conflict_do_nothing(index_elements=["key"]), rows)
    return session.scalar(select(func.count()).select_from(table).where(table.id > before)) or 0


def fact_tables() -> list:
    """The tables of facts, in the order in which they were declared."""
    facts = {mapper.local_table.name for mapper in Base.registry.mappers if issubclass(mapper.class_, Fact)}
    return [t for t in Base.metadata.tables.values() if t.name in facts]


def _class_of(name: str) -> type[Fact]:
    return next(m.class_ for m in Base.registry.mappers if m.local_table.name == name)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        return create_engine(url, pool_size=POOL, max_overflow=POOL, pool_timeout=BUSY_S, pool_pre_ping=True)
    engine = create_engine(url, pool_size=POOL, max_overflow=0, pool_timeout=BUSY_S, connect_args={"timeout": BUSY_S})

    @event.listens_for(engine, "connect")
    def connected(connection, _record) -> None:
        connection.isolation_level = None  # transactions begin where `begun` says so, not where sqlite3 guesses
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-65536"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # A reader that begins to write later would be refused if another wrote meanwhile: writers say so at once.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@cache
def newest() -> str:
    """The schema of this program: the number of its last migration."""
    return max(p.name[:4] for p in (MIGRATIONS / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))


def _migrate(engine: Engine) -> None:
    """Bring the schema to this program's; one process at a time."""
    if _revision(engine) == newest():  # alembic need not be imported
        return
    if engine.dialect.name == "sqlite":
        lock = FileLock(f"{engine.url.database}.lock", timeout=BUSY_S)
        try:
            with lock, engine.execution_options(writes=True).begin() as connection:
                _upgrade(connection)
        except Timeout:
            raise BenchmarkError(
                "The store {database} is being changed by another process.", database=engine.url.database
            ) from None
        return
    with engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(WRITERS)))
        _upgrade(connection)


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.scalar(text("SELECT version_num FROM alembic_version"))


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise BenchmarkError("The store was made by a later version of this program: update the program.") from error


def _said(error: BaseException) -> str:
    """The first line of what a database says; it names no password."""
    words = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    return words[0].strip(" .")


def _either(choices: Sequence[str]) -> Message:
    """One of two, in words."""
    first, second = choices
    return Message("{first} or {second}", first=first, second=second)


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise BenchmarkError("There is no form {form!r}: choose {choices}.", form=form, choices=_either(FORMS))


def _kind(column) -> type:
    """What a cell of a file holds: int, float, or str, of which JSON is one."""
    return int if isinstance(column.type, Integer) else float if isinstance(column.type, Float) else str


def _stored(column, value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(column.type, JSON) and value is not None else value


def _loaded(column, value: Any) -> Any:
    return json.loads(value) if isinstance(column.type, JSON) and value is not None else value


def _write_parquet(path: Path, columns: list, parts: Iterable) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kind(column) -> pa.DataType:
        return {int: pa.int64(), float: pa.float64()}.get(_kind(column), pa.string())

    schema = pa.schema([pa.field(c.name, kind(c), c.nullable) for c in columns])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for rows in parts:
            count += len(rows)
            cells = {c.name: [_stored(c, row[k]) for row in rows] for k, c in enumerate(columns)}
            writer.write_table(pa.table(cells, schema))
    return count


def _read_parquet(path: Path, columns: list) -> Iterator[list[dict]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow.names, columns)
        for batch in file.iter_batches(CHUNK):
            yield [{c.name: _loaded(c, row[c.name]) for c in columns if c.name in row} for row in batch.to_pylist()]


def _write_csv(path: Path, columns: list, parts: Iterable) -> int:
    def cell(column, value: Any) -> str:
        if value is None:
            return NULL
        said = _stored(column, value)
        return f"\\{said}" if isinstance(said, str) and said.startswith("\\") else str(said)

    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(c.name for c in columns)
        for rows in parts:
            count += len(rows)
            writer.writerows([cell(c, value) for c, value in zip(columns, row, strict=True)] for row in rows)
    return count


def _read_csv(path: Path, columns: list) -> Iterator[list[dict]]:
    csv.field_size_limit(2**31 - 1)

    def value(column, said: str) -> Any:
        if said == NULL:
            return None
        said = said[1:] if said.startswith("\\") else said
        return _loaded(column, _kind(column)(said))

    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        _check_columns(path, reader.fieldnames or [], columns)
        rows: list[dict] = []
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"line {reader.line_num} has not as many cells as the heading")
            rows.append({c.name: value(c, row[c.name]) for c in columns if c.name in row})
            if len(rows) == CHUNK:
                yield rows
                rows = []
        yield rows


def _check_columns(path: Path, found: Sequence[str], columns: list) -> None:
    """A column that may be empty may also be missing, as in an export of an earlier version; none may be unknown."""
    known = {c.name: c for c in columns}
    if unknown := [n for n in found if n not in known]:
        raise BenchmarkError(
            "{path} has a column {unknown!r} that this version does not know.", path=path, unknown=unknown[0]
        )
    if missing := [n for n, c in known.items() if n not in found and not c.nullable]:
        raise BenchmarkError("{path} lacks the column {missing!r}.", path=path, missing=missing[0])
