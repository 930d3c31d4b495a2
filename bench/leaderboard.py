"""How long the leaderboard of a large store takes to open.

    python -m bench.leaderboard PLACE [--rows 1000000] [--systems 20]

PLACE is a path or postgresql://…; a store of made rows is filled where it has none. Printed are seconds: cold (nothing
derived is kept), again, after 100 new rows, in a new process (Python's start and imports left out), and how large the
table of scores is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np
from sqlalchemy import delete, func, insert, select, text

from resynced.leaderboard import leaderboard, views
from resynced.store import Derived, ScoreFact, Store, digest

FIRST = 50_000  # rows that are made here; the others are copies of them, under other names
CATEGORIES = ("dubbed", "random", "tts")
FRESH = """
import sys, time
import resynced.people  # as the page does at its start
from resynced.leaderboard import leaderboard, views
from resynced.store import Store
began = time.perf_counter()
with Store(sys.argv[1]) as store:
    views(store), leaderboard(store)
print(time.perf_counter() - began)
"""


def rows(first: int, count: int, systems: int, rng: np.random.Generator):
    """Made rows: pairs of 200 speakers by so many systems, with a record as a clip of three seconds has it."""
    record = {"values": {f"value_{k}": 1.234567 for k in range(20)}, "curve": [1.23456] * 15, "remarks": []}
    names = [f"system {k}" for k in range(systems)]
    prints = [digest(name) for name in names]
    sums = [digest(word) for word in ("set", "judge")]
    for k in range(first, first + count):
        pair, system = divmod(k, systems)
        a, b, c = rng.normal(0, 1, 3)
        yield {
            "run": "",
            "work": f"{k:064d}",
            "set_name": "large",
            "set_sha256": sums[0],
            "pair": f"pair{pair:06d}",
            "category": CATEGORIES[pair % 3],
            "speaker": f"speaker{pair % 200}",
            "language": "en",
            "system": names[system],
            "fingerprint": prints[system],
            "tier": "ours",
            "attempt": 0,
            "measure_version": "4",
            "evaluator": "syncnet-lab",
            "evaluator_sha256": sums[1],
            "protocol": "short",
            "protocol_hash": "0123456789ab",
            "offset": int(a),
            "lse_d": 8 + system / 50 + a,
            "lse_c": 5 + b,
            "certainty": 1.0,
            "coverage": 1.0,
            "identity": 0.9,
            "sharpness": 0.8 + c / 10,
            "movement": 10 + b,
            "frames": 75,
            "seconds": 3.0,
            "reason": None,
            "video_sha256": f"{k:064d}",
            "record": record,
        }


def copied(store: Store, number: int) -> None:
    """The first rows once more, as those of other pairs."""
    table = ScoreFact.__table__
    columns = [c for c in table.columns if c.name != "id"]
    changed = [c + f"-{number}" if c.name in ("key", "work", "pair") else c for c in columns]
    with store.write() as session:
        session.execute(insert(table).from_select(columns, select(*changed).where(table.c.id <= FIRST)))


def main() -> None:
    parser = argparse.ArgumentParser(description="How long a large store's leaderboard takes to open.")
    parser.add_argument("place")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--systems", type=int, default=20)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    first = min(FIRST, args.rows)
    if args.rows % first:
        parser.error(f"--rows must be a multiple of {FIRST}.")
    with Store(args.place) as store:
        with store.read() as session:
            there = session.scalar(select(func.count()).select_from(ScoreFact))
        began = time.perf_counter()
        if there < args.rows:
            store.add_rows(rows(0, min(FIRST, args.rows), args.systems, rng))
            for copy in range(1, args.rows // FIRST):
                copied(store, copy)
        if there < args.rows:
            print(f"filled to {args.rows} rows in {time.perf_counter() - began:.0f} s")
            if not store.is_sqlite:
                with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.execute(text("VACUUM ANALYZE scores"))
        with store.write() as session:
            session.execute(delete(Derived))

        def timed(what: str) -> None:
            start = time.perf_counter()
            found = views(store)
            table = leaderboard(store, found[0])
            print(f"{what}: {time.perf_counter() - start:.2f} s ({table['n']} clips, {len(table['rows'])} systems)")

        timed("cold")
        timed("again")
        with store.read() as session:
            there = session.scalar(select(func.count()).select_from(ScoreFact))
        store.add_rows(rows(there, 100, args.systems, rng))
        timed("after 100 new rows")
        size = (
            "page_count * page_size from pragma_page_count(), pragma_page_size()"
            if store.is_sqlite
            else ("pg_total_relation_size('scores')")
        )
        with store.read() as session:
            print(f"{session.scalar(text(f'SELECT {size}')) / 2**20:.0f} MB")
    said = subprocess.run([sys.executable, "-c", FRESH, args.place], capture_output=True, text=True, check=True)
    print(f"in a new process: {float(said.stdout):.2f} s")


if __name__ == "__main__":
    main()
