"""Figures that papers print, beside the leaderboard and never in it: published, not measured here.

Source: shared notes on the papers (protocol.md section 8), each cell with how sure it is. LSE-D and Fréchet distance:
lower is better; LSE-C: higher. Of the human study: sync accuracy, visual quality, overall experience, preference.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

TITLE = "Published, not measured here"
PAPER = "Prajwal et al. 2020, arXiv 2008.10010"
STATUS = {
    "checked": "every cell checked against the paper's text",
    "corrected": "corrected from the paper's text",
    "recalled": "from memory of the paper",
    "re-run": "the released weights as run again by two other parties",
    "re-run by one": "the released weights as run again by one other party",
}
NOTES = (
    "Figures of one paper come from one evaluator and protocol; they stand in no column with what is measured here.",
    "Wav2Lip has two rows: as printed in 2020, and its released weights as run again by others since.",
    "Re-runs differ in the last digit between the parties: LRS2 LSE-C 6.76 and 6.77.",
    "The human study of ReSyncED had 14 raters; its scale is printed as 1 to 5, although cells lie below 1.",
    "The preferences of ReSyncED's TTS part add up to 102.4 % in the paper itself.",
)


@dataclass(frozen=True)
class Published:
    """One printed row. None: not printed, or not known here."""

    set: str
    system: str
    status: str  # a key of STATUS
    source: str = PAPER
    lse_d: float | None = None
    lse_c: float | None = None
    fid: float | None = None
    sync: float | None = None  # people's, on the printed scale
    visual: float | None = None
    overall: float | None = None
    preference: float | None = None  # per cent


def _table_1() -> list[Published]:
    systems = ("Speech2Vid", "LipGAN", "Wav2Lip", "Wav2Lip + GAN", "real")
    printed = {
        "LRW": (
            (13.14, 1.762, 11.15),
            (10.05, 3.350, 2.833),
            (6.512, 7.490, 3.189),
            (6.774, 7.263, 2.475),
            (7.012, 6.931, None),
        ),
        "LRS2": (
            (14.23, 1.587, 12.32),
            (10.33, 3.199, 4.861),
            (6.386, 7.789, 4.887),
            (6.469, 7.781, 4.446),
            (6.736, 7.838, None),
        ),
        "LRS3": (
            (13.97, 1.681, 11.91),
            (10.65, 3.193, 4.732),
            (6.652, 7.887, 4.844),
            (6.986, 7.574, 4.350),
            (6.956, 7.592, None),
        ),
    }
    return [
        Published(name, system, "checked", f"{PAPER}, Table 1", *cells)
        for name, rows in printed.items()
        for system, cells in zip(systems, rows, strict=True)
    ]


def _again() -> list[Published]:
    printed = {
        "LRW": ("re-run by one", (7.185, 6.532, 3.19), (7.34, 6.41, 2.46)),
        "LRS2": ("re-run", (7.15, 6.76, 4.92), (7.21, 6.78, 4.47)),
        "LRS3": ("re-run", (7.00, 7.15, 4.68), (7.10, 7.07, 4.05)),
    }
    return [
        Published(name, f"{system} (released weights, re-run)", status, STATUS[status], *cells)
        for name, (status, *rows) in printed.items()
        for system, cells in zip(("Wav2Lip", "Wav2Lip + GAN"), rows, strict=True)
    ]


FIGURES: tuple[Published, ...] = (
    *_table_1(),
    *_again(),
    Published("ReSyncED, dubbed", "unsynced", "recalled", PAPER, 12.63, 0.896, None, 0.21, 4.81, 3.07, 3.15),
    Published("ReSyncED, dubbed", "LipGAN", "recalled", PAPER, 10.61, 2.857, 12.87, 2.98, 3.91, 3.45, 2.35),
    Published("ReSyncED, dubbed", "Wav2Lip", "recalled", PAPER, 6.843, 7.265, 15.65, 4.13, 3.87, 4.04, 34.3),
    Published("ReSyncED, dubbed", "Wav2Lip + GAN", "recalled", PAPER, 7.318, 6.851, 11.84, 4.08, 4.12, 4.13, 60.2),
    Published("ReSyncED, TTS", "Speech2Vid", "corrected", PAPER, visual=0.71, overall=0.69),
    Published("ReSyncED, TTS", "LipGAN", "corrected", PAPER, overall=3.14),
    Published("ReSyncED, really synced", "real", "corrected", PAPER, sync=4.83, visual=4.91),
)


def published(set_name: str | None = None) -> pd.DataFrame:
    """The figures as a table, of one set or all; missing cells are missing."""
    rows = [f for f in FIGURES if set_name in (None, f.set)]
    table = pd.DataFrame(rows, columns=list(Published.__dataclass_fields__))
    return table.assign(what=TITLE, status=table["status"].map(STATUS))
