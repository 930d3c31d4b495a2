"""Makes the page's examples anew: `python -m scripts.make_examples`. The files in demo/assets are what it made.

The face is the public-domain portrait of an astronaut that scikit-image carries; the voices are spoken by espeak-ng.
"""

from __future__ import annotations

import math
import subprocess
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import soundfile
from skimage.data import astronaut

from lipsync.media.reader import VideoWriter

ASSETS = Path(__file__).parents[1] / "demo" / "assets"
SIDE_PX, SECONDS, FPS = 384, 5, 25
VOICES = {
    "voice-one.mp3": (
        "en-us+f3",
        "Good morning. I was only a portrait until today. Now I can read you the news, in any voice.",
    ),
    "voice-two.mp3": ("en-gb", "This voice was never recorded. A program spoke it, and the picture follows."),
}


def main() -> None:
    """Write the portrait, the moving portrait and the two voices."""
    picture = astronaut()
    cv2.imwrite(str(ASSETS / "portrait.jpg"), picture[:480, :480, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    with VideoWriter(ASSETS / "moving.mp4", SIDE_PX, SIDE_PX, Fraction(FPS), crf=27, preset="slow") as writer:
        for n in range(SECONDS * FPS):
            turn = 2 * math.pi * n / (SECONDS * FPS)
            side = 330 + 30 * math.cos(turn)
            x, y = 225 + 18 * math.sin(turn), 170 + 8 * math.sin(2 * turn)
            k = SIDE_PX / side
            move = np.array([[k, 0, SIDE_PX / 2 - k * x], [0, k, SIDE_PX / 2 - k * y]], np.float32)
            writer.write(cv2.warpAffine(picture, move, (SIDE_PX, SIDE_PX), borderMode=cv2.BORDER_REPLICATE))
    for name, (voice, words) in VOICES.items():
        raw = ASSETS / "spoken.wav"
        subprocess.run(
            ["espeak-ng", "-v", voice, "-s", "150", "-w", str(raw), "--stdin"], input=words.encode(), check=True
        )
        waveform, rate = soundfile.read(raw)
        raw.unlink()
        soundfile.write(ASSETS / name, waveform, rate)


if __name__ == "__main__":
    main()
