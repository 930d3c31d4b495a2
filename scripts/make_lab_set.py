"""Draws resynced/sets/lab: pairs over the lab's own real clips, frozen as ids and sha256; no media is copied.

    python scripts/make_lab_set.py [--out FOLDER]

Needs ../shared/data and the starter set, whose made voices are used for `tts`. Every clip is seen once.
"""

import argparse
import csv
import random
from collections import defaultdict
from pathlib import Path

from lipsync.audio import is_silent
from lipsync.media.reader import probe, read_waveform
from resynced.manifests import SHIPPED, lab_data, load_set
from resynced.pairs import draw, freeze
from resynced.records import Media, Pair

VERSION, SEED = "1", 22
SHORTEST_S = 2.5  # of a clip that lends its voice: what is shorter has no track long enough to be scored
FACTS = {
    "name": "lab",
    "version": VERSION,
    "title": "ReSyncED lab set",
    "licence": "research use in the lab only; no media is handed on",
    "footer": "Real clips of the lab, for research only; GRID: CC BY 4.0, Zenodo 3625687. Made voices: hibari-tts, "
    "Kokoro, espeak-ng.",
    "notes": [
        "Clips named wild come from public repositories; of some it is not proven that their sound is theirs.",
        "Clips named anchors last about a second, go to and fro under a longer voice, and lend none themselves.",
        "No person of this set is in a training split of this project.",
    ],
}


def real_clips(data: Path) -> dict[str, list[tuple[Media, bool]]]:
    """Group -> its clips, each with whether it has a voice to lend: all of wild, one of each val person elsewhere."""
    with (data / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    trained = {r["speaker"] for r in rows if r["split"] in ("teach", "tune", "judge")}
    found: dict[str, list[tuple[Media, bool]]] = defaultdict(list)
    people: dict[str, dict[str, str]] = {}
    for row in sorted(rows, key=lambda r: (-int(r["bytes"]), r["id"])):  # of a val person the longest
        if row["group"] == "wild" or row["group"] in ("grid", "anchors") and row["split"] == "val":
            name = row["id"] if row["group"] == "wild" else f"{row['group']}/{row['speaker']}"
            people.setdefault(name, row)
    for row in people.values():
        assert row["speaker"] not in trained, row["speaker"]
        path = data / row["file"]
        info = probe(path)
        heard = info.has_audio and info.duration_s > SHORTEST_S and not is_silent(read_waveform(path))
        media = Media(
            row["id"].replace("/", "-"),
            path,
            row["sha256"],
            row["language"].rstrip("?"),
            row["speaker"],
            consent="not asked" if row["group"] != "grid" else "volunteer of the GRID corpus",
            licence=row["terms"] or f"not stated (repository: {row['repo_licence']})",
            source=f"{row['source']} {row['commit'][:12]}",
        )
        found[row["group"]].append((media, heard))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SHIPPED / "lab", help="folder without a set in it")
    out = parser.parse_args().out
    data = lab_data()
    if data is None:
        raise SystemExit("../shared/data is not here: name it by LIPSYNC_LAB_DATA.")
    clips = [clip for group in real_clips(data).values() for clip in group]
    voices = [media for media, heard in clips if heard]
    made = {p.voice.id: p.voice for p in load_set("starter").pairs if p.category == "tts"}
    order = sorted((media for media, _ in clips), key=lambda m: m.id)
    random.Random(SEED).shuffle(order)
    third = len(order) // 3
    # Dubbing needs a clip whose language is known; of the rest, half and half.
    dubbed = [m for m in order if m.language][:third]
    rest = [m for m in order if m not in dubbed]
    parts = {"random": rest[: len(rest) // 2], "dubbed": dubbed, "tts": rest[len(rest) // 2 :]}
    pairs: list[Pair] = []
    for category, seen in parts.items():
        spoken = list(made.values()) if category == "tts" else voices
        if category == "dubbed":
            spoken = [v for v in voices if v.language]
        pairs += draw(seen, spoken, category, len(seen), SEED)
    roots = (data, SHIPPED / "starter")
    files = {
        m.id: next(str(m.path.relative_to(root)) for root in roots if m.path.is_relative_to(root))
        for p in pairs
        for m in (p.video, p.voice)
    }
    total = freeze(out, FACTS, pairs, files)
    print(f"{len(pairs)} pairs, { ({k: len(v) for k, v in parts.items()}) }, {total}")


if __name__ == "__main__":
    main()
