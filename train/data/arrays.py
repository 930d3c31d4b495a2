"""Arrays in, batches out: where clips lie, which sound belongs to a frame, and the augmentation of both.

A batch is a function of (seed, rank, step) alone: there is no sampler state to save, and a resumed run sees what an
uninterrupted one would. Augmentation works on what is cheap: one affine warp cuts, shifts, turns, scales and mirrors a
uint8 crop, one table changes its colours, and the sound is changed as mel.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from lipsync.geometry import CropRule, alignment_of, depths, same_face, sampling

from ..config import TrainingError
from .shards import FEATURES, FPS, SIZE_PX, VIEW

MEL_AHEAD = FEATURES["mel"].ahead  # columns before the first frame
FACE_PX = 96
COLUMNS = 16  # of a window
SILENCE = np.float32(-4)
EVALUATOR_VIEW = (-0.7, -0.5, 0.7, 0.9)  # SyncNet's crop in box sides: left, top, right, bottom


@dataclass(frozen=True)
class Clip:
    """Where a clip lies in its arrays; `offset`: frames by which its sound must be read later to be in sync."""

    key: str
    speaker: str
    group: str
    first: int
    frames: int
    features: dict[str, tuple[int, int]]  # name: first row, rows
    offset: float = 0  # a multiple of a quarter


@dataclass
class Arrays:
    """The arrays of one or more splits, mapped into memory."""

    clips: list[Clip]
    parts: list[dict[str, np.ndarray]]  # one a split; a clip knows its own through `part_of`
    part_of: list[int]
    speakers: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.speakers = {}
        for i, clip in enumerate(self.clips):
            self.speakers.setdefault(clip.speaker, []).append(i)

    def only(self, wanted: Callable[[Clip], bool]) -> Arrays:
        """The clips of which `wanted` is true."""
        picked = [i for i, clip in enumerate(self.clips) if wanted(clip)]
        return Arrays([self.clips[i] for i in picked], self.parts, [self.part_of[i] for i in picked])

    def frames(self, i: int) -> np.ndarray:
        """(T, 160, 160, 3) uint8 RGB of clip i."""
        clip = self.clips[i]
        return self.parts[self.part_of[i]]["frames"][clip.first : clip.first + clip.frames]

    def landmarks(self, i: int) -> np.ndarray:
        """(T, 29, 2) float32, pixels of the stored crop."""
        clip = self.clips[i]
        return self.parts[self.part_of[i]]["points"][clip.first : clip.first + clip.frames].astype(np.float32)

    def speech(self, i: int) -> np.ndarray:
        """(T,) bool: frames with speech-level sound."""
        clip = self.clips[i]
        return self.parts[self.part_of[i]]["speech"][clip.first : clip.first + clip.frames]

    def mel(self, i: int, gated: bool = False) -> np.ndarray:
        """(M, 80) float32; column MEL_AHEAD is the moment of frame 0, the offset taken into account by `column`.

        gated  silence between the words, as LipSyncModel.audio_features gives it
        """
        mel = self.feature(i, "mel")
        if gated:
            speech = self.speech(i)
            frame = ((np.arange(len(mel)) - MEL_AHEAD) * FPS // 80).clip(0, len(speech) - 1)
            mel[~speech[frame]] = SILENCE
        return mel

    def feature(self, i: int, name: str) -> np.ndarray:
        """(T, C) float32 of clip i; row FEATURES[name].ahead is the moment of frame 0."""
        first, rows = self.clips[i].features[name]
        return FEATURES[name].plain(self.parts[self.part_of[i]][name][first : first + rows])

    def mfcc(self, i: int) -> np.ndarray:
        """(K, 13) float32, SyncNet's; row 20 is the moment of frame 0."""
        return self.feature(i, "mfcc")


