"""Which clips, beside which references, of which people: what the command line was given, as a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lipsync.errors import InputError
from lipsync.lists import clips_in, read_list


@dataclass(frozen=True)
class Item:
    """One clip to score."""

    path: Path
    reference: Path | None = None
    identity: str = ""
    system: str = ""
    pair: str = ""
    set: str = ""


def items(sources: list[Path], references: Sequence[Path] = (), stills: bool = False) -> list[Item]:
    """The clips of files, folders (their videos, sub-folders too) and CSV lists; with `stills` pictures are clips too.

    A CSV has a column `file`, relative to it, and may have `reference`, `identity`, `system`, `pair` and `set`.
    references  files or folders: a clip's reference is the one at its place in the folder, else the one of its name, or
                the only one given for the only clip
    Raises InputError where a source is not there, a list cannot be read, or a reference is missing or one of several.
    """
    out: list[Item] = []
    places: dict[Path, str] = {}  # of files of a folder: where they lie in it, without their ending
    for source in sources:
        if source.is_dir():
            found = clips_in(source, stills, deep=True)
            out += [Item(p) for p in found]
            places |= {p: str(p.relative_to(source).with_suffix("")) for p in found}
        elif source.suffix.lower() == ".csv":
            out += _listed(source)
        else:
            out.append(Item(source))  # one that is not there becomes a row with its reason
    if not out:
        raise InputError(f"There is no video{' or picture' * stills} in {', '.join(map(str, sources))}.")
    if not references:
        return out
    known: dict[str, list[Path]] = {}  # by name, and by place in a folder
    for source in references:
        if not source.exists():
            raise InputError(f"There is no reference {source}.")
        for path in clips_in(source, stills, deep=True) if source.is_dir() else [source]:
            place = str(path.relative_to(source).with_suffix("")) if source.is_dir() else path.stem
            for name in {place, path.stem}:
                known.setdefault(name, []).append(path)
    every = {path for paths in known.values() for path in paths}
    if len(out) == 1 and len(every) == 1:
        return [replace(out[0], reference=every.pop())]
    named = {i.path: known.get(places.get(i.path, ""), known.get(i.path.stem, [])) for i in out if i.reference is None}
    for path, paths in named.items():
        if len(paths) > 1:
            raise InputError(
                f"{path.name} has {len(paths)} references of its name, {paths[0]} and {paths[1]} among them: keep "
                f"clips in sub-folders of the same names, or list the pairs in a CSV."
            )
    lacking = [path.name for path, paths in named.items() if not paths]
    if lacking:
        raise InputError(
            f"There is no reference of the same name for {', '.join(lacking[:3])}"
            f"{f' and {len(lacking) - 3} more' if len(lacking) > 3 else ''}."
        )
    return [replace(i, reference=i.reference or named[i.path][0]) for i in out]


def spread(things: Sequence, most: int) -> list:
    """At most so many of them, evenly from the first to the last: the first few of a folder are often one person's."""
    count = min(len(things), most)
    return [things[k * (len(things) - 1) // max(count - 1, 1)] for k in range(count)]


def _listed(source: Path) -> list[Item]:
    rows = read_list(source, ("file",), "list")
    if not all(r.get("file") for r in rows):
        raise InputError(f"The list {source} has a row that names no file.")
    beside = source.parent
    names = ("identity", "system", "pair", "set")
    return [
        Item(
            beside / r["file"],
            beside / r["reference"] if r.get("reference") else None,
            **{name: r.get(name) or "" for name in names},
        )
        for r in rows
    ]
