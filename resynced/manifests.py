"""Sets of the benchmark as folders: set.toml, clips.csv and pairs.csv, and the lists that others published.

    set.toml   name, version, title, licence, footer, notes, sha256 (where the set is frozen: over ids and files)
    clips.csv  id, file, sha256, category, language, speaker, consent, licence, source: a row a clip or voice. The
               category is a voice's, where it was made for one; a file lies below the folder, or below `media`
    pairs.csv  id, category, video, voice, reference: the last three are ids of clips.csv, reference may be empty

Lists of LRS2, LRS3 and LRW name the audio first, those of ReSyncED the video (protocol.md section 7).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from lipsync.checkpoints.download import file_sha256
from lipsync.errors import InputError
from lipsync.files import expanded
from lipsync.lists import read_rows
from lipsync.messages import Message

from .records import CATEGORIES, BenchmarkError, BenchmarkSet, Media, Pair

SHIPPED = Path(__file__).parent / "sets"
CLIP_COLUMNS = ("id", "file", "sha256", "category", "language", "speaker", "consent", "licence", "source")
PAIR_COLUMNS = ("id", "category", "video", "voice", "reference")
MOST_PAIRS = 1_000_000
MOST_TOML_BYTES = 1 << 20
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SHA256 = re.compile(r"[0-9a-f]{64}")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for itself
LISTS = {  # stem of a published list's name: its category
    "lrs2": "random",
    "lrs3": "random",
    "lrw": "random",
    "random_pairs": "random",
    "tts_pairs": "tts",
}
VIDEO_FIRST = ("random_pairs", "tts_pairs")
SOUNDS, FILMS = (".wav", ".flac", ".mp3", ".m4a", ".mp4"), (".mp4", ".avi", ".mov", ".mkv")


def lab_data() -> Path | None:
    """The lab's folder of real clips: LIPSYNC_LAB_DATA, else shared/data beside the checkout; None where it is not."""
    named = os.environ.get("LIPSYNC_LAB_DATA")
    places = [expanded(named)] if named else [p / "shared" / "data" for p in Path(__file__).resolve().parents[2:4]]
    return next((p for p in places if (p / "manifest.csv").is_file()), None)


def sets() -> dict[str, Path]:
    """The known sets by name: those that are shipped, and the lab's where its clips are here."""
    found = {p.parent.name: p.parent for p in sorted(SHIPPED.glob("*/set.toml"))}
    if lab_data() is None:
        found.pop("lab", None)
    return found


def load_set(name_or_folder: str | os.PathLike, media: Path | Sequence[Path] = ()) -> BenchmarkSet:
    """A set, with every file found and its sha256 checked.

    name_or_folder  a name of `sets()`, or a folder
    media           further folders in which its files may lie, tried in order after its own
    Raises BenchmarkError: a sentence with the file, line and column that is at fault.
    """
    folder = _folder(name_or_folder)
    roots = [folder, *([media] if isinstance(media, str | os.PathLike) else media)]
    if folder == SHIPPED / "lab":
        roots += [lab_data(), SHIPPED / "starter"]
    facts = _facts(folder / "set.toml")
    clips = _clips(folder / "clips.csv", [Path(root) for root in roots])
    pairs = _pairs(folder / "pairs.csv", clips)
    made = _set(facts, pairs)
    frozen = facts.get("sha256", "")
    if frozen and frozen != made.sha256:
        raise BenchmarkError(
            "{path}: the set was frozen as {frozen}…, but its pairs and files now give {sha256}…: put back what "
            "was changed, or give the set a new version and its new sha256.",
            path=folder / "set.toml",
            frozen=frozen[:12],
            sha256=made.sha256[:12],
        )
    return made


def load_clips(folder: str | os.PathLike) -> dict[str, tuple[Media, str]]:
    """The clips and voices of a folder's clips.csv by id, each with its category. Raises BenchmarkError."""
    folder = Path(folder)
    return _clips(folder / "clips.csv", [folder])