def open_arrays(
    folder: Path, splits: list[str], drop: Set[str] = frozenset(), offsets: dict[str, float] | None = None
) -> Arrays:
    """Map the arrays of some splits.

    drop     keys of clips to leave out
    offsets  frames by key: overrides the stored offset

    Raises TrainingError where a split is not there.
    """
    clips, parts, part_of = [], [], []
    offsets = offsets or {}
    for split in splits:
        if not (folder / split / "clips.json").exists():
            there = ", ".join(sorted(p.parent.name for p in folder.glob("*/clips.json"))) or "none"
            raise TrainingError(
                f"{folder} has no arrays of the split {split!r} (it has: {there}). They come from `python -m train "
                f"unpack`; the split of a clip is said in the manifest, or drawn by `preprocess` from a folder."
            )
        rows = json.loads((folder / split / "clips.json").read_text())
        names = ("frames", *FEATURES, "points", "speech")
        parts.append({n: np.load(folder / split / f"{n}.npy", mmap_mode="r") for n in names})
        for row in rows:
            if row["key"] in drop:
                continue
            row["offset"] = offsets.get(row["key"], row["offset"])
            clips.append(Clip(**{name: row[name] for name in Clip.__dataclass_fields__}))
            part_of.append(len(parts) - 1)
    return Arrays(clips, parts, part_of)


# --- pictures ------------------------------------------------------------------------------------------------


def view_region(rule: CropRule, size_px: int = SIZE_PX) -> np.ndarray:
    """A rule's crop in pixels of a stored crop: (4,) x0 y0 x1 y1."""
    return _in_view(rule.offsets.astype(np.float64), size_px)


def face_region(size_px: int = SIZE_PX) -> np.ndarray:
    """The networks' crop (geometry.CropRule's default) in pixels of a stored crop: (4,) x0 y0 x1 y1."""
    return view_region(CropRule(), size_px)


def evaluator_region(size_px: int = SIZE_PX) -> np.ndarray:
    """The evaluator's crop: SyncNet's wide square (protocol.md section 5, item 4) around the same box."""
    return _in_view(np.array(EVALUATOR_VIEW), size_px)


def _in_view(region: np.ndarray, size_px: int) -> np.ndarray:
    left, top, right, _ = VIEW
    return (region - [left, top, left, top]) * (size_px / (right - left))


