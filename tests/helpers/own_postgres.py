"""A PostgreSQL of one's own, on a socket, run by a user that is not root; gone when the block ends."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def own_postgres() -> Iterator[str | None]:
    """Yields the address for SQLAlchemy, or None where PostgreSQL is not installed or may not run."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    try:
        import psycopg
    except ImportError:
        psycopg = None
    if not found or psycopg is None or (os.geteuid() == 0 and not shutil.which("setpriv")):
        yield None
        return
    folder, user = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp")), []
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        user = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--"]
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    data, programs = str(folder / "data"), found[-1].parent
    make = [*user, programs / "initdb", "-D", data, "-U", "tests", "--auth=trust", "--encoding=UTF8", "--no-sync"]
    server = None
    try:
        if subprocess.run(make, cwd=folder, capture_output=True).returncode:
            yield None
            return
        run = [*user, programs / "postgres", "-D", data, "-k", str(folder), "-p", "54331", "-c", "listen_addresses="]
        server = subprocess.Popen(run, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(host=str(folder), port=54331, user="tests", dbname="postgres").close()
                break
            time.sleep(0.1)
        yield f"postgresql+psycopg://tests@/postgres?host={folder}&port=54331"
    finally:
        if server is not None:
            server.terminate()
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        shutil.rmtree(folder, ignore_errors=True)
