"""Shared fixtures: golden numbers, shared clips where they are there, made media."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything reads it, and for children too: a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
from skimage.data import astronaut

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
# A shell starts what it puts in the background deaf to Ctrl-C; children inherit that, and tests that send it fail.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_keys(tmp_path_factory):
    """Labels made by tests are signed with keys of their own, not with those of whoever runs the tests."""
    os.environ["LIPSYNC_KEYS"] = str(tmp_path_factory.mktemp("keys"))


@pytest.fixture(autouse=True)
def ordinary_priority():
    """A test that leaves its worker with real-time priority starves whatever runs beside it, and all that follows."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


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


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """Two seconds of the astronaut drifting, 320 x 320, 25 fps, with a quiet hum: made with our own writer."""
    return make_clip(tmp_path_factory.mktemp("clip") / "astronaut.mp4", frames=50)


@pytest.fixture(scope="session")
def voice(tmp_path_factory) -> Path:
    """1.6 s that sounds like speech to a network: bursts of a buzz through moving bands, with pauses."""
    return make_voice(tmp_path_factory.mktemp("voice") / "voice.wav", seconds=1.6)


def portrait_frame(x: float, y: float, size: tuple[int, int] = (320, 320), scale: float = 0.6) -> np.ndarray:
    """The public-domain astronaut's picture, shifted and scaled on a grey ground: (H, W, 3) uint8 RGB."""
    move = np.array([[scale, 0, x], [0, scale, y]], np.float32)
    return cv2.warpAffine(astronaut(), move, size, borderValue=(90, 90, 90))


def make_clip(path: Path, frames: int, fps: Fraction = Fraction(25), size: tuple[int, int] = (320, 320)) -> Path:
    """A portrait that drifts and nods, with a hum of 110 Hz."""
    from lipsync.media.reader import VideoWriter

    with VideoWriter(path, *size, fps, 48_000) as writer:
        for i in range(frames):
            writer.write(portrait_frame(10 + 8 * np.sin(i / 9), 10 + 4 * np.sin(i / 5), size))
        t = np.arange(round(frames / fps * 48_000)) / 48_000
        writer.write_sound(np.repeat(0.05 * np.sin(2 * np.pi * 110 * t)[:, None], 2, 1).astype(np.float32))
    return path


def make_voice(path: Path, seconds: float, sample_rate: int = 16_000) -> Path:
    """Syllables of a buzz, four a second, every fourth a pause."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    breath = np.random.default_rng(0).uniform(0.5, 1, len(t))  # so that no stretch is like another
    buzz = np.sign(np.sin(2 * np.pi * 120 * t)) * (0.6 + 0.4 * np.sin(2 * np.pi * 700 * t)) * breath
    beat = (np.sin(np.pi * t * 4) ** 2) * (np.floor(t * 4) % 4 != 3)
    soundfile.write(path, (0.5 * buzz * beat).astype(np.float32), sample_rate)
    return path