@dataclass(frozen=True)
class Augmentation:
    """One draw of how a picture is changed; the same for all frames of a window, so that nothing flickers.

    matrix  (2, 3): output pixel -> pixel of the stored crop
    table   (256, 1, 3) uint8 or None: colours
    blur    sigma in output pixels, 0: none
    noise   standard deviation, levels
    patch   x0 y0 x1 y1 in output pixels, filled with grey, or None
    bend    (96, 96, 2) float32 or None: pixels of the stored crop by which each place is moved, which makes other faces
    """

    matrix: np.ndarray
    table: np.ndarray | None = None
    blur: float = 0.0
    noise: float = 0.0
    patch: tuple[int, int, int, int] | None = None
    bend: np.ndarray | None = None

    def moved(self, shift: np.ndarray) -> Augmentation:
        """The same look, cut `shift` pixels of the stored crop away."""
        return replace(self, matrix=self.matrix + np.array([[0, 0, shift[0]], [0, 0, shift[1]]]))

    def onto(self, landmarks: np.ndarray, others: np.ndarray, slide: np.ndarray | float = 0.0) -> Augmentation:
        """The same look of another frame, whose face is brought onto this one's as the engine brings a reference.

        landmarks, others  (29, 2) of this frame and of the other, pixels of the stored crop; slide (2,): how far the
        head has turned beside that, pixels of depth 1 (geometry.same_face)
        """
        alignment = alignment_of(self.matrix, FACE_PX)
        there, own = same_face(alignment, landmarks, alignment, others)
        bend = depths(alignment, landmarks, FACE_PX)[..., None] * (own + slide).astype(np.float32)
        return replace(
            self,
            matrix=sampling(there, FACE_PX),
            bend=bend if self.bend is None else (self.bend + bend).astype(np.float32),
        )

    def place(self, point: np.ndarray) -> np.ndarray:
        """Where a point (x, y) of the stored crop comes to lie in the output, the bend left aside."""
        return np.linalg.solve(self.matrix[:, :2], point - self.matrix[:, 2])

    def __call__(self, frame: np.ndarray, noise_rng: np.random.Generator | None = None) -> np.ndarray:
        """(160, 160, 3) uint8 -> (96, 96, 3) uint8."""
        if self.bend is None:
            out = cv2.warpAffine(
                frame,
                self.matrix,
                (FACE_PX, FACE_PX),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
        else:
            where = (_GRID @ self.matrix[:, :2].T + self.matrix[:, 2]).astype(np.float32) + self.bend
            out = cv2.remap(frame, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return self.coloured(out, noise_rng)

    def coloured(self, picture: np.ndarray, noise_rng: np.random.Generator | None = None) -> np.ndarray:
        """Colours, blur, noise and patch alone, on a picture of any size; may change it in place."""
        out = picture
        if self.table is not None:
            out = cv2.LUT(out, self.table)
        if self.blur:
            out = cv2.GaussianBlur(out, (0, 0), self.blur)
        if self.noise and noise_rng is not None:
            start = int(noise_rng.integers(0, len(_NOISE) - out.size))
            grain = _NOISE[start : start + out.size].reshape(out.shape) * np.float32(self.noise)
            out = np.clip(out + grain, 0, 255).astype(np.uint8)
        if self.patch is not None:
            x0, y0, x1, y1 = self.patch
            out[y0:y1, x0:x1] = 128
        return out


_GRID = np.stack(np.meshgrid(np.arange(FACE_PX), np.arange(FACE_PX)), 2).astype(np.float64)
_NOISE = np.random.default_rng(0).standard_normal(1 << 18).astype(np.float32)


def no_augmentation() -> Augmentation:
    """The crop as at inference."""
    return Augmentation(_matrix(face_region()))


def draw_augmentation(
    rng: np.random.Generator, strength: float = 1.0, mirror: bool = True, patches: bool = True, degrade: bool = True
) -> Augmentation:
    """A random look. strength 0 changes nothing but the mirror; 1 is what experts learn with.

    patches, degrade  grey patches; blur and noise: not for generators, which would learn to make them
    """
    region = face_region()
    angle = np.deg2rad(rng.normal(0, 4.0 * strength))
    scale = np.exp(rng.normal(0, 0.05 * strength, 2) + rng.normal(0, 0.04 * strength))
    shift = rng.normal(0, 3.0 * strength, 2)
    matrix = _matrix(region, angle, scale, shift, flip=mirror and rng.random() < 0.5)
    table = None
    if rng.random() < 0.9 * strength:
        levels = np.arange(256, dtype=np.float32)[:, None] / 255
        gamma = np.exp(rng.normal(0, 0.25 * strength))
        gain = np.exp(rng.normal(0, 0.15 * strength) + rng.normal(0, 0.07 * strength, 3))
        curve = (levels**gamma * gain + rng.normal(0, 0.05 * strength)) * 255
        if rng.random() < 0.1:
            curve = curve[:, rng.permutation(3)]
        table = np.clip(curve, 0, 255).astype(np.uint8)[:, None]
    blur = float(rng.uniform(0.3, 1.3)) if degrade and rng.random() < 0.25 * strength else 0.0
    noise = float(rng.uniform(1, 8)) if degrade and rng.random() < 0.3 * strength else 0.0
    patch = None
    if patches and rng.random() < 0.3 * strength:  # beside the mouth: cheeks and chin decide less then
        x, y = rng.integers(0, 96), rng.integers(48, 96)
        w, h = rng.integers(8, 28, 2)
        box = (int(max(x - w // 2, 0)), int(max(y - h // 2, 0)), int(min(x + w // 2, 96)), int(min(y + h // 2, 96)))
        if box[2] <= 30 or box[0] >= 66 or box[1] >= 86:
            patch = box
    bend = None
    if rng.random() < 0.6 * strength:
        coarse = rng.normal(0, 2.0 * strength, (5, 5, 2)).astype(np.float32)
        bend = cv2.resize(coarse, (FACE_PX, FACE_PX), interpolation=cv2.INTER_CUBIC)
    return Augmentation(matrix, table, blur, noise, patch, bend)


def _matrix(
    region: np.ndarray,
    angle: float = 0.0,
    scale: np.ndarray | float = 1.0,
    shift: np.ndarray | float = 0.0,
    flip: bool = False,
) -> np.ndarray:
    """Affine map from output pixels to pixels of the stored crop; pixel centres as in geometry.crop_face."""
    x0, y0, x1, y1 = region
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + shift
    unit = np.array([(x1 - x0), (y1 - y0)]) / FACE_PX * scale
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn * (unit * np.array([-1 if flip else 1, 1]))
    middle = (FACE_PX - 1) / 2
    return np.concatenate([linear, (centre - 0.5 - linear @ [middle, middle])[:, None]], axis=1)


# --- sound ---------------------------------------------------------------------------------------------------


def column(clip: Clip, frame: float) -> int:
    """Mel column at which a frame of the clip begins, by the arithmetic of audio.frame_columns."""
    return MEL_AHEAD + int(np.floor(Fraction(frame + clip.offset) * 80 / FPS))


def mel_window(mel: np.ndarray, start: int, rate: float = 1.0, columns: int = COLUMNS) -> np.ndarray:
    """(80, columns) float32 from column `start` on; outside is silence; rate > 1 hears faster speech."""
    if rate == 1.0:
        out = np.full((columns, mel.shape[1]), SILENCE, np.float32)
        a, b = max(start, 0), min(start + columns, len(mel))
        if b > a:
            out[a - start : b - start] = mel[a:b]
        return out.T
    at = start + np.arange(columns) * rate
    low = np.floor(at).astype(int)
    part = (at - low).astype(np.float32)[:, None]
    padded = np.concatenate([mel, np.full((1, mel.shape[1]), SILENCE, np.float32)])
    low0, low1 = (np.where((k < 0) | (k >= len(mel)), len(mel), k) for k in (low, low + 1))
    return (padded[low0] * (1 - part) + padded[low1] * part).T


def feature_window(rows: np.ndarray, name: str, clip: Clip, frame: float, width: int, start: float) -> np.ndarray:
    """(C, width) float32: the window of a frame, `start` columns from it, by the arithmetic of audio.frame_columns;
    beyond the ends the last row repeats."""
    feature = FEATURES[name]
    first = feature.ahead + int(np.floor(Fraction(frame + clip.offset) * feature.rate / FPS + Fraction(start)))
    return rows[np.clip(np.arange(first, first + width), 0, len(rows) - 1)].T


def augment_mel(mel: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Another voice, microphone and room: (M, 80) float32 -> the same shape.

    Louder or softer, an equaliser, a longer or shorter vocal tract (bands stretched), a floor of noise. 1 dB is 0.08.
    """
    bands = mel.shape[1]
    out = mel
    if rng.random() < 0.7 * strength:
        warp = np.clip(np.arange(bands) * np.exp(rng.normal(0, 0.06 * strength)), 0, bands - 1)
        low = np.floor(warp).astype(int)
        part = (warp - low).astype(np.float32)
        out = out[:, low] * (1 - part) + out[:, np.minimum(low + 1, bands - 1)] * part
    curve = np.interp(np.arange(bands), np.linspace(0, bands - 1, 5), rng.normal(0, 0.35 * strength, 5))
    out = np.clip(out + (curve + rng.normal(0, 0.4 * strength)).astype(np.float32), -4, 4)
    if rng.random() < 0.4 * strength:
        floor = rng.uniform(-3.5, -1.0) + np.interp(
            np.arange(bands), np.linspace(0, bands - 1, 4), rng.normal(0, 0.4, 4)
        )
        start = int(rng.integers(0, len(_NOISE) - out.size)) if out.size < len(_NOISE) else 0
        grain = np.resize(_NOISE[start : start + out.size], out.shape) * np.float32(0.25)
        out = np.logaddexp(out * 1.44, (floor.astype(np.float32) + grain) * 1.44) / np.float32(1.44)  # powers add
        out = np.clip(out, -4, 4)
    return out.astype(np.float32)
