"""From the benchmark's store to a study: its record, and the videos that raters see.

What raters see is derived once from the videos that the runner kept (`python -m resynced run`), item by item; a
command that was stopped goes on with the items that are missing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import func, select

from lipsync.media.reader import read_sound
from lipsync.progress import Monitor

from .ballots import LATE, OTHER, Stimulus
from .leaderboard import CEILING, FLOOR, counted
from .manifests import load_set
from .records import BenchmarkError, BenchmarkSet, Pair
from .runner import video_path
from .stimuli import Source, derive, gold, read_index
from .store import ScoreFact, SetFact, Store
from .studies import Study, StudyError

MEASURES = ("lse_d", "lse_c", "certainty", "identity", "sharpness", "movement")  # that people's answers are laid beside


def media_folder(data: Path, study: str) -> Path:
    """Where the videos of a study lie; `data` is the data folder."""
    return data / "studies" / study


def systems_of(store: Store, set_sha256: str) -> dict[str, str]:
    """Systems with scored videos of a set: name -> fingerprint, of two under one name the later."""
    query = (
        select(ScoreFact.system, ScoreFact.fingerprint)
        .where(ScoreFact.set_sha256 == set_sha256, ScoreFact.reason.is_(None), counted())
        .group_by(ScoreFact.system, ScoreFact.fingerprint)
        .order_by(func.max(ScoreFact.id))
    )
    with store.read() as session:
        return {system: fingerprint for system, fingerprint in session.execute(query)}


def sets_of(store: Store) -> list[dict[str, Any]]:
    """Sets that have scores, the latest first: name, version, title, sha256, systems."""
    with store.read() as session:
        facts = session.scalars(select(SetFact).order_by(SetFact.id.desc())).all()
    found = []
    for fact in facts:
        if systems := systems_of(store, fact.key):
            known = {"name": fact.name, "version": fact.version, "title": fact.title, "sha256": fact.key}
            found.append({**known, "systems": sorted(systems)})
    return found


def draft(
    store: Store,
    data: Path,
    set_name: str,
    systems: Sequence[str],
    *,
    items: int | None = None,
    training: int = 2,
    per_rater: int = 20,
    seed: int = 0,
    **more: Any,
) -> Study:
    """A study of systems on a set, not stored yet.

    set_name  a set in the store; the latest of that name
    systems   names there
    items     how many of the pairs that every system has a video of, drawn by the seed; None: all
    training  ballots that are explained first, on pairs of their own
    per_rater at most; fewer where the items do not carry so many
    more      fields of Study: name, title, design, language, consent, plan, votes_per_pair ...
    Raises StudyError.
    """
    known = next((s for s in sets_of(store) if s["name"] == set_name), None)
    if known is None:
        raise StudyError(
            "The store has no scored videos of the set {name!r}: `python -m resynced run` makes them.",
            name=set_name,
        )
    there = systems_of(store, known["sha256"])
    if unknown := [s for s in systems if s not in there]:
        able = ", ".join(sorted(there))
        raise StudyError(
            "{set_name} has no videos of {unknown!r}: choose of {able}.",
            set_name=set_name,
            unknown=unknown[0],
            able=able,
        )
    gold_system = CEILING if CEILING in there else FLOOR if FLOOR in systems else ""
    needed = {name: there[name] for name in dict.fromkeys([*systems, *([gold_system] if gold_system else [])])}
    pairs = [p for p in _pair_ids(store, known["sha256"]) if _all_there(data, set_name, known["sha256"], needed, p)]
    random.Random(f"{set_name} {seed}").shuffle(pairs)
    held = pairs[: min(training, len(pairs) // 3)]
    chosen = pairs[len(held) :][:items]
    if not chosen:
        raise StudyError(
            "No pair of {set_name} has a kept video of every system: run them without --no-videos.", set_name=set_name
        )
    two = more.get("design") in ("preference", "side_by_side")
    compared = len(systems) * (len(systems) - 1) // 2 if two else len(systems)
    return Study(
        set_name=set_name,
        set_sha256=known["sha256"],
        systems=tuple(systems),
        fingerprints=tuple(there[s] for s in systems),
        items=tuple(sorted(chosen)),
        training_items=tuple(sorted(held)),
        training=training if held else 0,
        per_rater=min(per_rater, max(1, len(chosen) * compared)),
        gold_system=gold_system,
        seed=seed,
        **more,
    )


def prepare(store: Store, data: Path, study: Study, monitor: Monitor | None = None) -> Path:
    """Derive every video of a study that is not there yet. Returns its folder. Raises StudyError, LipsyncError."""
    monitor, folder = monitor or Monitor(), media_folder(data, study.name)
    kept = dict(zip(study.systems, study.fingerprints, strict=False)) or systems_of(store, study.set_sha256)
    kept.setdefault(study.gold_system, systems_of(store, study.set_sha256).get(study.gold_system, ""))
    voices = _other_voices(study) if study.design == "mismatching" else {}
    known = _known(folder)
    every = [*study.training_items, *study.items]
    for k, item in enumerate(every):
        monitor.step("videos", k, len(every))
        needed = stimuli_of(study, item)
        if all(key in known and known[key].is_file() for key in needed):
            continue
        sources = {}
        for key in needed:
            path = video_path(data, study.set_name, study.set_sha256, key.system, kept[key.system], item)
            if not path.is_file():
                raise StudyError(
                    "The video of {item} by {system} is gone: run the benchmark on it again.",
                    item=item,
                    system=key.system,
                )
            source = Source(path, synthetic=key.system not in (FLOOR, CEILING))
            other = Source(path, source.synthetic, voice=voices.get(item))
            sources[key] = gold(source) if key.variant == LATE else other if key.variant == OTHER else source
        derive(sources, folder)
    monitor.step("videos", len(every), len(every))
    return folder


def stimuli_of(study: Study, item: str) -> list[Stimulus]:
    """Every video of an item that a rater may be shown."""
    found = [Stimulus(study.gold_system, item), Stimulus(study.gold_system, item, LATE)]
    if item in study.training_items:
        return found
    found += [Stimulus(s, item) for s in study.systems if s != study.gold_system]
    if study.design == "mismatching":
        found += [Stimulus(s, item, OTHER) for s in study.systems]
    return found


def ready(study: Study, data: Path) -> tuple[int, int]:
    """Of how many items the videos are there, and of how many they must be."""
    known = _known(media_folder(data, study.name))
    every = [*study.training_items, *study.items]
    return sum(all(key in known for key in stimuli_of(study, item)) for item in every), len(every)


def check_ready(study: Study, data: Path) -> None:
    """Raises StudyError where videos are missing, so that no rater meets a hole."""
    done, of = ready(study, data)
    if done < of:
        raise StudyError(
            "{study} has the videos of {done} of {of} items: `study prepare {study}` makes them.",
            study=study.name,
            done=done,
            of=of,
        )


def measures_of(store: Store, study: Study) -> pd.DataFrame | None:
    """Objective measures of a study's videos: item, system, and MEASURES; None where the store has none."""
    query = select(ScoreFact.pair, ScoreFact.system, *(getattr(ScoreFact, m) for m in MEASURES)).where(
        ScoreFact.set_sha256 == study.set_sha256,
        ScoreFact.system.in_(study.systems),
        ScoreFact.reason.is_(None),
        counted(),
    )
    if study.fingerprints:
        query = query.where(ScoreFact.fingerprint.in_(study.fingerprints))
    with store.read() as session:
        rows = session.execute(query.order_by(ScoreFact.id)).all()
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["item", "system", *MEASURES])
    return table.drop_duplicates(["item", "system"], keep="last").dropna(axis=1, how="all").reset_index(drop=True)


