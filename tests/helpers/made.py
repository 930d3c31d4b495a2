"""Clips for the tests of eval: the astronaut with a voice, flashes that click, and an evaluator without weights."""

import shutil
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from skimage.data import astronaut

from eval.protocols import Protocol
from eval.syncnet import Evaluator
from lipsync import tts as voices
from lipsync.media.reader import VideoWriter, read_waveform
from tests.conftest import make_voice
from tests.helpers.media_maker import clicks

WORDS = "Bring more bottles of milk, please. My mother makes a warm meal, and nobody minds."
FLASHES = Protocol("lrs", "whole", shifts=10, padded=True, min_frames=6)


def spoken(folder: Path, seconds: float, words: str = WORDS) -> np.ndarray:
    """A voice over and over: (S,) float32 at 16 kHz; espeak-ng's, or bursts of a buzz where it is not installed."""
    path = folder / "words.wav"
    if shutil.which("espeak-ng"):  # the same everywhere, whatever other voices are installed
        voices.speak(words, "en-us", "low", path, "espeak-ng")
    else:
        make_voice(path, 3)
    return np.resize(read_waveform(path), round(16_000 * seconds))


def talking_clip(path: Path, frames: int = 50, fps: int = 25, size: int = 240, words: str = WORDS) -> Path:
    """The astronaut, drifting, whose mouth is a dark ellipse as high as a voice is loud.

    Lossless: x264 writes the same pictures differently from one run to the next, by up to nine levels, and a test on an
    edge would fall on both sides.
    """
    samples = 16_000 * frames // fps
    voice = spoken(path.parent, samples / 16_000, words)
    loud = np.sqrt((voice[: frames * (16_000 // fps)].reshape(frames, -1) ** 2).mean(1))
    scale, portrait = size / 450, astronaut()
    with VideoWriter(path, size, size, Fraction(fps), 16_000, 1, crf=0) as writer:
        for i in range(frames):
            x, y = scale * (12 * np.sin(i / 9) - 10), scale * 6 * np.sin(i / 5)
            move = np.array([[scale, 0, x], [0, scale, y]], np.float32)
            picture = cv2.warpAffine(portrait, move, (size, size), borderValue=(90, 90, 90))
            mouth = round(x + 228 * scale), round(y + 168 * scale)
            opening = round(scale * (2 + 22 * float(loud[i] / loud.max())))
            cv2.ellipse(picture, mouth, (round(18 * scale), opening), 0, 0, 360, (60, 20, 20), -1)
            writer.write(picture)
        writer.write_sound(voice[:, None])
    return path


def flashes(frames: int, seed: int = 0) -> np.ndarray:
    """Which frames flash: (frames,) bool, never two together, none near the ends."""
    lit = np.random.default_rng(seed).random(frames) < 0.3
    lit[1:] &= ~lit[:-1]
    lit[:8] = lit[-8:] = False
    return lit


def flash_clip(path: Path, frames: int = 100, late: int = 0, sound_s: float | None = None, seed: int = 0) -> Path:
    """White frames among dark ones, a click in the middle of each; `late` frames later; the sound may end elsewhere."""
    lit = flashes(frames, seed)
    seconds = frames / 25 if sound_s is None else sound_s
    moments = [(k + late + 0.5) / 25 for k in np.flatnonzero(lit) if 0 <= (k + late + 0.5) / 25 < seconds - 0.02]
    with VideoWriter(path, 64, 64, Fraction(25), 48_000, 1) as writer:
        for k in range(frames):
            writer.write(np.full((64, 64, 3), 230 if lit[k] else 20, np.uint8))
        writer.write_sound(clicks(seconds, moments)[:, None])
    return path


class FlashEvaluator:
    """Sees which of five frames are bright, hears in which of them is a click. Stands for eval.syncnet.Evaluator."""

    name, sha256, fast, size_px, unit = "syncnet-flash", "f" * 64, False, 112, False
    detector, engine = "mediapipe", "none"

    def __init__(self, *_: object) -> None:
        self.seen = self.heard = 0  # windows embedded

    def faces(self, crops: np.ndarray) -> np.ndarray:
        self.seen += len(crops) - 4
        bright = crops.mean((1, 2, 3)) > 125
        return _wide(np.lib.stride_tricks.sliding_window_view(bright, 5))

    def sound(self, mfcc: np.ndarray) -> np.ndarray:
        self.heard += len(mfcc)
        return _wide(mfcc[:, 1::4, 0] > 18)


def _wide(there: np.ndarray) -> np.ndarray:
    """(B, 5) bool -> embeddings (B, 1024): 1 or -1, and zeros."""
    return np.pad(np.where(there, 1, -1), ((0, 0), (0, 1019))).astype(np.float32)


@cache
def lab_evaluator() -> Evaluator:
    """The evaluator that is shipped, made once for all tests of a run."""
    return Evaluator("syncnet-lab")
