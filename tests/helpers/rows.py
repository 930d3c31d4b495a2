"""Made rows of a store, sets and systems, for tests of the benchmark."""

from __future__ import annotations

import hashlib
from pathlib import Path

from eval.results import VERSION
from resynced.records import BenchmarkSet, Media, Pair
from resynced.store import Store


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def media(name: str, speaker: str = "", path: Path | None = None) -> Media:
    return Media(name, path or Path(f"{name}.mp4"), sha(name), "en", speaker or name, "given", "CC-BY-4.0", "made")


def made_set(pairs: int = 6, categories=("random", "tts"), name: str = "made") -> BenchmarkSet:
    listed = tuple(
        Pair(f"p{k:02}", categories[k % len(categories)], media(f"clip{k:02}", f"s{k // 2}"), media(f"voice{k:02}"))
        for k in range(pairs)
    )
    return BenchmarkSet(name, "1", "A made set", listed, sha(f"{name}{pairs}"), "CC-BY-4.0", "Made for tests.")


def facts(pair: str = "p00", system: str = "A", **changed) -> dict:
    """The columns of a score, as `Store.add_row` takes them."""
    row = {
        "run": "",
        "work": sha(f"{pair} {system}"),
        "set_name": "made",
        "set_sha256": sha("made6"),
        "pair": pair,
        "category": "random",
        "speaker": f"s{pair}",
        "language": "en",
        "system": system,
        "fingerprint": sha(system),
        "tier": "ours",
        "attempt": 0,
        "measure_version": VERSION,
        "evaluator": "syncnet-lab",
        "evaluator_sha256": sha("evaluator"),
        "protocol": "short",
        "protocol_hash": "0123456789ab",
        "offset": 0,
        "lse_d": 8.0,
        "lse_c": 5.0,
        "certainty": 1.0,
        "coverage": 1.0,
        "identity": 0.9,
        "sharpness": 0.8,
        "movement": 1.0,
        "frames": 50,
        "seconds": 2.0,
        "reason": None,
        "video_sha256": sha(f"{pair}{system} video"),
        "record": {"values": {"lmd": 1.5}, "remarks": ["a remark"], "curve": [1.0, 2.5]},
    }
    return row | changed


def fill(store: Store, values: dict[str, list[float | None]], set_sha256: str = sha("made6"), **same) -> None:
    """Rows of lse_d by system, one pair each; None is a failed pair."""
    none = dict.fromkeys(("offset", "lse_c", "certainty", "coverage", "identity", "sharpness", "movement"))
    rows = []
    for system, numbers in values.items():
        for k, value in enumerate(numbers):
            broken = none | {"reason": "It broke."} if value is None else {}
            rows.append(facts(f"p{k:02}", system, **{"lse_d": value, "set_sha256": set_sha256, **broken, **same}))
    store.add_rows(rows)