def _known(folder: Path) -> Mapping[Stimulus, Path]:
    try:
        return read_index(folder)
    except StudyError:
        return {}


def _pair_ids(store: Store, set_sha256: str) -> list[str]:
    with store.read() as session:
        record = session.scalars(select(SetFact.record).where(SetFact.key == set_sha256)).first() or {}
    return sorted(p["id"] for p in record.get("pairs", []))


def _all_there(data: Path, set_name: str, set_sha256: str, systems: Mapping[str, str], pair: str) -> bool:
    return all(video_path(data, set_name, set_sha256, s, f, pair).is_file() for s, f in systems.items())


def _other_voices(study: Study) -> dict[str, Path]:
    """For each item, other speech of the speaker of its voice: the shortest that is long enough, else the longest."""
    chosen: BenchmarkSet = load_set(study.set_name)
    if chosen.sha256 != study.set_sha256:
        raise BenchmarkError(
            "The set {set_name} is another version now than the one of {study}.",
            set_name=study.set_name,
            study=study.name,
        )
    length = {p.voice.sha256: len(read_sound(p.voice.path)[0]) for p in chosen.pairs}

    def other(pair: Pair) -> Path:
        own = length[pair.voice.sha256]
        able = [
            q.voice
            for q in chosen.pairs
            if pair.voice.speaker and q.voice.speaker == pair.voice.speaker and q.voice.sha256 != pair.voice.sha256
        ]
        if not able:
            raise StudyError(
                "{set_name} has no other speech of the speaker of {pair}: the mismatching task needs two voices of "
                "each speaker.",
                set_name=study.set_name,
                pair=pair.id,
            )
        enough = [v for v in able if length[v.sha256] >= own]
        best = min(enough, key=lambda v: length[v.sha256]) if enough else max(able, key=lambda v: length[v.sha256])
        return best.path

    wanted = {p.id: p for p in chosen.pairs if p.id in study.items}
    return {item: other(pair) for item, pair in wanted.items()}
