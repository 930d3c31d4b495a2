"""The store, on SQLite and on PostgreSQL."""

import os
import subprocess
import sys
import threading

import pytest
from sqlalchemy import func, select, text

from resynced import ballots_tables
from resynced.records import BenchmarkError
from resynced.store import Base, Claim, ScoreFact, SetFact, Store, Withdrawal, database_url, fact_tables, newest
from tests.helpers.rows import facts, made_set, sha


def count(store, table=ScoreFact) -> int:
    with store.read() as session:
        return session.scalar(select(func.count()).select_from(table))


def everything(store) -> dict:
    with store.read() as session:
        return {
            t.name: list(map(tuple, session.execute(select(*list(t.columns)[1:]).order_by(t.c.key))))
            for t in fact_tables()
        }


def test_the_migrations_make_the_tables_that_the_classes_describe(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    assert ballots_tables.VoteRow.__tablename__ in Base.metadata.tables

    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_a_store_is_opened_again_with_what_it_held(place):
    with Store(place) as store:
        assert store.add_row(facts())
    with Store(place) as again:
        assert count(again) == 1


def test_a_store_of_a_later_version_is_refused(place):
    with Store(place) as store, store.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BenchmarkError, match="later version"):
        Store(place)


def test_the_same_row_is_kept_once_and_another_attempt_beside_it(store):
    assert store.add_row(facts())
    assert not store.add_row(facts(lse_d=3.0))
    assert store.add_row(facts(attempt=1))
    with store.read() as session:
        assert session.scalars(select(ScoreFact.lse_d)).all() == [8.0, 8.0]


def test_numbers_that_are_none_and_text_that_no_database_takes_are_made_plain(store):
    store.add_row(facts(lse_d=float("nan"), reason="a\0b\ud800", record={"x": [float("inf")], "a\0": "\udfff"}))
    with store.read() as session:
        row = session.scalars(select(ScoreFact)).one()
    assert row.lse_d is None and row.reason == "a\ufffdb?" and row.record == {"x": [None], "a\ufffd": "?"}


def test_a_row_is_withdrawn_with_its_reason_and_never_deleted(store):
    store.add_row(facts())
    with store.read() as session:
        key = session.scalar(select(ScoreFact.key))
    assert store.withdraw("score", key, "The clip was cut.")
    assert not store.withdraw("score", key, "Again.")
    assert store.withdraw("system", sha("A"), "Its authors asked.")
    assert count(store) == 1 and count(store, Withdrawal) == 2
    for kind, target, reason, match in (
        ("vote", key, "x", "cannot be withdrawn"),
        ("score", key, " ", "reason"),
        ("score", sha("none"), "x", "no score"),
    ):
        with pytest.raises(BenchmarkError, match=match):
            store.withdraw(kind, target, reason)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_what_is_exported_is_imported_exactly(store, tmp_path, form):
    store.add_set(made_set())
    store.add_system("A", sha("A"), "ours", {"authors": ['Ä, "B"', "\\N"], "link": None})
    store.add_run(sha("made6"), "python -m resynced run", "abc", {"python": "3"}, {})
    for row in (
        facts(),
        facts("p01", lse_d=0.1 + 0.2, offset=-3, reason="\\N"),
        facts("p02", reason="", lse_d=None),
        facts("p03", reason='two\r\nlines, "quoted"\rand more', speaker="한국어"),
    ):
        store.add_row(row)
    store.withdraw("system", sha("A"), "\\a reason")
    folder = tmp_path / "out"
    counts = store.export(folder, form)
    assert counts["scores"] == 4 and counts["sets"] == counts["systems"] == counts["runs"] == 1
    with Store(tmp_path / "other.sqlite") as other:
        assert other.load(folder) == counts
        assert everything(other) == everything(store)
        assert set(other.load(folder).values()) == {0}
    with pytest.raises(BenchmarkError, match="empty folder"):
        store.export(folder, form)


