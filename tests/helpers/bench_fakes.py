"""A system and a scorer that take no time and no network, as the runner's workers can be sent them."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from eval.results import VERSION, ScoreRow
from lipsync.errors import Cancelled, InputError
from resynced.records import BenchmarkSet, Media, Pair, System
from tests.helpers.rows import sha


@dataclass
class FakeSystem(System):
    """Writes a few bytes. Pairs named in `broken` fail, those in `deadly` end the process, `slow` takes that long."""

    name: str = "A"
    fingerprint: str = ""
    tier: str = "ours"
    broken: tuple[str, ...] = ()
    deadly: tuple[str, ...] = ()
    seconds: float = 0.0
    card: dict = field(default_factory=lambda: {"authors": ["nobody"]})

    def __post_init__(self) -> None:
        self.fingerprint = self.fingerprint or sha(self.name)

    def make(self, pair, out, monitor=None):
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            time.sleep(0.005)
            monitor.check()
        if pair.id in self.deadly:
            os._exit(9)
        if pair.id in self.broken:
            raise InputError(f"{out} cannot be made of {pair.id}.")
        out.write_text(f"{self.name} {pair.id}")
        return out


@dataclass(frozen=True)
class FakeScoring:
    """lse_d is made of the system's and the pair's names, so that every run gives the same. `log`: a line a score."""

    log: Path | None = None
    recovered: int = 8

    def open(self) -> FakeScorer:
        return FakeScorer(self)


class FakeScorer:
    def __init__(self, how: FakeScoring) -> None:
        self._how = how
        self.facts = {
            "measure_version": VERSION,
            "evaluator": "fake",
            "evaluator_sha256": sha("fake"),
            "protocol": "short",
            "protocol_hash": "0123456789ab",
            "encoding": {},
            "measures": [],
        }

    def score(self, pair, system, set_name, made, scratch, work, monitor):
        if self._how.log:
            with self._how.log.open("a") as file:
                file.write(f"{system} {pair.id}\n")
        video = scratch / "scored.mp4"
        video.write_bytes(made.read_bytes())
        number = int(sha(made.read_text())[:6], 16) / 2**24
        values = {"identity_cosine": 0.9, "sharpness_mouth": 0.5 + number / 2, "mouth_movement_silence": number}
        return video, ScoreRow(
            str(video),
            lse_d=6 + number,
            lse_c=7 - number,
            offset=0,
            certainty=1.0,
            coverage=1.0,
            frames=50,
            tracks=1,
            values=values,
            system=system,
            pair=pair.id,
            set=set_name,
        )

    def distance(self, pairs, made, work):
        return {
            "encoder": "fake",
            "encoder_sha256": sha("encoder"),
            "title": "Fréchet (fake)",
            "crop": "faces",
            "clips": len(made),
            "n_real": 10,
            "n_made": 10,
            "frechet": float(len(made)),
            "extrapolated": None,
            "kid": None,
        }

    def check(self, chosen, monitor):
        return 8, self._how.recovered, {"trials": []}


@dataclass
class FilmSystem(FakeSystem):
    """Gives a film that was made before, for pages that show it."""

    film: Path | None = None

    def make(self, pair, out, monitor=None):
        super().make(pair, out, monitor)
        out.write_bytes(self.film.read_bytes())
        return out


@dataclass(frozen=True)
class FilmScoring(FakeScoring):
    """FakeScoring for films; `broken`: nothing can be scored at all."""

    broken: bool = False

    def open(self) -> FakeScorer:
        if self.broken:
            raise InputError("The evaluator's file is not here.")
        return FilmScorer(self)


class FilmScorer(FakeScorer):
    def score(self, pair, system, set_name, made, scratch, work, monitor):
        named = scratch / "named.txt"
        named.write_text(f"{system} {pair.id}")
        video, row = super().score(pair, system, set_name, named, scratch, work, monitor)
        video.write_bytes(made.read_bytes())
        return video, row


def film_set(folder: Path, pairs: int = 3) -> BenchmarkSet:
    """A small set of real media: one portrait, and a voice of its own for each pair."""
    from lipsync.checkpoints.download import file_sha256
    from tests.conftest import make_clip, make_voice

    folder.mkdir(parents=True, exist_ok=True)
    clip = folder / "clip.mp4"
    if not clip.is_file():
        make_clip(clip, 30, size=(160, 160))
    listed = []
    for k in range(pairs):
        voice = folder / f"voice{k}.wav"
        if not voice.is_file():
            make_voice(voice, 1.0 + 0.1 * k)
        facts = ("given", "CC BY 4.0", "made")
        video = Media("clip", clip, file_sha256(clip), "en", "astronaut", *facts)
        sound = Media(f"voice{k}", voice, file_sha256(voice), "en", f"s{k}", *facts)
        listed.append(Pair(f"p{k:02}", ("dubbed", "random", "tts")[k % 3], video, sound))
    return BenchmarkSet("made", "1", "A made set", tuple(listed), sha("film set"), "CC BY 4.0", "Made for tests.")


def file_set(folder: Path, pairs: int = 6, name: str = "made") -> BenchmarkSet:
    """A set whose files are there, though no media."""
    listed = []
    for k in range(pairs):
        paths = [folder / f"{kind}{k:02}.mp4" for kind in ("clip", "voice")]
        for path in paths:
            path.write_text(path.name)
        video, voice = (Media(p.stem, p, sha(p.name), "en", f"s{k // 2}", "given", "CC-BY-4.0", "made") for p in paths)
        listed.append(Pair(f"p{k:02}", ("dubbed", "random", "tts")[k % 3], video, voice))
    return BenchmarkSet(name, "1", "A made set", tuple(listed), sha(f"{name}{pairs}"), "CC-BY-4.0", "Made for tests.")


def main() -> None:
    """A run that tests kill: PLACE FOLDER WORKERS."""
    from resynced.runner import run
    from resynced.store import Store

    place, folder, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    systems = [FakeSystem("A", seconds=0.02), FakeSystem("B", seconds=0.02, broken=("p03",))]
    with Store(place) as store:
        try:
            run(file_set(folder, 12), systems, store, folder / "work", FakeScoring(folder / "log"), workers=workers)
        except Cancelled:
            sys.exit(130)


if __name__ == "__main__":
    main()