def load_list(path: str | os.PathLike, videos: str | os.PathLike, kind: str | None = None) -> BenchmarkSet:
    """A published list of pairs over a folder of the user's own videos.

    path    one pair a line, two names with white space between
    videos  the folder below which the names are; voices are sound files, or videos whose sound is taken
    kind    a key of LISTS; None: the one that the file's name begins with
    Raises BenchmarkError with file, line and column.
    """
    path, videos = Path(path), Path(videos)
    kind = kind or next((k for k in LISTS if path.stem.lower().startswith(k)), "")
    if kind not in LISTS:
        raise BenchmarkError(
            "{path}: its name does not say which list it is; name one of {choices} as its kind.",
            path=path,
            choices=", ".join(LISTS),
        )
    if not videos.is_dir():
        raise BenchmarkError(
            "{videos} is no folder: name the folder of the videos that {file} lists.", videos=videos, file=path.name
        )
    rows = _lines(path)
    if not rows:
        raise BenchmarkError("{path} is empty: it lists a pair a line.", path=path)
    media: dict[tuple[str, bool], Media] = {}
    pairs, seen = [], {}
    for number, words in rows:
        where = Message("{path}, line {number}", path=path, number=number)
        if len(words) != 2:
            raise BenchmarkError(
                "{where}: there are {count} names where a pair has two.", where=where, count=len(words)
            )
        cells = words if kind in VIDEO_FIRST else words[::-1]
        video, voice = (
            _listed(media, cell, videos, kind, sound, f"{where}, column {1 + (sound == (kind in VIDEO_FIRST))}")
            for sound, cell in enumerate(cells)
        )
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{video.id}_{voice.id}").strip("-.")[:80]
        if not ID.fullmatch(name) or name in seen:  # two that differ by signs alone, or the same pair twice
            if seen.get(name) == words:
                raise BenchmarkError("{where}: the pair {pair} is listed twice.", where=where, pair=" ".join(words))
            name = f"pair-{number:06d}"
        seen[name] = words
        pairs.append(Pair(name, LISTS[kind], video, voice))
    facts = {
        "name": path.stem,
        "version": "published",
        "title": f"{path.stem}, over the user's own videos",
        "licence": "that of the user's videos",
    }
    return _set(facts, pairs)


def set_sha256(pairs: Iterable[Pair]) -> str:
    """The hash of a set: over ids, categories and every file's sha256, in order."""
    total = hashlib.sha256()
    for pair in pairs:
        reference = file_sha256(pair.reference) if pair.reference else ""
        total.update(
            json.dumps([pair.id, pair.category, pair.video.sha256, pair.voice.sha256, reference]).encode() + b"\n"
        )
    return total.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """The path of a file named in a manifest, which must lie in the folder itself. Raises ValueError with the reason.

    name  relative, with / between its parts; may not climb out, nor lead over a link. The file may not be there.
    """
    parts = PurePosixPath(name).parts
    if not name or "\0" in name or "\\" in name or ":" in name:
        raise ValueError("a file is named by a relative path with / between its parts")
    if name.startswith("/") or ".." in parts:
        raise ValueError("the path leads out of the folder")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise ValueError("the path leads over a link, which could lead anywhere")
    return path


def _folder(named: str | os.PathLike) -> Path:
    if isinstance(named, str) and named in sets():
        return sets()[named]
    folder = Path(named)
    if named == "lab" and not folder.is_dir():
        raise BenchmarkError(
            "The lab set needs the lab's own clips, which are not here: set LIPSYNC_LAB_DATA to their folder."
        )
    if not folder.is_dir():
        raise BenchmarkError(
            "There is no set {named!r}: name a folder, or one of {choices}.",
            named=str(named),
            choices=", ".join(sets()),
        )
    for name in ("set.toml", "clips.csv", "pairs.csv"):
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise BenchmarkError("{folder} is no set: it has no file {name}.", folder=folder, name=name)
    return folder


