"""ScoreRow: what was measured on one clip, with everything that could change a number; as CSV and JSON, append-only."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lipsync.renamed import current_name, current_names

from .metrics.base import MeasureError

csv.field_size_limit(2**31 - 1)  # a film has thousands of tracks, and all are in one cell

OLD_NAMES = {"judge": "evaluator", "judge_sha256": "evaluator_sha256"}  # columns of before 2026-12, still read
VERSION = "5"  # of the measures; a change of any number makes a new one


@dataclass(frozen=True)
class ScoreRow:
    """One clip by one system. A number that cannot be had is None, and `error` or `remarks` says why.

    offset     frames of 40 ms, positive: the sound is early; None where the evaluator cannot tell
    coverage   share of the clip's frames in the scored face tracks, 0..1
    curve      mean distance at each shift of the sound, of the track that decides the offset
    confidence  the same track's confidence, second by second, from frame `per_track[0]["first"]` on
    per_track  of each scored face track, the deciding one first: its first frame at 25 a second, how many frames, its
               offset (None: the evaluator cannot tell), lse_d and lse_c. Those of the row are means over its tracks
    values     further measures by name (image, motion, identity)
    """

    file: str
    file_sha256: str = ""
    set: str = ""
    pair: str = ""
    system: str = ""
    identity: str = ""
    reference: str = ""  # the file that image and motion measures compare with
    reference_sha256: str = ""
    version: str = VERSION
    evaluator: str = ""
    evaluator_sha256: str = ""
    protocol: str = ""
    protocol_hash: str = ""
    detector: str = ""
    shifts: int = 0
    fast: bool = False
    engine: str = ""  # what ran the evaluator: numbers of two agree within 1e-3, not bit by bit
    offset: int | None = None
    lse_d: float | None = None
    lse_c: float | None = None
    certainty: float | None = None
    coverage: float | None = None
    frames: int = 0
    tracks: int = 0
    curve: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    per_track: list[dict] = field(default_factory=list)
    values: dict[str, float | None] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    error: str | None = None

    def key(self) -> tuple[str, ...]:
        """Rows of one key hold the same numbers: what was scored, by what."""
        return (
            self.file,
            self.file_sha256,
            self.reference,
            self.reference_sha256,
            self.version,
            self.evaluator_sha256,
            self.protocol_hash,
            ",".join(sorted(self.values)),
        )

    def heading(self) -> str:
        """What made the numbers, as it stands above every table: protocol, evaluator and its sum, detector, shifts."""
        return (
            f"{self.protocol} {self.protocol_hash} · {self.evaluator} {self.evaluator_sha256[:8]} · {self.detector} · "
            f"±{self.shifts} shifts{' · fast' if self.fast else ''}"
        )

    def record(self) -> dict:
        """As JSON takes it: a NaN is null."""
        return _plain(asdict(self))


def current_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """What was written of a row, by the names of today."""
    return current_names(record, OLD_NAMES, "column")


FIXED = tuple(name for name in ScoreRow.__dataclass_fields__ if name != "values")


def _plain(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


class CsvRows:
    """A CSV file of rows that grows by one line as each clip is done, and is read again when the work is taken up.

    path      made where it is not there; must otherwise have these columns
    measures  names of further values, a column each
    """

    def __init__(self, path: Path, measures: Iterable[str] = ()) -> None:
        self.path, self.measures = path, tuple(measures)
        self.columns = [*FIXED, *self.measures]
        self.known: dict[tuple[str, ...], ScoreRow] = {}
        header = _line(self.columns)
        if header.startswith(path.read_bytes() if path.exists() else b""):  # nothing yet, or a header cut off
            path.write_bytes(header)
            return
        _check(path, self.columns)
        _mend(path)
        for row in read_csv(path):
            self.known[row.key()] = row

    def add(self, row: ScoreRow) -> None:
        """Append one row; it is on the disk when this returns."""
        record = row.record()
        cells = [record["values"].get(c) if c in self.measures else record[c] for c in self.columns]
        with self.path.open("ab") as file:
            file.write(_line([_cell(v) for v in cells]))
        self.known[row.key()] = row


def _cell(value) -> str:
    return "" if value is None else json.dumps(value) if isinstance(value, list | float | bool) else str(value)


def _line(cells: list[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)
    return text.getvalue().encode(errors="surrogateescape")  # file names may be any bytes


def _mend(path: Path) -> None:
    """Cut off a last row that a killed process left unfinished; a line break within quotes ends no row."""
    text = path.read_bytes()
    end = text.rfind(b"\n") + 1
    while text.count(b'"', 0, end) % 2:
        end = text.rfind(b"\n", 0, end - 1) + 1
    if end < len(text):
        path.write_bytes(text[:end])


def _check(path: Path, columns: list[str] | None) -> None:
    found: list[str] = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file, contextlib.suppress(csv.Error):
        found = [OLD_NAMES.get(name, name) for name in next(csv.reader(file), [])]
    if columns is not None and found != columns or not set(FIXED) <= set(found):
        raise MeasureError(f"{path} holds other columns than these measures need: give another name for the CSV.")


def read_csv(path: Path, columns: list[str] | None = None) -> list[ScoreRow]:
    """The rows of a CSV file. Raises MeasureError where its columns are others than `columns` or no rows of ours."""
    _check(path, columns)
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            lines = csv.reader(file)
            header = [current_name(name, OLD_NAMES, "column") for name in next(lines, [])]
            return [_row(cells) for cells in csv.DictReader(file, header)]
    except (ValueError, TypeError, csv.Error) as error:
        raise MeasureError(
            f"{path} holds a row that cannot be read ({error}): give another name for the CSV."
        ) from error


def _row(cells: dict[str, str]) -> ScoreRow:
    kinds = {name: f.type for name, f in ScoreRow.__dataclass_fields__.items()}
    known: dict = {"values": {k: None if v == "" else float(v) for k, v in cells.items() if k not in kinds}}
    for name in FIXED:
        text, kind = cells[name], str(kinds[name])
        if kind == "str":
            known[name] = text
        elif text == "":
            known[name] = None
        else:
            known[name] = text if kind == "str | None" else json.loads(text)
    return ScoreRow(**known)
