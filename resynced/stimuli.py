"""What a rater sees, derived once for all: nothing but the picture and the sound may tell two videos apart.

All videos of an item are made together: the same frames a second, length, size, codec, loudness (EBU R128, with a
limiter), stamp and number of bytes, real and gold clips included. Made videos are signed anew, with a manifest that
names no system; a real one is never signed as made, so whoever takes a file apart can still tell real from made, as the
law on labels wants it, but not which system made it.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pyloudnorm
from scipy import ndimage, signal

from lipsync.errors import InputError
from lipsync.label import manifest
from lipsync.label.stamp import Stamp
from lipsync.media.reader import Frame, FrameReader, VideoInfo, VideoWriter, probe, read_sound

from .ballots import LATE_S, Stimulus
from .studies import StudyError

FPS = Fraction(25)
HEIGHT_PX = 480
RATE = 48_000
LOUDNESS_LUFS = -23.0  # EBU R128
PEAK_DBTP = -1.0
LOOK_S = 0.005  # the limiter turns down so long before a peak, and up so long after
LEAST_S = 1.0
STAMP = "May be AI"  # true of every video of a study, and the same on all
WITHHELD = "withheld while the study runs"
INDEX = "stimuli.json"


@dataclass(frozen=True)
class Source:
    """One video as it was made, or as it was filmed.

    synthetic  a machine made the mouth: decides whether it is signed
    voice      sound to be heard instead of its own: other speech of the same speaker (the mismatching task)
    late_s     by which the sound comes late (gold items)
    """

    path: Path
    synthetic: bool
    voice: Path | None = None
    late_s: float = 0.0


def gold(source: Source) -> Source:
    """The same clip with its sound half a second late."""
    return Source(source.path, source.synthetic, source.voice, LATE_S)


def derive(sources: Mapping[Stimulus, Source], folder: Path, height_px: int = HEIGHT_PX) -> dict[Stimulus, Path]:
    """Make the videos of one item, each under a name that tells nothing, and note them in the folder's index.

    sources    every video of the item that anyone may see, gold and mismatched ones too
    height_px  of the result; the width is the first one's, others get grey bars where their shape differs
    returns    where each is
    Raises InputError where one cannot be read, is silent or shorter than a second, LabelError, StudyError.
    """
    if not sources:
        raise StudyError("There is nothing to derive: give the videos of an item.")
    if len({stimulus.item for stimulus in sources}) > 1:
        raise StudyError("Videos of several items: derive one item at a time, so that its videos are alike.")
    infos = {key: _probe(source) for key, source in sources.items()}
    sounds = {key: _sound(source) for key, source in sources.items()}
    seconds = min(min(i.frames / i.fps for i in infos.values()), *(Fraction(len(s), RATE) for s in sounds.values()))
    frames = int(seconds * FPS)
    if frames < LEAST_S * FPS:
        item = next(iter(sources)).item
        raise InputError(
            "The videos of {item} have {seconds:.2f} s in common: 1 is the least.", item=item, seconds=float(seconds)
        )
    first = next(iter(infos.values()))
    size = max(2, round(first.width * height_px / first.height / 2) * 2), height_px // 2 * 2
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".deriving-", dir=folder) as scratch:
        ready = {}
        for k, (key, source) in enumerate(sources.items()):
            plain = Path(scratch, f"{k}.mp4")
            _write(plain, infos[key], sounds[key], source.late_s, frames, size)
            ready[key] = plain
        _sign_alike(ready, sources, Path(scratch))
        found = {key: folder / f"{secrets.token_hex(16)}.mp4" for key in sources}
        for key, path in found.items():
            ready[key].replace(path)
    _note(folder, found)
    return found


def read_index(folder: Path) -> dict[Stimulus, Path]:
    """The derived videos of a folder. Raises StudyError where there are none."""
    try:
        rows = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise StudyError("{folder} has no videos for raters yet: derive them first.", folder=folder.name) from error
    return {Stimulus(r["system"], r["item"], r["variant"]): folder / Path(r["file"]).name for r in rows}


def level(sound: np.ndarray, rate: int = RATE) -> np.ndarray:
    """Bring sound to -23 LUFS with true peaks under -1 dB.

    sound    (S,) float32, -1..1
    returns  (S,) float32; silence, or less than 0.4 s, stays as it is
    """
    if len(sound) < 0.4 * rate:
        return sound
    loudness = pyloudnorm.Meter(rate).integrated_loudness(sound.astype(np.float64))
    if not np.isfinite(loudness):
        return sound
    louder = sound * 10 ** ((LOUDNESS_LUFS - loudness) / 20)
    # What a player's filter will make of it between the samples counts too, so peaks are looked for at four times
    # the rate.
    peaks = np.abs(signal.resample_poly(louder, 4, 1)).reshape(-1, 4).max(1)
    gain = np.minimum(1, 10 ** (PEAK_DBTP / 20) / np.maximum(np.maximum(peaks, np.abs(louder)), 1e-9))
    width = 2 * round(LOOK_S * rate) + 1
    gain = ndimage.uniform_filter1d(ndimage.minimum_filter1d(gain, width), width)
    return (louder * gain).astype(np.float32)


def _probe(source: Source) -> VideoInfo:
    info = probe(source.path)
    if not info.has_video or info.is_still:
        raise InputError("{file} is no video: raters are shown videos only.", file=source.path.name)
    return info


def _sound(source: Source) -> np.ndarray:
    """(S,) float32 at 48 kHz, -1..1."""
    sound, _ = read_sound(source.voice or source.path, RATE)
    if not np.abs(sound).max(initial=0) > 1e-4:
        raise InputError("{file} is silent: nobody can judge its lips.", file=(source.voice or source.path).name)
    return sound


def _write(out: Path, info: VideoInfo, sound: np.ndarray, late_s: float, frames: int, size: tuple[int, int]) -> None:
    stamp, samples = Stamp(*size, STAMP), round(frames / FPS * RATE)
    heard = np.concatenate([np.zeros(round(late_s * RATE), np.float32), level(sound[:samples])])[:samples]
    heard = np.pad(heard, (0, samples - len(heard)))
    with FrameReader(info) as reader, VideoWriter(out, *size, FPS, RATE, 2) as writer:
        shown, at = next(reader), 0
        for k in range(frames):
            wanted = min(int(k * info.fps / FPS), info.frames - 1)
            while at < wanted:
                shown, at = next(reader, shown), at + 1
            picture = _fit(shown, size)
            stamp.apply(picture)
            writer.write(picture)
        writer.write_sound(np.repeat(heard[:, None], 2, 1))


def _fit(frame: Frame, size: tuple[int, int]) -> Frame:
    """The frame in the given size (width, height), grey where its shape differs."""
    height, width = frame.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(frame, inner, interpolation=way)
    if inner == size:
        return small
    canvas = np.full((size[1], size[0], 3), 90, np.uint8)
    x, y = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas[y : y + inner[1], x : x + inner[0]] = small
    return canvas


def _sign_alike(ready: dict[Stimulus, Path], sources: Mapping[Stimulus, Source], scratch: Path) -> None:
    """Sign what is synthetic, and fill all up to the same number of bytes; `ready` then names the finished files.

    The filling lies before the signature is made, as it must not be changed after; how long a signature is, is found
    by making one.
    """
    signed = {}
    for k, (key, plain) in enumerate(ready.items()):
        if sources[key].synthetic:
            signed[key] = scratch / f"{k}-signed.mp4"
            manifest.sign(plain, signed[key], model=WITHHELD, checkpoint_sha256=WITHHELD)
    target = max(path.stat().st_size for path in [*ready.values(), *signed.values()]) + 4096
    for k, (key, plain) in enumerate(ready.items()):
        if key not in signed:
            _fill(plain, target - plain.stat().st_size)
            continue
        missing = target - signed[key].stat().st_size
        for attempt in range(4):  # a signature's time and random parts may differ by a byte or two
            filled, path = scratch / f"{k}-filled.mp4", scratch / f"{k}-{attempt}.mp4"
            filled.write_bytes(plain.read_bytes())
            _fill(filled, missing)
            manifest.sign(filled, path, model=WITHHELD, checkpoint_sha256=WITHHELD)
            ready[key] = path
            if path.stat().st_size == target:
                break
            missing += target - path.stat().st_size


def _fill(path: Path, size: int) -> None:
    """Add a `free` box of so many bytes (8 or more) to the end of an MP4: every player passes over it."""
    with path.open("ab") as file:
        file.write(size.to_bytes(4, "big") + b"free" + bytes(size - 8))


def _note(folder: Path, found: Mapping[Stimulus, Path]) -> None:
    try:
        known = read_index(folder)
    except StudyError:
        known = {}
    gone = [known[key] for key in found if key in known]
    rows = [
        {"system": key.system, "item": key.item, "variant": key.variant, "file": path.name}
        for key, path in sorted({**known, **found}.items(), key=lambda pair: pair[1].name)
    ]
    part = folder / f".{INDEX}.part"
    part.write_text(json.dumps(rows, indent=1))
    part.replace(folder / INDEX)
    for path in gone:
        path.unlink(missing_ok=True)
