"""Raw videos to coded face crops with the features of their sound: `python -m train preprocess SRC OUT`.

One worker call a clip, in which everything that can go wrong ends as a row with a reason, never as a lost run. What a
clip gave lies in OUT/clips/KEY.tar until all are done; a broken run goes on where it stopped. Then shards are written.
Crops are cut with the same boxes as at inference (lipsync.faces), on a wider view (shards.VIEW).
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from ..config import TrainingError
from .shards import (
    AHEAD_S,
    CLIPS_A_SHARD,
    FPS,
    SIZE_PX,
    VIEW,
    clip_members,
    pack_features,
    read_tar,
    split_of,
    write_tar,
)

SHORTEST_FRAMES = 20
LONGEST_FRAMES = 500  # 20 s: longer tracks are cut into clips of this length
SMALLEST_PX = 40  # side of the face box
HELD_BYTES = 2 << 30  # of decoded frames: longer videos are read in pieces
VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg"}


@dataclass(frozen=True)
class Source:
    """One file to read: what is known before it is opened."""

    key: str
    path: Path
    speaker: str
    split: str
    group: str


def sources(src: Path) -> list[Source]:
    """The clips of a manifest CSV (columns file, split, speaker; group optional) or of a folder of videos.

    In a folder the speaker is the sub-folder's name (else the file's), and the split is drawn from the speaker's name,
    so that it stays when clips are added: 90 % teach, 5 % tune, 5 % val. As long as nobody was drawn to choose
    checkpoints (tune), one speaker is; where all are one speaker's, files are drawn instead. Raises TrainingError.
    """
    if src.is_file():
        return _manifest(src)
    paths = sorted(p for p in src.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        raise TrainingError(
            f"{src} is neither a manifest CSV nor a folder with videos ({', '.join(sorted(VIDEO_SUFFIXES))})."
        )
    names = [p.relative_to(src) for p in paths]
    speakers = [n.parts[0] if len(n.parts) > 1 else n.stem for n in names]
    drawn = speakers if len(set(speakers)) > 1 else [str(n) for n in names]
    hashes = {d: int(hashlib.sha256(d.encode()).hexdigest()[:8], 16) for d in drawn}
    splits = {d: {0: "tune", 1: "val"}.get(h % 20, "teach") for d, h in hashes.items()}
    if len(splits) > 1 and "tune" not in splits.values():
        splits[min(hashes, key=hashes.get)] = "tune"
    return [
        Source(_key(str(name)), path, speaker, splits[draw], "clips")
        for path, name, speaker, draw in zip(paths, names, speakers, drawn, strict=True)
    ]


def _manifest(path: Path) -> list[Source]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        return [
            Source(
                _key(r["file"]),
                path.parent / r["file"],
                r.get("speaker") or _key(r["file"]),
                r["split"],
                r.get("group") or "clips",
            )
            for r in rows
        ]
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(
            f"{path} cannot be read as a manifest ({type(error).__name__}: {error}): it is a CSV in UTF-8 with the "
            f"columns file, split and speaker, and group if you like."
        ) from error


def preprocess(
    src: Path,
    out: Path,
    workers: int = 2,
    splits: list[str] | None = None,
    expert: str | None = None,
    use_ray: bool = False,
) -> dict:
    """Read every clip, write OUT/shards/SPLIT-NNN.tar and OUT/index.csv; returns counts of what was kept and dropped.

    workers  processes on this machine (with use_ray: Ray's cluster decides; OUT must be reachable from every machine)
    expert   a registered expert that says which of several faces speaks; without it the largest is taken
    """
    wanted = [s for s in sources(src) if not splits or s.split in splits]
    if expert:
        from ..networks import trained_expert

        trained_expert(expert)  # a wrong name ends here, not in every clip
    (out / "clips").mkdir(parents=True, exist_ok=True)
    todo = [(s, out / "clips", expert) for s in wanted if not (out / "clips" / f"{s.key}.tar").exists()]
    if use_ray:
        try:
            import ray
        except ImportError as error:
            raise TrainingError(
                "--ray needs Ray: pip install 'ray>=2.60' beside the rest, or leave --ray out."
            ) from error
        ray.init(ignore_reinit_error=True, log_to_driver=False)
        ray.get([ray.remote(read_clip).remote(*job) for job in todo])
    elif workers > 1:
        from multiprocessing import get_context

        # spawn: openvino and av keep threads, which a fork would break. Not concurrent.futures: in Python 3.11 its
        # pool
        # hangs when a worker is replaced
        with get_context("spawn").Pool(workers, maxtasksperchild=500) as pool:
            for _ in pool.imap_unordered(_read_clip, todo):
                pass
    else:
        for job in todo:
            read_clip(*job)
    return gather(out, wanted, splits)


def read_clip(source: Source, folder: Path, expert: str | None = None) -> None:
    """Read one file and leave folder/KEY.tar: its clips, or a row that says why there are none."""
    row = {"file": source.path.name, "speaker": source.speaker, "split": source.split, "group": source.group}
    members = []
    try:
        for number, (video, features, facts) in enumerate(_clips(source.path, expert)):
            key = source.key if number == 0 else f"{source.key}+{number}"
            members += clip_members(key, video, features, row | facts | {"fps": FPS, "offset": 0, "dropped": ""})
    except Exception as error:  # a worker must outlive any file; the reason is kept and counted
        row["dropped"] = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        members = []
    if not members:
        row.setdefault("dropped", "no face long and large enough")
        members = [(f"{source.key}.json", json.dumps(row).encode())]
    write_tar(folder / f"{source.key}.tar", members)


def _read_clip(job: tuple) -> None:
    read_clip(*job)


def _clips(path: Path, expert: str | None) -> Iterator[tuple[bytes, dict[str, np.ndarray], dict]]:
    """(coded crops, features, facts) of each stretch in which a face speaks."""
    from lipsync import audio
    from lipsync.media import reader as media

    info = media.probe(path)
    if not info.has_video or info.is_still:
        raise ValueError("no moving picture")
    if not info.has_audio:
        raise ValueError("no sound")
    waveform = media.read_waveform(path)
    most = max(SHORTEST_FRAMES, HELD_BYTES // (info.width * info.height * 3))
    at, tick, given, quiet = 0, 0, 0, 0  # the piece's first frame, and the first moment that shows it
    with media.FrameReader(info) as reader:
        left = iter(reader)
        while frames := list(islice(left, most)):
            picked = []  # of each 25th of a second, the piece's frame that is shown
            while (frame := int((tick + len(picked)) * info.fps / FPS + Fraction(1, 2)) - at) < len(frames):
                picked.append(frame)
            for start, crops, points, facts in _stretches(frames, picked, waveform, info.fps, expert):
                s0, s1 = ((tick + t) * 16000 // FPS for t in (start, start + len(crops)))
                margin = round(AHEAD_S * 16_000)  # on both sides, so that windows at the ends hear what was there
                part = np.zeros(s1 - s0 + 2 * margin, np.float32)
                a, b = max(s0 - margin, 0), min(s1 + margin, len(waveform))
                part[a - s0 + margin : b - s0 + margin] = waveform[a:b]
                if np.abs(part).max() < 1e-3:
                    quiet += 1
                    continue
                spoken = audio.loud_frames(part[margin:-margin], FPS, len(crops))
                features = pack_features(part, points, spoken)
                given += 1
                yield _encode(crops), features, facts | {"start": tick + start, "source_fps": float(info.fps)}
            at, tick = at + len(frames), tick + len(picked)
    if quiet and not given:
        raise ValueError("silent")


def _stretches(
    frames: list[np.ndarray], picked: list[int], waveform: np.ndarray, fps: Fraction, expert: str | None
) -> Iterator[tuple[int, list[np.ndarray], np.ndarray, dict]]:
    """(first of `picked`, crops, points, facts) of each stretch of some frames in which a face speaks."""
    from lipsync.faces import tracking as faces

    found = faces.find_faces(frames, fps)
    tracks = [t for t in found.tracks if t.size_px >= SMALLEST_PX]
    for shot in range(len(found.shots)):
        in_shot = [t for t in tracks if t.shot == shot]
        if not in_shot:
            continue
        track = _speaker(in_shot, frames, waveform, fps, expert)
        inside = [k for k, frame in enumerate(picked) if track.has(frame)]
        for first, stop in _runs(inside):
            for start in range(first, stop, LONGEST_FRAMES):
                end = min(start + LONGEST_FRAMES, stop)
                if end - start >= SHORTEST_FRAMES:
                    crops, points = _cut(frames, track, picked[start:end])
                    facts = {"frames": end - start, "size_px": round(track.size_px, 1), "faces": len(in_shot)}
                    yield start, crops, points, facts


def _cut(frames: list[np.ndarray], track, picked: list[int]) -> tuple[list[np.ndarray], np.ndarray]:
    from lipsync.geometry import CropRule, crop_face, to_crop

    rule, crops, points = CropRule(*VIEW), [], []
    for frame in picked:
        place = rule.alignment(track.boxes[frame - track.start])
        crops.append(crop_face(frames[frame], place, SIZE_PX))
        points.append(to_crop(track.landmarks[frame - track.start], place, SIZE_PX))
    return crops, np.stack(points)


def _speaker(tracks: list, frames: list[np.ndarray], waveform: np.ndarray, fps: Fraction, expert: str | None):
    """The track that speaks: the best synchronised one where an expert is given, else the main face."""
    from lipsync.faces.selection import main_track

    if len(tracks) == 1 or expert is None:
        return main_track(tracks)
    from ..metrics import track_sync

    return max(tracks, key=lambda t: track_sync(expert, t, frames, waveform, fps))


def _runs(ticks: list[int]) -> Iterator[tuple[int, int]]:
    from lipsync.faces.tracking import runs

    flags = np.zeros(max(ticks, default=-1) + 1, bool)
    flags[ticks] = True
    yield from runs(flags)


def _encode(crops: list[np.ndarray]) -> bytes:
    """(160, 160, 3) uint8 RGB each -> H.264, which shards.decode_video gives back in the same colours: opencv 4.11
    reads every file as BT.601, whatever the file says."""
    from av.video.reformatter import Colorspace

    from lipsync.media.reader import VideoWriter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crops.mp4"
        with VideoWriter(
            path, SIZE_PX, SIZE_PX, Fraction(FPS), crf=27, preset="slow", threads=1, matrix=Colorspace.ITU601
        ) as writer:
            for crop in crops:
                writer.write(crop)
        return path.read_bytes()


def gather(out: Path, wanted: list[Source], splits: list[str] | None = None) -> dict:
    """OUT/clips -> OUT/shards and OUT/index.csv, without duplicates; returns counts.

    wanted  split, speaker and group are those that it says now, not those of the day when a clip was read
    splits  whose shards are written anew (None: all)
    """
    kept: dict[str, list[list[tuple[str, bytes]]]] = {}
    rows, heard, known = [], set(), {s.key: s for s in wanted}
    for path in sorted((out / "clips").glob("*.tar")):
        source = known.get(path.stem)
        for key, sample in read_tar(path) if source else ():
            row = json.loads(sample["json"]) | {
                "key": key,
                "split": source.split,
                "speaker": source.speaker,
                "group": source.group,
            }
            if not row["dropped"]:
                print_of_sound = hashlib.sha256(sample["npz"]).hexdigest()
                if print_of_sound in heard:
                    row["dropped"] = "duplicate"
                heard.add(print_of_sound)
            rows.append(row)
            if not row["dropped"]:
                members = {"mp4": sample["mp4"], "npz": sample["npz"], "json": json.dumps(row).encode()}
                kept.setdefault(row["split"], []).append([(f"{key}.{e}", content) for e, content in members.items()])
    (out / "shards").mkdir(exist_ok=True)
    for old in (out / "shards").glob("*.tar"):
        if not splits or split_of(old) in splits:
            old.unlink()
    for split, clips in kept.items():
        for number in range(0, len(clips), CLIPS_A_SHARD):
            part = clips[number : number + CLIPS_A_SHARD]
            write_tar(out / "shards" / f"{split}-{number // CLIPS_A_SHARD:03}.tar", [m for clip in part for m in clip])
    names = sorted({name for row in rows for name in row})
    with (out / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    reasons = Counter(re.sub(r"[\d.]+|/\S+", "#", row["dropped"]) for row in rows if row["dropped"])
    return {
        "clips": {split: len(clips) for split, clips in kept.items()},
        "minutes": round(sum(r["frames"] for r in rows if not r["dropped"]) / FPS / 60, 1),
        "megabytes": round(sum(p.stat().st_size for p in (out / "shards").glob("*.tar")) / 1e6, 1),
        "dropped": dict(reasons),
    }


def _key(name: str) -> str:
    """A file's name as a key: readable, short, and no other file's."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", str(Path(name).with_suffix("")))[-60:]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