def _facts(path: Path) -> dict:
    facts = read_toml(path)
    for key in ("name", "version", "title"):
        if not isinstance(facts.get(key), str) or not facts[key].strip():
            raise BenchmarkError("{path}: it needs a {key}, a text in quotes.", path=path, key=key)
    for key in ("licence", "footer", "sha256"):
        if not isinstance(facts.get(key, ""), str):
            raise BenchmarkError("{path}: its {key} must be a text in quotes.", path=path, key=key)
    notes = facts.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise BenchmarkError("{path}: its notes must be a list of texts.", path=path)
    if not ID.fullmatch(facts["name"]):
        raise BenchmarkError(
            "{path}: the name {name!r} may have letters, digits, dots and dashes only.", path=path, name=facts["name"]
        )
    return facts


def read_toml(path: Path) -> dict:
    """A small TOML file. Raises BenchmarkError with file and line."""
    try:
        if path.stat().st_size > MOST_TOML_BYTES:
            raise BenchmarkError(
                "{path} has {megabytes} MB, too much for a few facts.", path=path, megabytes=path.stat().st_size >> 20
            )
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BenchmarkError("{path} cannot be read: {error}.", path=path, error=error.strerror) from error
    except UnicodeDecodeError as error:
        raise BenchmarkError("{path} cannot be read: {error}. Save it in UTF-8.", path=path, error=error) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BenchmarkError("{path} is no TOML: {error}.", path=path, error=error) from error


def _table(path: Path, needed: Sequence[str], what: str) -> list[tuple[int, dict[str, str]]]:
    try:
        rows = read_rows(path, needed, what)
    except InputError as error:
        raise BenchmarkError(error.message) from error
    if len(rows) > MOST_PAIRS:
        raise BenchmarkError(
            "{path} has {count} rows; a set has {most} at most.",
            path=path,
            count=len(rows),
            most=MOST_PAIRS,
        )
    seen: dict[str, int] = {}
    for number, row in rows:
        missing = [c for c in needed if c not in row]
        if missing:
            raise BenchmarkError(
                "{path}, line {number}: the row ends before the column {missing}: it has too few cells.",
                path=path,
                number=number,
                missing=missing[0],
            )
        if not ID.fullmatch(row["id"]) or RESERVED.fullmatch(row["id"]):
            raise BenchmarkError(
                "{path}, line {number}, column id: {id!r} is no id: letters, digits, dots and dashes, 100 at most.",
                path=path,
                number=number,
                id=row["id"][:60],
            )
        first = seen.setdefault(row["id"].lower(), number)  # outputs are files, and some systems know no case
        if first != number:
            raise BenchmarkError(
                "{path}, line {number}, column id: {id} stands on line {first} too.",
                path=path,
                number=number,
                id=row["id"],
                first=first,
            )
    return rows


def _clips(path: Path, roots: list[Path]) -> dict[str, tuple[Media, str]]:
    """id -> the clip or voice, and its category."""
    found = {}
    for number, row in _table(path, CLIP_COLUMNS, "list of clips"):
        where = Message("{path}, line {number}, column", path=path, number=number)
        if row["category"] not in ("", *CATEGORIES):
            raise BenchmarkError(
                "{where} category: there is no {category!r}: one of {choices}, or nothing.",
                where=where,
                category=row["category"],
                choices=", ".join(CATEGORIES),
            )
        if not SHA256.fullmatch(row["sha256"]):
            raise BenchmarkError(
                "{where} sha256: {sha256!r} is none: 64 of the letters 0-9 a-f.", where=where, sha256=row["sha256"][:70]
            )
        try:
            places = [inside(root, row["file"]) for root in roots]
        except ValueError as error:
            raise BenchmarkError(
                "{where} file: {file!r} cannot be used: {error}.", where=where, file=row["file"][:100], error=error
            ) from error
        file = next((p for p in places if p.is_file()), None)
        if file is None:
            if any(p.exists() for p in places):
                raise BenchmarkError("{where} file: {file} is no ordinary file.", where=where, file=row["file"])
            raise BenchmarkError("{where} file: {file} is not there.", where=where, file=row["file"])
        if _sha256(file, where) != row["sha256"]:
            raise BenchmarkError(
                "{where} sha256: {file} is another file than was listed: it has {found}…, not {listed}….",
                where=where,
                file=row["file"],
                found=file_sha256(file)[:12],
                listed=row["sha256"][:12],
            )
        facts = {k: row[k] for k in ("language", "speaker", "consent", "licence", "source")}
        found[row["id"]] = Media(row["id"], file, row["sha256"], **facts), row["category"]
    return found


