"""Verdicts on hand-made numbers, and every trial on two tiny clips."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from eval import validity as trials
from eval.metrics.base import MeasureError
from eval.protocols import protocol
from eval.validity import LENGTHS, SHIFTS, Trial, validity
from tests.helpers.made import FLASHES, FlashEvaluator, flash_clip, talking_clip


def trial(wanted: str, *rows: list[float]) -> Trial:
    return Trial("noise", "lse_c", tuple(range(len(rows[0]))), wanted, np.array(rows, float))


NAN = float("nan")
UP = [[1, 5, 2], [1, 0, 3], [2, 9, 3.5], [0, 1, 1]]
MIXED = [[1, 5, 2], [1, 0, 0], [2, 9, 3.5], [3, 1, 1]]


@pytest.mark.parametrize(
    ("wanted", "rows", "verdict"),
    [
        ("rises", UP, "yes"),
        ("falls", UP, "no"),
        ("rises", MIXED, "not shown"),
        ("falls", MIXED, "not shown"),
        ("falls", [[-v for v in row] for row in UP], "yes"),
        ("rises", [[-v for v in row] for row in UP], "no"),
        ("stays", MIXED, "not shown"),  # the interval holds 0 and is far wider than the margin
        ("stays", UP, "no"),
        ("stays", [[100, 101], [100, 101.5], [100, 101]], "yes"),  # a change, but under 5 %
        ("stays", [[100, 106], [100, 107], [100, 106]], "no"),
        ("stays", [[100, 104], [100, 107], [100, 106]], "not shown"),
        ("stays", [[4, 4], [5, 5], [6, 6]], "yes"),
        ("rises", [[4, 4], [5, 5], [6, 6]], "not shown"),
        ("rises", [[1, 2]], "not shown"),  # one clip has no interval
        ("rises", [[1, NAN], [NAN, 2], [1, 2]], "not shown"),  # nor has one that has both ends
        ("stays", [[NAN, NAN], [NAN, NAN]], "not shown"),
        ("rises", [[1, 2], [2, 4], [NAN, 0], [0, NAN], [0, 1.5]], "yes"),
    ],
)
def test_verdicts(wanted, rows, verdict):
    assert trial(wanted, *rows).verdict() == verdict


def test_a_change_is_of_the_clips_that_have_both_ends():
    mean, span = trial("rises", [1, NAN, 3], [2, 7, NAN], [5, 0, 6]).change()
    assert mean == 1.5 and 1 <= span[0] <= 1.5 <= span[1] <= 2
    mean, span = trial("rises", [NAN, 1]).change()
    assert np.isnan(mean) and span is None


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1])
def test_one_clip_is_too_few(tmp_path, count):
    clips = [flash_clip(tmp_path / f"{k}.mp4", 60) for k in range(count)]
    with pytest.raises(MeasureError, match=f"{count} clip"):
        validity([*clips, tmp_path / "gone.mp4"], FlashEvaluator(), FLASHES, tmp_path / "out", say=lambda _: None)


@pytest.mark.slow
def test_every_trial_on_two_clips(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "QUALITIES", (0, 38))
    monkeypatch.setattr(trials, "BLURS_PX", (0, 4))
    clips = [talking_clip(tmp_path / "a.mp4", 40), talking_clip(tmp_path / "b.mp4", 40, words="A window wide open.")]
    left_out: list[str] = []
    table = validity(
        [*clips, tmp_path / "gone.mp4"], FlashEvaluator(), protocol("short"), tmp_path / "out", left_out.append
    )
    assert len(left_out) == 1 and "gone.mp4" in left_out[0]
    report = json.loads((tmp_path / "out" / "validity.json").read_text())
    assert (report["evaluator"], report["protocol"], report["clips"]) == ("syncnet-flash", "short", 2)
    records = {(t["trial"], t["measure"]): t for t in report["trials"]}
    assert len(records) == len(report["trials"]) == table.row_count
    for record in records.values():
        assert len(record["levels"]) == len(record["means"]) and record["holds"] in ("yes", "no", "not shown")
        assert record["wanted"] in ("rises", "falls", "stays")
    # Of any evaluator: the same again is the same, blur is seen, and what no clip is long enough for is empty.
    for measure in ("lse_d", "lse_c"):  # of clips that never flash this evaluator names no offset
        assert (
            records["the file scored again", measure]["change"] == 0
            and records["the file scored again", measure]["holds"] == "yes"
        )
    assert records["blur, sigma in px", "psnr_mouth"]["holds"] == "yes"
    assert records["length in frames", "lse_d"]["means"][1:] == [None] * (len(LENGTHS) - 1)
    for name in ("coded again, x264 crf", "frame rate"):
        assert None not in records[name, "lse_c"]["means"]
    text = io.StringIO()
    Console(file=text, width=200).print(table)
    assert "short" in text.getvalue() and "syncnet-flash ffffffff" in text.getvalue() and "2 clips" in text.getvalue()
    assert "white noise, dB" in text.getvalue()
    assert "syncnet-flash ffffffff" in (tmp_path / "out" / "validity.html").read_text()
    assert (tmp_path / "out" / "validity.png").read_bytes().startswith(b"\x89PNG")
    for trial, measure in (("head", "box_jitter"), ("mouth", "mouth_jitter")):
        assert records[f"{trial} shaken by 1 px", measure]["holds"] == "yes"
    kinds = {"leak_silence", "leaks", "retrieval: rank of its voice", "box_jitter", "lmd", "mouth_movement_speech"}
    assert kinds < {measure for _, measure in records} and any("Kernel" in m for _, m in records)


@pytest.mark.slow
def test_an_evaluator_that_hears_and_sees_passes(tmp_path, monkeypatch):
    """With clips that flash and click, and an evaluator of that: shifts are found, and a frozen picture is no match."""
    monkeypatch.setattr(trials, "_file_trials", lambda *_: [])
    monkeypatch.setattr(trials, "_picture_trials", lambda *_: [])
    monkeypatch.setattr(trials, "_motion_trials", lambda *_: [])
    clips = [flash_clip(tmp_path / f"{k}.mp4", 110, seed=k) for k in range(3)]
    bare = protocol("lrs").with_shifts(10)
    validity(clips, FlashEvaluator(), bare, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "validity.json").read_text())
    records = {(t["trial"], t["measure"]): t for t in report["trials"]}
    shifted = records["sound late by frames", "offset at ±16: error in frames"]
    assert shifted["means"] == [0] * 16 and shifted["holds"] == "yes"
    assert len(records["sound late by frames", "lse_c"]["means"]) == len(SHIFTS)
    for name in (
        ("frozen mouth", "lse_c"),
        ("another's voice", "lse_c"),
        ("another's voice", "lse_d"),
        ("sound late by frames", "lse_c"),
        ("white noise, dB", "lse_c"),
    ):
        assert records[name]["holds"] == "yes", name
