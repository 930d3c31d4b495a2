"""Shared fixtures: golden numbers, shared clips where they are there, made media."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden vectors (tests/data/golden)."""
    return ROOT / "tests" / "data" / "golden"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real clips beside the checkout; tests that need it are skipped where it is not."""
    data = SHARED / "data"
    if not (data / "manifest.csv").is_file():
        pytest.skip("no ../shared/data here: tests on real clips are skipped")
    return data
