"""The page with a made set and fake systems, for tests in a browser: PORT WORK. Runs are real, in their own process."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    port, place = int(sys.argv[1]), Path(sys.argv[2])
    os.environ |= {"LIPSYNC_DATABASE": str(place / "store.sqlite"), "LIPSYNC_DATA": str(place / "data")}

    import uvicorn

    from demo import benchmark, tasks
    from demo.server import build
    from demo.settings import Settings
    from resynced.submissions import registered
    from tests.helpers.bench_fakes import FilmScoring, FilmSystem, film_set

    made = film_set(place / "media", 6)
    film = made.pairs[0].video.path

    def request(set_name, words, limit, options=""):
        systems = [
            registered(w.partition(":")[2]).system()
            if w.startswith("submission:")
            else FilmSystem(w, film=film, seconds=1.0)
            for w in words
        ]
        systems.append(FilmSystem("untouched", film=film))
        command = "python -m resynced run --set made"
        return benchmark.Request(
            made, tuple(systems), FilmScoring(), benchmark.store_place(), place / "data", limit, command
        )

    tasks.warm_up = lambda: None
    benchmark.load_set, benchmark.set_names = (lambda name: made), (lambda: ["made"])
    benchmark.models = lambda: {"Fake A": None, "Fake B": None, "A third system": None}
    benchmark.request = request
    app = build(Settings(work=place / "work", operator_password="correct horse battery"))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
