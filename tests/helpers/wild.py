"""Real clips of all kinds in ../shared/data/wild, for tests that run over them."""

import pytest

from tests.conftest import SHARED

WILD = sorted((SHARED / "data" / "wild").glob("*"))
# One of each kind in every run: cuts and frames without a face, an odd rate, late sound, a phone held upright, two
# people, Full HD. `make sweep` takes all.
KINDS = {"stage_cuts", "retalk1_22fps", "syllable_audio_late", "upright_tiny_face", "two_people_24fps", "full_hd"}
each_wild_clip = pytest.mark.parametrize(
    "video",
    [pytest.param(p, marks=pytest.mark.slow if p.stem in KINDS else pytest.mark.sweep, id=p.stem) for p in WILD],
)
