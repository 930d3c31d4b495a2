"""Stores of both kinds. PostgreSQL is Debian's, started for the session as a user that is not root."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from resynced.store import Store

PORT = 54329  # names the socket's file; nothing listens on a network


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3].split(".")[0]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def _as_user() -> list[str] | None:
    """What comes before a command so that PostgreSQL, which refuses root, runs it; None where there is no way."""
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    return None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The folder of the socket of a private PostgreSQL, which ends with the session."""
    programs, user = _programs(), _as_user()
    if programs is None:
        pytest.skip("no PostgreSQL here (Debian's package postgresql): tests on it are skipped")
    if user is None or user and not shutil.which("setpriv"):
        pytest.skip("PostgreSQL will not run as root and there is no other user: tests on it are skipped")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: the path of a socket has 107 bytes at most
    server = None
    try:
        if user:
            shutil.chown(folder, int(user[1].split("=")[1]), int(user[2].split("=")[1]))
        data = folder / "data"
        made = subprocess.run(
            [
                *user,
                programs / "initdb",
                "-D",
                data,
                "-U",
                "tests",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if made.returncode:
            pytest.skip(f"PostgreSQL could not be set up ({made.stderr.strip()[-200:]}): tests on it are skipped")
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [
                    *user,
                    programs / "postgres",
                    "-D",
                    data,
                    "-k",
                    folder,
                    "-p",
                    str(PORT),
                    "-c",
                    "listen_addresses=",
                    "-c",
                    "fsync=off",
                    "-c",
                    "full_page_writes=off",
                ],
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(200):
            try:
                psycopg.connect(host=str(folder), port=PORT, user="tests", dbname="postgres").close()
                break
            except psycopg.OperationalError:
                if server.poll() is not None:
                    break
                time.sleep(0.05)
        else:
            server.terminate()
        if server.poll() is not None:
            pytest.skip("PostgreSQL did not start: tests on it are skipped")
        yield str(folder)
    finally:
        if server is not None and server.poll() is None:
            server.terminate()  # "smart" shutdown would wait for clients
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(5)
            if server.poll() is None:
                server.kill()
                server.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request, tmp_path) -> Iterator[str]:
    """The address of an empty store, once of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "store.sqlite")
        return
    folder = request.getfixturevalue("postgres")
    name = f"store_{secrets.token_hex(6)}"
    with psycopg.connect(host=folder, port=PORT, user="tests", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"postgresql://tests@/{name}?host={folder}&port={PORT}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def store(place) -> Iterator[Store]:
    """An empty store, once of each kind."""
    with Store(place) as opened:
        yield opened
