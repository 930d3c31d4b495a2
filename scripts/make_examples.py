"""Makes the page's examples anew: `python -m scripts.make_examples`. The files in demo/assets are what it made.

Each example is NAME.mp4, NAME.mp3 and NAME.jpg: a face, a voice, a thumbnail. Faces and voices are of the starter set:
speakers of the GRID corpus (CC BY 4.0), re-encoded, cropped and put side by side here, with the voices of others.
result.mp4 is the first of them, made by the default model through the whole pipeline, with all its labels; README.md
shows six of its frames (docs/img/result.jpg).

What the tests take for a face that moves little lies in tests/data/page: the public-domain portrait of an astronaut
that scikit-image carries, and voices spoken by espeak-ng.
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

import lipsync
from lipsync.media.reader import FrameReader, VideoWriter, probe
from lipsync.options import Options

ROOT = Path(__file__).parents[1]
ASSETS, FOR_TESTS = ROOT / "demo" / "assets", ROOT / "tests" / "data" / "page"
SET = ROOT / "resynced" / "sets" / "starter"
# Name: the clips that it shows, side by side, the voice of somebody else, and the frame of its thumbnail.
EXAMPLES = {
    "talking": (["grid-s20"], "grid-s31-voice", 37),
    "closeup": (["grid-s31"], "tts-06-heart", 12),
    "two": (["grid-s34", "grid-s10"], "grid-s22-voice", 37),
}
CLOSE_UP = "closeup"  # is cropped around its face: sides of CLOSE_UP_FACES faces, enlarged to CLOSE_UP_PX
CLOSE_UP_FACES, CLOSE_UP_PX = 1.35, 480
THUMBNAIL_PX = 180  # high
STRIP = np.s_[14:50:6, 40:, 70:290]  # frames and part of the picture in README.md
SIDE_PX, SECONDS, FPS = 384, 5, 25
VOICES = {
    "voice-one.mp3": (
        "en-us+f3",
        "Good morning. I was only a portrait until today. Now I can read you the news, in any voice.",
    ),
    "voice-two.mp3": ("en-gb", "This voice was never recorded. A program spoke it, and the picture follows."),
}


def main() -> None:
    """Write the examples, the result of the first, and what the tests take."""
    for name, (clips, voice, thumbnail) in EXAMPLES.items():
        shown = [read_frames(SET / "clips" / f"{clip}.mp4") for clip in clips]
        if len(shown) > 1:  # the middle two thirds of each
            shown = [part[:, :, part.shape[2] // 6 : -part.shape[2] // 6] for part in shown]
        frames = np.concatenate(shown, axis=2)
        if name == CLOSE_UP:
            frames = close_up(frames, SET / "clips" / f"{clips[0]}.mp4")
        write_frames(ASSETS / f"{name}.mp4", frames)
        write_thumbnail(ASSETS / f"{name}.jpg", frames[thumbnail])
        waveform, rate = soundfile.read(SET / "voices" / f"{voice}.flac")
        soundfile.write(ASSETS / f"{name}.mp3", waveform, rate)
    first = next(iter(EXAMPLES))
    result = ASSETS / "result.mp4"
    print(lipsync.sync(ASSETS / f"{first}.mp4", ASSETS / f"{first}.mp3", result, Options(crf=20)).words())
    original, made = read_frames(ASSETS / f"{first}.mp4"), read_frames(result)
    write_jpeg(result.with_suffix(".jpg"), made[0])
    rows = [np.concatenate(list(frames[STRIP]), axis=1) for frames in (original, made)]
    write_jpeg(ROOT / "docs" / "img" / "result.jpg", np.concatenate(rows))
    make_for_tests()


def read_frames(path: Path) -> np.ndarray:
    """All frames of a short clip, (T, H, W, 3) uint8 RGB."""
    with FrameReader(probe(path)) as reader:
        return np.stack(list(reader))


def write_frames(path: Path, frames: np.ndarray) -> None:
    """A small file of these frames, (T, H, W, 3) uint8 RGB, without sound."""
    with VideoWriter(path, frames.shape[2], frames.shape[1], Fraction(FPS), crf=18, preset="slow") as writer:
        for frame in frames:
            writer.write(np.ascontiguousarray(frame))


def close_up(frames: np.ndarray, clip: Path) -> np.ndarray:
    """Frames cropped to the square around the clip's face, and enlarged to CLOSE_UP_PX."""
    x0, y0, x1, y1 = np.median(lipsync.find(clip).faces.tracks[0].boxes, axis=0)
    side = round(CLOSE_UP_FACES * max(x1 - x0, y1 - y0))
    left, top = (round((low + high - side) / 2) for low, high in ((x0, x1), (y0, y1)))
    left, top = (min(max(at, 0), most - side) for at, most in ((left, frames.shape[2]), (top, frames.shape[1])))
    size = (CLOSE_UP_PX, CLOSE_UP_PX)
    crops = frames[:, top : top + side, left : left + side]
    return np.stack([cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC) for crop in crops])


def write_thumbnail(path: Path, frame: np.ndarray) -> None:
    """A frame, (H, W, 3) uint8 RGB, as a small picture; the page cuts off what stands over."""
    scale = THUMBNAIL_PX / frame.shape[0]
    write_jpeg(path, cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def write_jpeg(path: Path, frame: np.ndarray) -> None:
    """A frame, (H, W, 3) uint8 RGB, as a picture."""
    cv2.imwrite(str(path), frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def make_for_tests() -> None:
    """Write the portrait, the moving portrait and the two voices of the tests."""
    picture = astronaut()
    cv2.imwrite(str(FOR_TESTS / "portrait.jpg"), picture[:480, :480, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    with VideoWriter(FOR_TESTS / "moving.mp4", SIDE_PX, SIDE_PX, Fraction(FPS), crf=27, preset="slow") as writer:
        for n in range(SECONDS * FPS):
            turn = 2 * math.pi * n / (SECONDS * FPS)
            side = 330 + 30 * math.cos(turn)
            x, y = 225 + 18 * math.sin(turn), 170 + 8 * math.sin(2 * turn)
            k = SIDE_PX / side
            move = np.array([[k, 0, SIDE_PX / 2 - k * x], [0, k, SIDE_PX / 2 - k * y]], np.float32)
            writer.write(cv2.warpAffine(picture, move, (SIDE_PX, SIDE_PX), borderMode=cv2.BORDER_REPLICATE))
    for name, (voice, words) in VOICES.items():
        raw = FOR_TESTS / "spoken.wav"
        subprocess.run(
            ["espeak-ng", "-v", voice, "-s", "150", "-w", str(raw), "--stdin"], input=words.encode(), check=True
        )
        waveform, rate = soundfile.read(raw)
        raw.unlink()
        soundfile.write(FOR_TESTS / name, waveform, rate)


if __name__ == "__main__":
    main()
