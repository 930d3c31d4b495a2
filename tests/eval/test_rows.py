"""Rows on the disk: there and back, a line that a killed process left, files of other columns, JSON without NaN."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from eval.metrics.base import MeasureError
from eval.results import FIXED, CsvRows, ScoreRow, read_csv
from eval.table import rows_table, summary, summary_table

FULL = ScoreRow(
    'clips/a, "b"\nc;ü.mp4',
    "ab" * 32,
    "set",
    "pair",
    "system",
    "identity",
    evaluator="syncnet-lab",
    evaluator_sha256="c" * 64,
    protocol="short",
    protocol_hash="d" * 12,
    detector="mediapipe",
    shifts=7,
    fast=True,
    offset=-3,
    lse_d=7.25,
    lse_c=0.1,
    certainty=0.8525,
    coverage=1.0,
    frames=75,
    tracks=2,
    curve=[1.5, 2.25, 1e-05],
    confidence=[0.5, -0.25],
    per_track=[{"first": 3, "frames": 60, "offset": None, "lse_d": 7.25, "lse_c": 0.1}],
    engine="torch",
    values={"psnr_mouth": 31.5, "ssim_mouth": None},
    remarks=['a, "quoted" remark', "two\nlines", ""],
    error=None,
)
BAD = ScoreRow(
    "gone.mp4", values={"psnr_mouth": None, "ssim_mouth": None}, error='There is no "gone.mp4",\nor it is damaged.'
)
MEASURES = ("psnr_mouth", "ssim_mouth")


def kept(path, *rows):
    csv = CsvRows(path, MEASURES)
    for row in rows:
        csv.add(row)
    return path.read_bytes()


def test_rows_come_back_as_they_were(tmp_path):
    path, strange = tmp_path / "rows.csv", replace(FULL, file="\udcff.mp4")  # a name that is no UTF-8
    kept(path, FULL, BAD, strange)
    assert read_csv(path) == [FULL, BAD, strange]
    again = CsvRows(path, MEASURES)
    assert list(again.known.values()) == [FULL, BAD, strange] and again.known[FULL.key()] == FULL
    assert FULL.key() != replace(FULL, file_sha256="").key() != replace(FULL, reference_sha256="a").key()


def test_rows_are_on_the_disk_one_by_one(tmp_path):
    csv = CsvRows(tmp_path / "rows.csv", MEASURES)
    for count in range(1, 4):
        csv.add(replace(FULL, file=str(count)))
        assert len(read_csv(csv.path)) == count == len(csv.known)


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_a_line_cut_off_anywhere_is_mended(tmp_path, ending):
    """Also within a quoted line break, which looks like the end of a row; an editor may have changed the ends."""
    path = tmp_path / "rows.csv"
    whole = kept(path, BAD, replace(FULL, frames=5))
    two = kept(path, FULL)
    whole, two = (text.replace(b"\r\n", ending) for text in (whole, two))
    assert two.startswith(whole)
    breaks = [k for k in range(len(whole), len(two)) if b"\n" in two[k - 2 : k + 2]]
    for cut in sorted({*range(len(whole), len(two), 11), *breaks}):
        path.write_bytes(two[:cut])
        mended = CsvRows(path, MEASURES)
        assert list(mended.known.values()) == [BAD, replace(FULL, frames=5)][: len(mended.known)]
        assert path.read_bytes() == whole
    mended.add(FULL)
    assert len(read_csv(path)) == 3


def test_a_header_cut_off_is_written_again(tmp_path):
    path = tmp_path / "rows.csv"
    header = kept(path)
    path.write_bytes(header[:20])
    assert kept(path) == header


@pytest.mark.parametrize("columns", ["file,offset\r\na.mp4,1\r\n", ",".join(FIXED) + "\r\n", "\r\n", "a,b\nc"])
def test_other_columns_are_refused(tmp_path, columns):
    path = tmp_path / "rows.csv"
    path.write_text(columns, newline="")
    with pytest.raises(MeasureError, match="other columns .* give another name"):
        CsvRows(path, MEASURES)
    assert path.read_bytes() == columns.encode()


def test_a_table_with_the_columns_of_before_is_read_and_goes_on(tmp_path, caplog):
    path = tmp_path / "rows.csv"
    row = replace(FULL, values={})
    CsvRows(path).add(row)
    path.write_bytes(
        path.read_bytes().replace(b"evaluator_sha256", b"judge_sha256").replace(b",evaluator,", b",judge,")
    )
    rows = CsvRows(path)
    assert list(rows.known) == [row.key()] and caplog.messages.count("The column judge is called evaluator now.") == 1
    rows.add(replace(row, file="b.mp4"))
    assert [row.evaluator for row in read_csv(path)] == ["syncnet-lab"] * 2


def test_rows_spoilt_by_hand_are_a_sentence(tmp_path):
    path = tmp_path / "rows.csv"
    kept(path, FULL)
    path.write_bytes(path.read_bytes().replace(b",75,", b",many,"))
    with pytest.raises(MeasureError, match="rows.csv"):
        CsvRows(path, MEASURES)


def test_a_film_of_many_tracks_comes_back(tmp_path):
    row = ScoreRow("film.mp4", per_track=[{"first": k, "frames": 30, "lse_d": 7.123456789} for k in range(4000)])
    rows = CsvRows(tmp_path / "rows.csv")
    rows.add(row)
    assert CsvRows(tmp_path / "rows.csv").known[row.key()].per_track == row.per_track
    (tmp_path / "other.csv").write_text("x" * 200_000)
    with pytest.raises(MeasureError, match="other columns"):
        CsvRows(tmp_path / "other.csv")


def test_json_has_no_nan(tmp_path):
    row = replace(
        FULL, lse_d=float("nan"), curve=[1.0, float("nan"), float("inf")], values={"psnr_mouth": float("inf")}
    )
    record = json.loads(json.dumps(row.record(), allow_nan=False))
    wanted = (
        "file offset lse_d lse_c evaluator evaluator_sha256 protocol protocol_hash error version remarks values curve"
    )
    assert set(wanted.split()) <= set(record)
    assert record["lse_d"] is None and record["curve"] == [1.0, None, None] and record["values"] == {"psnr_mouth": None}
    assert set(record) == set(FIXED) | {"values"}
    assert kept(tmp_path / "rows.csv", row).count(b"nan") == 0 and read_csv(tmp_path / "rows.csv")[0].lse_d is None


def shown(table) -> str:
    text = io.StringIO()
    Console(file=text, width=300).print(table)
    return text.getvalue()


def test_a_table_for_people():
    strange = replace(FULL, file="take [final].mp4", evaluator="syncnet-v2", remarks=["see [/b]"])
    said = shown(rows_table([strange, replace(BAD, error="There is no [x].mp4.")], ["offset", "lse_d", "psnr_mouth"]))
    assert "take [final].mp4" in said and "see [/b]" in said and "There is no [x].mp4." in said
    assert "LSE-D " in said and "syncnet-v2 cccccccc" in said and "-3" in said and "7.250" in said and "100%" in said
    assert "LSE-D (syncnet-lab)" in shown(rows_table([FULL], ["lse_d"]))


@pytest.mark.slow
def test_means_with_intervals():
    rows = [replace(FULL, file=str(k), identity=f"i{k // 2}", lse_d=float(k)) for k in range(6)]
    found = summary([*rows, BAD], ["lse_d", "offset", "ssim_mouth"])
    assert found["lse_d"]["n"] == 6 and found["lse_d"]["mean"] == 2.5
    for name in ("clips_95", "identities_95"):
        low, high = found["lse_d"][name]
        assert 0 <= low < 2.5 < high <= 5
    assert np.ptp(found["offset"]["clips_95"]) == 0
    assert found["ssim_mouth"] == {"n": 0, "mean": None, "clips_95": None, "identities_95": None}
    assert "6 of 6 clips scored" in shown(summary_table(rows, ["lse_d", "ssim_mouth"]))


def test_sets_and_systems_are_not_pooled():
    rows = [replace(FULL, system=system, lse_d=value) for system in ("ours", "theirs") for value in (1.0, 3.0)]
    rows = [*rows, replace(BAD, set="set", system="theirs"), *(replace(r, set="other", lse_d=9.0) for r in rows[:2])]
    rows[2] = replace(rows[2], lse_d=5.0)
    lines = shown(summary_table(rows, ["lse_d"])).splitlines()
    wanted = ["set", "ours"], ["set", "theirs"], ["other", "ours"]
    assert [line.split()[:2] for line in lines if "scored" in line] == list(wanted)
    means = [line.split("↓")[1].split()[:2] for line in lines if "LSE-D" in line]
    assert means == [["2", "2.000"], ["2", "4.000"], ["2", "9.000"]]
    assert any("2 of 3 clips scored" in line for line in lines)


def test_every_table_says_who_judged_and_how():
    for table in (rows_table([FULL], ["lse_d"]), summary_table([FULL], ["lse_d"])):
        assert "short dddddddddddd · syncnet-lab cccccccc · mediapipe · ±7 shifts · fast" in " ".join(
            shown(table).split()
        )