def _sha256(file: Path, where: Message) -> str:
    try:
        return file_sha256(file)
    except OSError as error:
        raise BenchmarkError(
            "{where} file: {file} cannot be read: {error}.", where=where, file=file.name, error=error.strerror
        ) from error


def _pairs(path: Path, clips: dict[str, tuple[Media, str]]) -> list[Pair]:
    pairs = []
    for number, row in _table(path, PAIR_COLUMNS, "list of pairs"):
        where = Message("{path}, line {number}, column", path=path, number=number)
        if row["category"] not in CATEGORIES:
            raise BenchmarkError(
                "{where} category: there is no {category!r}: one of {choices}.",
                where=where,
                category=row["category"],
                choices=", ".join(CATEGORIES),
            )
        for column in ("video", "voice", "reference"):
            if row[column] not in clips and (row[column] or column != "reference"):
                raise BenchmarkError(
                    "{where} {column}: clips.csv has no {name!r}.", where=where, column=column, name=row[column]
                )
        (video, _), (voice, meant) = clips[row["video"]], clips[row["voice"]]
        if meant and meant != row["category"]:
            raise BenchmarkError(
                "{where} category: the voice {id} was made for {meant}, not {category}.",
                where=where,
                id=voice.id,
                meant=meant,
                category=row["category"],
            )
        if voice.sha256 == video.sha256:
            raise BenchmarkError(
                "{where} voice: {id} is the clip itself, which would be given its own voice.", where=where, id=voice.id
            )
        reference = clips[row["reference"]][0].path if row["reference"] else None
        pairs.append(Pair(row["id"], row["category"], video, voice, reference))
    return pairs


def _set(facts: dict, pairs: list[Pair]) -> BenchmarkSet:
    words = {k: facts.get(k, "") for k in ("name", "version", "title", "licence", "footer")}
    return BenchmarkSet(pairs=tuple(pairs), sha256=set_sha256(pairs), notes=tuple(facts.get("notes", ())), **words)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    try:
        if path.stat().st_size > 64 << 20:
            raise BenchmarkError(
                "{path} has {megabytes} MB; a list has 64 at most.", path=path, megabytes=path.stat().st_size >> 20
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BenchmarkError("{path} cannot be read: {error}.", path=path, error=error.strerror) from error
    except UnicodeDecodeError as error:
        raise BenchmarkError("{path} cannot be read: {error}. Save it in UTF-8.", path=path, error=error) from error
    return [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _listed(
    media: dict[tuple[str, bool], Media], name: str, videos: Path, kind: str, sound: int, where: Message
) -> Media:
    """A clip (`sound` 0) or voice (1) of a published list."""
    known = media.get((name, bool(sound)))
    if known is not None:
        return known
    has_ending = PurePosixPath(name).suffix.lower() in (*SOUNDS, *FILMS)
    if has_ending != (kind in VIDEO_FIRST):
        order = "videos first, with their endings" if kind in VIDEO_FIRST else "audio first, without endings"
        raise BenchmarkError(
            "{where}: {name!r} does not look like the lists of {kind}, which name {order}.",
            where=where,
            name=name,
            kind=kind,
            order=order,
        )
    endings = [""] if has_ending else SOUNDS if sound else FILMS
    try:
        places = [inside(videos, name + ending) for ending in endings]
    except ValueError as error:
        raise BenchmarkError(
            "{where}: {name!r} cannot be used: {error}.", where=where, name=name[:100], error=error
        ) from error
    file = next((p for p in places if p.is_file()), None)
    if file is None:
        raise BenchmarkError(
            "{where}: there is no {choices} for {name} in {videos}.",
            where=where,
            choices=" or ".join(p.name for p in places),
            name=name,
            videos=videos,
        )
    speaker = name.split("/")[0] if "/" in name and kind in ("lrs2", "lrs3") else ""
    found = Media(name, file, _sha256(file, where), speaker=speaker)
    media[name, bool(sound)] = found
    return found
