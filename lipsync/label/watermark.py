"""The invisible part of the label: a keyed watermark in luma that outlives the file's metadata.

What is embedded. A square pattern of PERIOD × PERIOD chips of +1 and -1, drawn from the installation's key, repeats
over the picture. A third of the chips are the same in every film and searched for, two thirds carry 16 payload bits.
The same grey value is added to R, G and B, which changes luma alone: little where the picture is smooth, more where
texture hides it. It stands still within a shot, so that it outlives other frame rates, and lies elsewhere in the next,
by a secret distance, so that an average over shots holds nothing.

How it is found. Frames of one shot are averaged, brought to each size and angle that is tried, and correlated with the
pattern at every displacement by one Fourier transform. To a film without the mark a key is random signs, so that the
chance of a score is that of a normal deviate, times all that was tried: a bound for any film (`Found.chance`).

KEYS/watermark/       beside the signing keys (keys.py)
  own.key               32 secret bytes in hexadecimal, made at first use, 0600
  DATE.key              former keys of this installation, whose films are still recognised
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import itertools
import math
import os
import secrets
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np
from scipy.fft import irfft2, rfft2

from ..errors import InputError, LabelError
from ..media.reader import Frame, FrameReader, VideoInfo, probe
from .keys import keys_dir

PERIOD = 128  # chips
LEAST_PX = 128  # a picture with a shorter side is too small to hold a mark, and passes unchanged
WORD = 128  # chips of a code word: 8 bits as one of 128 Hadamard rows, or its negative
EPOCH = date(2026, 1, 1)
DAYS = 1 << 12

UNITS = 16  # fractions of a grey level, by which strength is reckoned
WEAKEST, STRONGEST = 0.6, 3.2  # grey levels, in a picture of PERIOD × PERIOD chips
GAIN = 0.4  # grey levels added for one of texture

STRIP = 64  # rows
DITHER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.uint8)

SAMPLES = 48  # frames looked at
SPOTS = 8  # places in the film from which they are taken
READ_S = 20.0  # what was read until then is looked at
READ_BYTES = 1 << 30  # so are, of large pictures, fewer
CUT = 12.0  # mean change in grey levels between two frames, of small pictures, from which on they are of two shots
MOST_SHOTS = 4  # are searched, those of which most frames were seen; turned, the first alone
MOST_KEYS = 8  # are asked
WORK_PX = 540  # shorter side at which a picture is searched
SIZES = 0.4, 1.6  # chips that are searched for, in units of 4 pixels
COMMON_SIZES = (
    1 / 2,
    2 / 3,
    3 / 4,
    1,
    9 / 8,
)  # of these, to the digit: what whole and halved films of common heights have
TURNED_SIZES, TURNED = (0.75, 1.3), math.radians(3.3)  # then, turned either way
LEVEL = 1.15  # ratio of sizes for which a picture is evened out only once
STEP = 5.0  # pixels of 4 a chip, between neighbouring sizes, at the edges
REFINED = 5  # matches beside which more is tried
FINALISTS = 8  # of which the payload is read
CHANCE = 1e-6  # a mark is said to be there where fewer films without one would show as much
TIGHT = (
    3.18  # a weighted sum of random signs is large at most so many times as often as a normal deviate (Bentkus 2015)
)


# Keys -----------------------------------------------------------------------------------------------------------


def own_key() -> bytes:
    """The key with which films are marked here, 32 bytes, made at first use. Raises LabelError.

    Safe when several processes come first at once: one wins, all use its key.
    """
    path = keys_dir() / "watermark" / "own.key"
    if not path.is_file():
        try:
            for folder in (path.parent.parent, path.parent):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                folder.chmod(0o700)
            descriptor, fresh = tempfile.mkstemp(prefix=".own-", dir=path.parent)  # 0600
            try:
                with open(descriptor, "w") as file:
                    file.write(secrets.token_hex(32) + "\n")
                with contextlib.suppress(FileExistsError):  # another process was first
                    os.link(fresh, path)
            finally:
                os.unlink(fresh)
        except OSError as error:
            raise LabelError(
                "No watermark key can be made in {parent} ({error}): set LIPSYNC_KEYS to a folder of yours.",
                parent=path.parent,
                error=error.strerror,
            ) from error
    return _read_key(path)


def known_keys() -> list[bytes]:
    """This installation's keys, the one in use first, then former ones by name, the last first, MOST_KEYS in all.

    Makes none. Raises LabelError.
    """
    folder = keys_dir() / "watermark"
    former = sorted(p for p in folder.glob("[!.]*.key") if p.name != "own.key")[::-1]
    return [_read_key(p) for p in [folder / "own.key", *former][:MOST_KEYS] if p.exists()]


def _read_key(path: Path) -> bytes:
    try:
        if os.name == "posix" and path.stat().st_mode & stat.S_IRWXO:
            raise LabelError(
                "Everyone on this machine can read the watermark key {path}: run chmod o= on it first.", path=path
            )
        key = bytes.fromhex(path.read_text("ascii"))
    except OSError as error:
        raise LabelError(
            "The watermark key {path} cannot be read: {error}.", path=path, error=error.strerror
        ) from error
    except ValueError:
        key = b""
    if len(key) != 32:
        raise LabelError(
            "{path} is no watermark key (64 hexadecimal digits): put it back from a copy, or remove it.", path=path
        )
    return key


def _stream(key: bytes, purpose: str, count: int) -> bytes:
    """Bytes that only the holder of the key can foretell; the same on every machine and in every version."""
    return hashlib.shake_256(hmac.digest(key, purpose.encode(), "sha256")).digest(count)


# The pattern ----------------------------------------------------------------------------------------------------


@lru_cache(1)
def _hadamard() -> np.ndarray:
    """(WORD, WORD) float32 of +1 and -1, rows orthogonal."""
    rows = np.ones((1, 1), np.float32)
    while len(rows) < WORD:
        rows = np.block([[rows, rows], [rows, -rows]])
    return rows


class Pattern:
    """The chips of one key. All arrays are (PERIOD, PERIOD)."""

    def __init__(self, key: bytes) -> None:
        count = PERIOD * PERIOD
        bits = np.unpackbits(np.frombuffer(_stream(key, "signs", count // 8), np.uint8))
        self.signs = (bits.astype(np.float32) * 2 - 1).reshape(PERIOD, PERIOD)
        order = np.frombuffer(_stream(key, "places", count * 8), "<u8").argsort(kind="stable").reshape(PERIOD, PERIOD)
        self.part = order % 3  # 0: searched for; 1, 2: the two code words
        self.place = order // 3 % WORD  # which chip of its code word
        self.where = (self.part * WORD + self.place).ravel()
        self.installation = _stream(key, "installation", 1)[0] >> 4

    def chips(self, payload: int) -> np.ndarray:
        """float32 +1 and -1, with 16 bits written into them."""
        words = np.stack([np.ones(WORD, np.float32), _word(payload >> 8), _word(payload & 255)])
        return self.signs * words[self.part, self.place]

    def payload(self, day: date) -> int:
        """4 bits of the installation, then 12 of the day, counted from EPOCH and begun again after eleven years."""
        return self.installation << 12 | (day - EPOCH).days % DAYS

    @cached_property
    def search(self) -> np.ndarray:
        """Spectrum of the chips that are searched for, at two samples a chip, conjugated."""
        return np.conj(rfft2(np.kron(self.signs * (self.part == 0), np.ones((2, 2), np.float32))))


def _word(value: int) -> np.ndarray:
    """(WORD,) +1 and -1, the code word of 8 bits."""
    return _hadamard()[value & 127] * (1 - 2 * (value >> 7))


# Embedding ------------------------------------------------------------------------------------------------------


class Watermark:
    """The mark of one film.

    width, height  of its frames, pixels
    key            None: this installation's; day: that the payload tells, None: today

    Raises LabelError where a key must be made and cannot.
    """

    def __init__(self, width: int, height: int, key: bytes | None = None, day: date | None = None) -> None:
        self._key = own_key() if key is None else key
        pattern = Pattern(self._key)
        self._chips = pattern.chips(pattern.payload(day or datetime.now(UTC).date()))
        self._step = step = chip_px(width, height) // 2  # pixels between samples: two to a chip
        self._shape, self._size = (-(-height // step), -(-width // step)), (height, width)
        self._shots: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._strengths = strengths(width, height)
        rows, columns = self._shape[0] * step, self._shape[1] * step
        self._levels, self._dither = (
            np.empty((rows, columns), np.uint8),
            np.tile(DITHER, (STRIP // 4, -(-columns // 4))),
        )
        self._part, self._rgb = np.empty((STRIP, width), np.uint8), np.empty((STRIP, width, 3), np.uint8)

    def apply(self, frame: Frame, shot: int = 0) -> None:
        """Add the mark to a (height, width, 3) uint8 RGB frame, in place.

        shot  which of the film's: where its pattern lies is settled by the first frame of it that comes here
        """
        if min(self._size) < LEAST_PX:
            return
        step = self._step
        seen = frame[step // 2 :: step, step // 2 :: step, 1].copy()  # green is most of luma
        if seen.shape != self._shape:  # the last sample may lie outside
            seen = np.pad(seen, [(0, a - b) for a, b in zip(self._shape, seen.shape, strict=True)], "edge")
        if shot not in self._shots:
            self._shots[shot] = self._placed(seen)
        negative, zero = self._shots[shot]
        coarse = (cv2.LUT(texture(seen), self._strengths) ^ negative) + zero  # 128 + or - strength, in uint8
        cv2.resize(coarse, self._levels.shape[::-1], dst=self._levels)
        levels = self._levels[: self._size[0], : self._size[1]]
        for top in range(0, len(frame), STRIP):  # what a processor keeps at hand
            self._add(frame[top : top + STRIP], levels[top : top + STRIP])

    def _add(self, strip: Frame, levels: np.ndarray) -> None:
        """Add levels (0 is at 128, UNITS to a grey level) to a strip of a frame, in place."""
        rows, columns = levels.shape
        more, rgb = self._part[:rows], self._rgb[:rows]
        whole = cv2.add(levels, self._dither[:rows, :columns])  # a fraction of a level becomes a share of the pixels
        whole = np.right_shift(whole, 4, out=whole)
        zero = 128 // UNITS
        cv2.add(strip, cv2.cvtColor(cv2.subtract(whole, zero, dst=more), cv2.COLOR_GRAY2RGB, dst=rgb), dst=strip)
        cv2.subtract(strip, cv2.cvtColor(cv2.subtract(zero, whole, dst=more), cv2.COLOR_GRAY2RGB, dst=rgb), dst=strip)

    def _placed(self, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pattern of a shot, moved as its first picture says: 255 where negative, and what 0 is there, in uint8."""
        down, across = hmac.digest(self._key, b"shot" + seen.tobytes(), "sha256")[:2]
        chips = np.roll(self._chips, (down, across), (0, 1))
        rows, columns = self._shape
        chips = np.kron(chips, np.ones((2, 2), np.int8))
        chips = np.tile(chips, (-(-rows // len(chips)), -(-columns // len(chips))))[:rows, :columns]
        return np.where(chips < 0, 255, 0).astype(np.uint8), np.where(chips < 0, 129, 128).astype(np.uint8)


def chip_px(width: int, height: int) -> int:
    """Side of a chip, pixels, even: a 135th of the shorter side, since large pictures are made small on their way."""
    return max(4, 2 * round(min(width, height) / 270))


def texture(luma: np.ndarray) -> np.ndarray:
    """How much detail lies around each sample, as 16 times the mean root of grey levels: uint8 in, uint8 out.

    The mean of roots, since a lone edge hides nothing beside it; a gradient counts for nothing.
    """
    roots = np.rint(16 * np.sqrt(np.arange(256))).clip(0, 255).astype(np.uint8)
    return cv2.blur(cv2.LUT(cv2.absdiff(luma, cv2.blur(luma, (3, 3))), roots), (7, 7))


def strengths(width: int, height: int) -> np.ndarray:
    """(256,) uint8, strength of the mark for each value of `texture`, in UNITS of a grey level.

    A picture of many chips needs less, since what is found grows with the root of their number, and shows it more.
    """
    chips = math.sqrt(width * height) / chip_px(width, height)
    share = min((PERIOD / chips) ** 1.5, 1.4)
    levels = WEAKEST + GAIN * (np.arange(256) / 16) ** 2
    return np.rint(UNITS * np.minimum(levels, STRONGEST) * share).clip(0, 127).astype(np.uint8)


# Finding --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """The best match of a search, whether or not it is a mark."""

    chance: float  # 0..1; of films without the mark, at most this share would show as much
    score: float  # standard deviations
    key: int  # which of the keys that were tried
    payload: int  # 16 bits
    scale: float  # size of a chip, in units of 4 pixels of a picture of WORK_PX
    angle: float  # degrees

    @property
    def day(self) -> date:
        """When the mark was made: of the days that the payload may mean, the last that is not to come."""
        latest = (datetime.now(UTC).date() - EPOCH).days + 1  # clocks differ
        past = (latest - self.payload % DAYS) // DAYS
        return EPOCH + timedelta(days=self.payload % DAYS + max(past, 0) * DAYS)


def find(path: str | Path) -> Found | None:
    """The mark of this installation in a video or picture, by any of its keys; None where none is seen.

    The file is decoded in the child of reader.py; at most SAMPLES frames are looked at, and reading ends after READ_S.
    None too where there is no picture to look at. Raises LabelError where a key cannot be read.
    """
    keys = known_keys()
    if not keys:
        return None
    try:
        info = probe(path)
        best = match(shots(info), keys) if info.has_video else None
    except InputError:
        return None
    return best if best is not None and best.chance <= CHANCE else None


def shots(info: VideoInfo) -> list[np.ndarray]:
    """Mean luma of the sampled frames between cuts, (h, w) float32, shorter side WORK_PX or less; the longest first."""
    totals: list[np.ndarray] = []
    counts: list[int] = []
    before = np.zeros(0)
    with FrameReader(info, None if info.is_still else spots(info)) as reader:
        timer = threading.Timer(READ_S, reader.close)
        timer.daemon = True
        timer.start()
        try:
            for frame in reader:
                luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
                shrink = WORK_PX / min(luma.shape)
                if shrink < 1:
                    size = max(round(luma.shape[1] * shrink), 1), max(round(luma.shape[0] * shrink), 1)
                    luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
                tiny = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
                if not totals or np.abs(tiny - before).mean() > CUT:
                    totals.append(np.zeros(luma.shape, np.float32))
                    counts.append(0)
                cv2.accumulate(luma, totals[-1])
                counts[-1] += 1
                before = tiny
        finally:
            timer.cancel()
    longest = sorted(range(len(totals)), key=lambda n: -counts[n])[:MOST_SHOTS]
    return [totals[n] / counts[n] for n in longest]


def spots(info: VideoInfo) -> list[tuple[int, int]]:
    """Which frames are looked at, as runs of one: all of a short film, else a few together at each of SPOTS places."""
    most = int(np.clip(READ_BYTES // (info.width * info.height * 3), SPOTS, SAMPLES))
    together = most // SPOTS
    step = max(1, min(info.frames // most, round(info.fps / 4)))
    if info.frames <= most:
        wanted = np.arange(max(info.frames, 1))
    else:
        places = (np.arange(SPOTS) + 0.5) * info.frames / SPOTS - together * step / 2
        wanted = np.unique((places[:, None] + np.arange(together) * step).astype(int).clip(0, info.frames - 1))
    return [(int(n), int(n) + 1) for n in wanted]


def match(pictures: Sequence[np.ndarray], keys: Sequence[bytes]) -> Found | None:
    """The best match of any key in any picture (luma, from `shots`), at every size; then the first's at every angle."""
    pictures = [p for p in pictures if min(p.shape) >= LEAST_PX // 4]
    if not pictures or not keys:
        return None
    patterns = [Pattern(key) for key in keys]
    tries, best = 0, None
    for angled in (False, True):
        finalists: list[_Match] = []
        for number, picture in enumerate(pictures[:1] if angled else pictures):
            tall, wide = picture.shape
            places = list(_places(wide, tall, angled))
            tries += len(places)
            finalists += _search(picture, number, patterns, places)
        for near in sorted(finalists, reverse=True)[:REFINED]:
            picture = pictures[near.picture]
            places = list(_around(near, max(picture.shape), angled))
            tries += len(places)
            finalists += _search(picture, near.picture, [patterns[near.key]], places, near.key)
        for one in sorted(finalists, reverse=True)[:FINALISTS]:
            score, payload = _read(one.spectrum, patterns[one.key], one.at)
            if best is None or score > best.score:
                best = Found(1.0, score, one.key, payload, one.scale, math.degrees(one.angle))
        hypotheses = tries * (4 * PERIOD) ** 2 * len(keys) * DAYS
        best = replace(best, chance=min(1.0, TIGHT * hypotheses * math.erfc(best.score / math.sqrt(2)) / 2))
        if best.chance <= CHANCE:
            break
    return best


@dataclass(frozen=True, order=True)
class _Match:
    """Where the chips that are searched for match best, at one place."""

    score: float
    picture: int
    key: int
    scale: float
    angle: float  # radians
    at: int  # displacement, flat
    spectrum: np.ndarray = field(compare=False)


def _places(width: int, height: int, angled: bool) -> Iterator[tuple[float, float]]:
    """Sizes of a chip (in units of 4 pixels) and angles (radians), so dense that no edge is off by half a chip."""
    (least, most), turned = (TURNED_SIZES, TURNED) if angled else (SIZES, 0.0)
    if not angled:
        yield from ((scale, 0.0) for scale in COMMON_SIZES)
    scale = least
    while scale < most:
        step = STEP * scale / max(width, height)
        turns = int(turned / step)
        yield from ((scale, n * step) for n in range(-turns, turns + 1) if n or not angled)
        scale *= 1 + step


def _around(near: _Match, side: int, angled: bool) -> Iterator[tuple[float, float]]:
    """Places between those of `_places`, beside a good one."""
    step = STEP * near.scale / side
    for part in (-0.5, -0.25, 0, 0.25, 0.5):
        for turn in (-0.5, -0.25, 0, 0.25, 0.5) if angled else (0,):
            if part or turn:
                yield near.scale * (1 + part * step), near.angle + turn * step


def _search(
    picture: np.ndarray,
    number: int,
    patterns: Sequence[Pattern],
    places: Sequence[tuple[float, float]],
    first_key: int = 0,
) -> list[_Match]:
    """The best matches in one picture, the best first."""
    best: list[_Match] = []
    level, flat = 0.0, picture
    for scale, angle in places:
        if not level <= scale < level * LEVEL:
            level, flat = scale, _flat(picture, 1 / (2 * scale))
        spectrum = rfft2(_folded(_turned(flat, level / scale, angle)))
        size = np.sqrt(np.abs(spectrum))
        spectrum /= size * np.sqrt(size) + 1e-6  # most of its colour taken out
        for key, pattern in enumerate(patterns, first_key):
            surface = irfft2(spectrum * pattern.search)
            at = int(surface.argmax())
            score = float(surface.flat[at] / (surface.std() + 1e-9))
            if len(best) < FINALISTS or score > best[-1].score:
                best = sorted([*best, _Match(score, number, key, scale, angle, at, spectrum)], reverse=True)[:FINALISTS]
    return best


def _flat(luma: np.ndarray, scale: float) -> np.ndarray:
    """What may hold the mark, at two samples a chip: luma without what is coarser, evened out, cut at twice its spread.

    scale  of the picture
    """
    size = max(round(luma.shape[1] * scale), 1), max(round(luma.shape[0] * scale), 1)
    luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    fine = luma - cv2.GaussianBlur(luma, (0, 0), 2)
    spread = np.sqrt(np.maximum(cv2.blur(fine * fine, (9, 9)), 0)) + 0.3
    return np.clip(fine / spread, -2, 2)


def _turned(flat: np.ndarray, scale: float, angle: float) -> np.ndarray:
    """A picture made smaller or larger and turned about its middle."""
    height, width = flat.shape
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    x, y, u, v = (width - 1) / 2, (height - 1) / 2, (size[0] - 1) / 2, (size[1] - 1) / 2
    move = np.array([[cos, -sin, u - cos * x + sin * y], [sin, cos, v - sin * x - cos * y]])
    return cv2.warpAffine(flat, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _folded(flat: np.ndarray) -> np.ndarray:
    """Periods of the pattern laid on one another: (2 PERIOD, 2 PERIOD) float32."""
    side = 2 * PERIOD
    rows, columns = (-(-n // side) for n in flat.shape)
    whole = np.zeros((rows * side, columns * side), np.float32)
    whole[: flat.shape[0], : flat.shape[1]] = flat
    return whole.reshape(rows, side, columns, side).sum((0, 2))


def _read(spectrum: np.ndarray, pattern: Pattern, at: int) -> tuple[float, int]:
    """(score of all chips with the likeliest payload of this installation, payload) near a displacement."""
    side = 2 * PERIOD
    down, across = 2j * np.pi * np.fft.fftfreq(side), 2j * np.pi * np.fft.rfftfreq(side)
    words = np.concatenate([_hadamard(), -_hadamard()])
    best = (-1.0, 0)
    for y, x in itertools.product((-0.5, 0, 0.5), repeat=2):
        turns = np.outer(np.exp((at // side + y) * down), np.exp((at % side + x) * across))
        moved = spectrum * turns.astype(np.complex64)
        chips = irfft2(moved).reshape(PERIOD, 2, PERIOD, 2).sum((1, 3))
        sums = np.bincount(pattern.where, (chips * pattern.signs).ravel(), 3 * WORD)
        sums = sums.reshape(3, WORD)
        high, low = (words @ sums[1])[pattern.installation << 4 :][:16], words @ sums[2]
        score = (sums[0].sum() + high.max() + low.max()) / (np.sqrt((chips * chips).sum()) + 1e-9)
        best = max(best, (float(score), pattern.installation << 12 | int(high.argmax()) << 8 | int(low.argmax())))
    return best
