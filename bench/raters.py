"""Raters at once on the real page: python -m bench.raters --raters 200

Starts the page with a store of its own on the loopback, lets everybody join within a second and answer a ballot every
two seconds, and prints seconds a vote and whether any was lost or doubled. --url measures PostgreSQL.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from resynced.desk import open_desk
from resynced.store import Store
from tests.helpers.live_server import serve
from tests.helpers.raters_at_once import Crowd, crowd_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument("--ballots", type=int, default=5, help="counted ones of each (%(default)s)")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between them (%(default)s)")
    parser.add_argument("--url", help="of an empty store, instead of an SQLite file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = args.url or f"{folder}/store.sqlite"
        os.environ |= {"LIPSYNC_DATA": folder}
        study, crowd = crowd_study("crowd", args.ballots, args.raters), Crowd()
        with Store(place) as store:
            desk = open_desk(store, Path(folder))
            desk.create(study)
            desk.open("crowd")
            with serve(Path(folder, "work"), DATA=folder, DATABASE=place) as address:
                began = time.monotonic()
                crowd.run(address, "crowd", args.raters, args.pause)
                took = time.monotonic() - began
            votes = desk.tables("crowd")["votes"]["ballot"]
    p50, p95, p99 = np.percentile(crowd.seconds, (50, 95, 99)) * 1000
    lost = len(set(crowd.acknowledged) - set(votes))
    speed = f"50 % under {p50:.0f} ms, 95 % {p95:.0f}, 99 % {p99:.0f}"
    print(f"{args.raters} raters, {len(votes)} votes in {took:.0f} s: {speed}")
    doubled = len(votes) - votes.nunique()
    print(f"finished {crowd.finished}, lost {lost}, doubled {doubled}, wrongly refused {len(crowd.wrong)}")
    print(f"load of this machine in the last minute: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
