"""Coded clips in tar shards (webdataset's layout) and the plain arrays that trainers read.

A shard holds for each clip KEY.mp4 (crops, H.264), KEY.npz (features of the sound, points of the face) and KEY.json
(the
index row): `webdataset` reads it as it is. `unpack` needs only numpy and opencv and writes one folder a split:
  frames.npy (N, 160, 160, 3) uint8 RGB        mel.npy (M, 80) uint8, -4..4 as 0..63    mfcc.npy (K, 13) int8, halves
  points.npy (N, 29, 2) float16, crop pixels   mfcc12.npy (K, 12) int8, halves          speech.npy (N,) bool
  clips.json  where each clip lies
which trainers map into memory; they need numpy, torch and safetensors alone. Sound is kept as what networks hear of it,
coarsely (the steps' rms error is 3 % of the spread of speech): an hour of it costs 14 MB, and no decoder is needed.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lipsync.geometry import CropRule

from ..config import TrainingError

FPS = 25  # every clip is brought to this rate
SIZE_PX = 160
# What a crop shows, in face box sides from the box's centre: the networks' crop, the evaluator's wider one, and room to
# shift, scale and turn both: left, top, right, bottom.
VIEW = (-0.78, -0.65, 0.78, 0.91)
CLIPS_A_SHARD = 250
MEL_LEVELS = 63
AHEAD_S = 0.2  # of sound before a clip's first frame and after its last


def face_card(view: tuple[float, float, float, float] | None = None, size_px: int = 96) -> dict:
    """What a card says of how faces were cut; view: left, top, right, bottom in box sides (the networks' crop)."""
    rule = CropRule() if view is None else CropRule(*view)
    return {
        "box": "steady face box from mesh points that do not move with speech (lipsync.faces), smoothed over time; "
        "centre (cx, cy), s = side",
        **rule.card(),
        "size_px": size_px,
        "resize": "bilinear after a box blur where the scale is 2 or more; edges replicated",
    }


def clip_members(key: str, video: bytes, features: dict[str, np.ndarray], row: dict) -> list[tuple[str, bytes]]:
    """The three files of a clip, as (name, bytes)."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **features)
    return [
        (f"{key}.mp4", video),
        (f"{key}.npz", buffer.getvalue()),
        (f"{key}.json", json.dumps(row, ensure_ascii=False).encode()),
    ]


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write members to a tar; it appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    temporary.replace(path)


def read_tar(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Samples of a tar in order: (key, {extension: bytes})."""
    key, sample = "", {}
    with tarfile.open(path) as tar:
        for entry in tar:
            stem, _, extension = entry.name.partition(".")
            if stem != key and sample:
                yield key, sample
                sample = {}
            key, sample[extension] = stem, tar.extractfile(entry).read()
    if sample:
        yield key, sample


@dataclass(frozen=True)
class Feature:
    """One kind of stored audio feature; another one is another entry of FEATURES.

    rate     rows a second; ahead: rows before a clip's first frame (AHEAD_S seconds of sound)
    extract  waveform (S,) float32, 16 kHz -> (T, C) float
    pack     (T, C) float -> what the shard holds; unpack: that -> (T, C) as the arrays hold it
    plain    as the arrays hold it -> (T, C) float32
    """

    rate: int
    extract: Callable[[np.ndarray], np.ndarray]
    pack: Callable[[np.ndarray], np.ndarray]
    unpack: Callable[[np.ndarray], np.ndarray]
    plain: Callable[[np.ndarray], np.ndarray]

    @property
    def ahead(self) -> int:
        return round(AHEAD_S * self.rate)


def _extract(name: str) -> Callable[[np.ndarray], np.ndarray]:
    def extract(waveform: np.ndarray) -> np.ndarray:
        from lipsync import audio  # trainers have no librosa

        if name == "mel":
            return audio.mel(waveform).T
        return audio.mfcc_syncnet(waveform * 32768) if name == "mfcc" else audio.mfcc12(waveform * 32768).T

    return extract


def _to_png(mel: np.ndarray) -> np.ndarray:
    import cv2

    levels = np.round((mel + 4) * (MEL_LEVELS / 8)).astype(np.uint8)
    return cv2.imencode(".png", np.ascontiguousarray(levels.T), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].ravel()


def _from_png(stored: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.imdecode(stored, cv2.IMREAD_UNCHANGED).T


def plain_mel(levels: np.ndarray) -> np.ndarray:
    """uint8 levels -> float32 -4..4."""
    return levels.astype(np.float32) * np.float32(8 / MEL_LEVELS) - 4


def _in_halves(rows: np.ndarray) -> np.ndarray:
    return np.round(rows * 2).clip(-127, 127).astype(np.int8)


def _from_halves(stored: np.ndarray) -> np.ndarray:
    return stored.astype(np.float32) / 2


FEATURES: dict[str, Feature] = {
    "mel": Feature(80, _extract("mel"), _to_png, _from_png, plain_mel),
    "mfcc": Feature(100, _extract("mfcc"), _in_halves, np.asarray, _from_halves),
    "mfcc12": Feature(100, _extract("mfcc12"), _in_halves, np.asarray, _from_halves),
}


def pack_features(waveform: np.ndarray, points: np.ndarray, speech: np.ndarray) -> dict[str, np.ndarray]:
    """What a clip's sound and face are stored as.

    waveform  (S,) float32, 16 kHz, from AHEAD_S seconds before the first frame to as long after the last
    points    (N, 29, 2) float, pixels    -> int16 differences in time, in quarters of a pixel
    speech    (N,) bool
    """
    quarters = np.round(points * 4).astype(np.int16)
    stored = {name: feature.pack(feature.extract(waveform)) for name, feature in FEATURES.items()}
    return stored | {"points": np.diff(quarters, axis=0, prepend=np.int16(0)).astype(np.int16), "speech": speech}


def unpack_features(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stored features as the arrays keep them: rows (T, C) of each of FEATURES, points float16, speech."""
    points = (np.cumsum(stored["points"], axis=0, dtype=np.int32) / 4).astype(np.float16)
    rows = {name: feature.unpack(stored[name]) for name, feature in FEATURES.items()}
    return rows | {"points": points, "speech": stored["speech"]}


def decode_video(video: bytes) -> np.ndarray:
    """H.264 bytes -> (T, SIZE_PX, SIZE_PX, 3) uint8 RGB, by opencv."""
    import cv2

    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(video)
        file.flush()
        reader = cv2.VideoCapture(file.name)
        frames = []
        while True:
            ok, picture = reader.read()
            if not ok:
                break
            frames.append(picture[..., ::-1])
        reader.release()
    return np.stack(frames) if frames else np.zeros((0, SIZE_PX, SIZE_PX, 3), np.uint8)


def split_of(shard: Path) -> str:
    """The split in a shard's name."""
    return shard.name.rsplit("-", 1)[0]


def unpack(shards: Path, out: Path, splits: list[str] | None = None) -> dict[str, int]:
    """Turn SHARDS/shards/*.tar into arrays under out/SPLIT; returns clips a split. A split whose clips are those of the
    shards is kept. Raises TrainingError where there are no shards."""
    by_split: dict[str, list[Path]] = {}
    for path in sorted((shards / "shards").glob("*.tar")):
        by_split.setdefault(split_of(path), []).append(path)
    if not by_split:
        raise TrainingError(f"{shards} holds no shards: `python -m train preprocess SRC {shards}` makes them.")
    counts = {}
    for split, paths in by_split.items():
        if splits and split not in splits:
            continue
        keys, index = [key for path in paths for key, _ in read_tar(path)], out / split / "clips.json"
        if not index.exists() or [row["key"] for row in json.loads(index.read_text())] != keys:
            _unpack_split(paths, out / split)
        counts[split] = len(keys)
    return counts


def _unpack_split(paths: list[Path], whole: Path) -> None:
    folder = whole.with_name(f".{whole.name}.part")  # runs may still read the arrays that were there
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    total = sum(json.loads(sample["json"])["frames"] for path in paths for _, sample in read_tar(path))
    frames = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, (total, SIZE_PX, SIZE_PX, 3))
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (*FEATURES, "points", "speech")}
    clips, at = [], dict.fromkeys(("frames", *FEATURES), 0)
    for path in paths:
        for key, sample in read_tar(path):
            row, pictures = json.loads(sample["json"]), decode_video(sample["mp4"])
            with np.load(io.BytesIO(sample["npz"])) as features:
                parts = unpack_features(dict(features))
            if len(pictures) != row["frames"]:
                raise TrainingError(
                    f"{path.name}: {key} decodes to {len(pictures)} frames, its row says {row['frames']}. The shard is "
                    f"damaged, or this opencv cannot decode H.264: write it again with `python -m train preprocess`."
                )
            frames[at["frames"] : at["frames"] + len(pictures)] = pictures
            rows = {name: [at[name], len(parts[name])] for name in FEATURES}
            clips.append(row | {"key": key, "first": at["frames"], "features": rows})
            at["frames"] += len(pictures)
            for name in FEATURES:
                at[name] += len(parts[name])
            for name, part in parts.items():
                columns[name].append(part)
    frames.flush()
    for name, parts in columns.items():
        np.save(folder / f"{name}.npy", np.concatenate(parts))
    (folder / "clips.json").write_text(json.dumps(clips, indent=0, ensure_ascii=False))
    shutil.rmtree(whole, ignore_errors=True)
    folder.replace(whole)