def test_an_import_that_does_not_fit_leaves_the_store_as_it_was(store, tmp_path):
    store.add_row(facts())
    store.add_set(made_set())
    folder = tmp_path / "out"
    store.export(folder, "csv")
    lines = (folder / "scores.csv").read_text().splitlines()
    with Store(tmp_path / "other.sqlite") as other:
        for broken, match in (
            (["id_of_mine," + lines[0], "1," + lines[1]], "does not know"),
            ([lines[0], lines[1].partition('"')[0]], "as many cells"),
            ([lines[0], lines[1].replace("8.0", "eight")], "could not convert"),
        ):
            (folder / "scores.csv").write_text("\n".join(broken) + "\n")
            with pytest.raises(BenchmarkError, match=match):
                other.load(folder)
            assert count(other) == count(other, SetFact) == 0
    with pytest.raises(BenchmarkError, match="no exported store"):
        store.load(tmp_path)
    with pytest.raises(BenchmarkError, match="no form"):
        store.export(tmp_path / "x", "xml")


@pytest.mark.slow
def test_writers_at_the_same_time_lose_nothing_and_ids_appear_in_order(store):
    seen, broken = [], []

    def write(who: int) -> None:
        try:
            for k in range(15):
                store.add_row(facts(f"p{who}-{k}"))
                with store.read() as session:
                    seen.append(
                        (session.scalar(select(func.max(ScoreFact.id))), session.scalar(func.count(ScoreFact.id)))
                    )
        except Exception as error:
            broken.append(error)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken and count(store) == 60
    assert all(highest == held for highest, held in seen)  # an id that is seen has none missing below it


def test_a_claim_is_held_by_one_until_it_is_void(store):
    assert store.claim("w", "a", 60) and store.claim("w", "a", 60)
    assert not store.claim("w", "b", 60)
    assert store.claim("w", "b", 60, gone={"a"})
    assert store.owners() == {"b"}
    assert store.claim("v", "c", -1)
    assert store.claim("v", "a", 60)
    store.renew("a", 120)
    with store.read() as session:
        assert session.get(Claim, "v").until > session.get(Claim, "w").until + 30


@pytest.mark.slow
def test_two_processes_that_open_a_new_store_at_once_both_can(place):
    code = "import sys; from resynced.store import Store; Store(sys.argv[1]).close()"
    children = [subprocess.Popen([sys.executable, "-c", code, place], stderr=subprocess.PIPE) for _ in range(2)]
    assert [(c.communicate()[1], c.returncode) for c in children] == [(b"", 0)] * 2


def test_the_address_comes_from_the_argument_or_the_settings(monkeypatch, tmp_path):
    for name in ("LIPSYNC_DATABASE", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LIPSYNC_DATA", str(tmp_path))
    assert database_url().database == str(tmp_path / "resynced.sqlite")
    monkeypatch.setenv("DATABASE_URL", "postgres://u:secret@host/name")
    assert database_url().drivername == "postgresql+psycopg"
    monkeypatch.setenv("LIPSYNC_DATABASE", "here.sqlite")
    assert database_url().database == "here.sqlite"
    assert database_url("sqlite:///there.sqlite").database == "there.sqlite"
    for wrong in ("mysql://host/name", "sqlite://", "://"):
        with pytest.raises(BenchmarkError):
            database_url(wrong)


def test_what_cannot_be_opened_is_said_without_the_password(tmp_path):
    (tmp_path / "file.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(BenchmarkError, match="cannot be opened"):
        Store(tmp_path / "file.sqlite")
    with pytest.raises(BenchmarkError, match="cannot be opened") as found:
        Store(f"postgresql://u:secret@/name?host={tmp_path}")
    assert "secret" not in str(found.value)


def test_the_newest_schema_is_the_last_numbered_file():
    assert newest() == max(f[:4] for f in os.listdir("resynced/migrations/versions") if f[:4].isdigit())
