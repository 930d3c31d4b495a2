"""Pair lists: drawn once, seeded, balanced over speakers and languages, then frozen with their hash."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from .manifests import CLIP_COLUMNS, ID, PAIR_COLUMNS, load_clips, set_sha256
from .records import CATEGORIES, BenchmarkError, Media, Pair


def draw(videos: Sequence[Media], voices: Sequence[Media], category: str, count: int, seed: int = 0) -> list[Pair]:
    """Draw pairs of a clip and somebody else's voice: the same input and seed give the same list on any machine.

    Each next pair takes a clip whose speaker, then language, then own id was used least so far, and a voice by the same
    rule; ties are drawn. No clip meets its own sound, or another voice of its own speaker; in `dubbed` none of its own
    language, and both languages are known. No two pairs are the same.
    returns  pairs with ids CATEGORY-001, ...; raises BenchmarkError where there are not enough
    """
    if category not in CATEGORIES:
        raise BenchmarkError(f"There is no category {category!r}: one of {', '.join(CATEGORIES)}.")
    if count < 1:
        raise BenchmarkError(f"{count} pairs cannot be drawn: at least one.")
    chance = random.Random(f"{seed}/{category}")  # Mersenne twister: the same numbers in every release
    seen, heard, taken = Counter(), Counter(), set()
    pairs: list[Pair] = []
    while len(pairs) < count:
        for video in _by_use(videos, seen, chance):
            free = [v for v in voices if _suits(video, v, category) and (video.id, v.id) not in taken]
            if free:
                voice = _by_use(free, heard, chance)[0]
                break
        else:
            raise BenchmarkError(
                f"Only {len(pairs)} different {category} pairs can be drawn from {len(videos)} clips and "
                f"{len(voices)} voices, not {count}: ask for fewer, or give more clips."
            )
        taken.add((video.id, voice.id))
        _count(video, seen)
        _count(voice, heard)
        pairs.append(Pair(f"{category}-{len(pairs) + 1:03d}", category, video, voice))
    return pairs


def _suits(video: Media, voice: Media, category: str) -> bool:
    if voice.id == video.id or voice.sha256 == video.sha256:
        return False
    if voice.speaker and voice.speaker == video.speaker:
        return False
    spoken, own = voice.language.split("-")[0], video.language.split("-")[0]
    return category != "dubbed" or bool(spoken and own and spoken != own)


def _by_use(media: Sequence[Media], used: Counter, chance: random.Random) -> list[Media]:
    """Least used first."""
    order = sorted(media, key=lambda m: m.id)
    chance.shuffle(order)
    return sorted(order, key=lambda m: (used["speaker", _speaker(m)], used["language", m.language], used["id", m.id]))


def _count(media: Media, used: Counter) -> None:
    used.update([("speaker", _speaker(media)), ("language", media.language), ("id", media.id)])


def _speaker(media: Media) -> str:
    return media.speaker or media.id  # of whom nothing is known, each is another


def draw_set(folder: Path, facts: Mapping[str, object], counts: Mapping[str, int], seed: int = 0) -> str:
    """Make a set of a folder that has media and their clips.csv: draw its pairs, freeze them, and return the hash.

    facts   as `freeze` takes them; counts: category -> how many pairs
    Rows of clips.csv without a category are clips to be seen; where a category has no voices of its own, they lend
    theirs. Raises BenchmarkError.
    """
    media = load_clips(folder)
    videos = [m for m, category in media.values() if not category]
    if not videos:
        raise BenchmarkError(f"{folder / 'clips.csv'} has no clip to be seen: leave its category empty.")
    pairs: list[Pair] = []
    for category, count in counts.items():
        voices = [m for m, meant in media.values() if meant == category]
        pairs += draw(videos, voices or videos, category, count, seed)
    return _write(folder, facts, pairs)


def freeze(
    folder: Path,
    facts: Mapping[str, object],
    pairs: Sequence[Pair],
    files: Mapping[str, str],
    categories: Mapping[str, str] | None = None,
) -> str:
    """Write a set's set.toml, clips.csv and pairs.csv with the hash of its pairs, and return the hash.

    folder      that of the set; a set that is there already is never written over: its version would mean two lists
    facts       name, version, title, and where there are some licence, footer, notes
    files       id of each clip and voice -> its path as clips.csv is to name it
    categories  id of a voice -> the category that it was made for
    Raises BenchmarkError, OSError.
    """
    if (folder / "set.toml").exists():
        raise BenchmarkError(f"{folder} holds a frozen set: give the new one another folder and version.")
    media = {m.id: m for pair in pairs for m in (pair.video, pair.voice)}
    clips = [
        [
            m.id,
            files[m.id],
            m.sha256,
            (categories or {}).get(m.id, ""),
            m.language,
            m.speaker,
            m.consent,
            m.licence,
            m.source,
        ]
        for m in media.values()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    _csv(folder / "clips.csv", CLIP_COLUMNS, clips)
    return _write(folder, facts, pairs)


def _write(folder: Path, facts: Mapping[str, object], pairs: Sequence[Pair]) -> str:
    """The pair list and the facts, with the hash, which is returned."""
    if (folder / "set.toml").exists():
        raise BenchmarkError(f"{folder} holds a frozen set: give the new one another folder and version.")
    if not ID.fullmatch(str(facts.get("name", ""))):
        raise BenchmarkError(f"The name {facts.get('name')!r} may have letters, digits, dots and dashes only.")
    ids = {str(m.path): m.id for pair in pairs for m in (pair.video, pair.voice)}
    rows = [[p.id, p.category, p.video.id, p.voice.id, ids[str(p.reference)] if p.reference else ""] for p in pairs]
    total = set_sha256(pairs)
    _csv(folder / "pairs.csv", PAIR_COLUMNS, rows)
    lines = [f"{key} = {_toml(value)}" for key, value in {**facts, "sha256": total}.items()]
    (folder / "set.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return total


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[\n" + "".join(f"    {_toml(v)},\n" for v in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)  # a JSON text is a TOML text


def _csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    path.write_text(text.getvalue(), encoding="utf-8")
