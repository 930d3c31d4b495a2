"""How a system's video becomes numbers: encoded as all are, scored, compared with the clip that it was made from.

A codec alone moves LSE by 0.4 to 1.2 (protocol.md section 10). So whatever a system gives, the untouched clip too, is
read at 25 frames a second, brought to the clip's size and written once more by our own writer with the same settings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from eval.results import VERSION, ScoreRow
from lipsync.messages import Message
from lipsync.progress import Monitor

from .records import BenchmarkError, BenchmarkSet, Pair

if TYPE_CHECKING:
    from lipsync.media.reader import VideoInfo

FPS = Fraction(25)
ENCODING = {"version": 1, "fps": 25, "crf": 18, "preset": "veryfast", "sound": "aac 192 kb/s 48 kHz stereo"}
LONGER_S = 2.0  # that a video may last beyond its clip and its voice
CHECKED = 24  # real clips of a set, each of another speaker, in which the evaluator looks for known shifts
SHIFTS = (-4, 4)  # frames of 40 ms
EVERY = 5  # frames of a video, of which one is seen by the Fréchet distance's network: neighbours are alike
CROP = "faces"


class Scorer(Protocol):
    """What scores; one for each process.

    facts  what could change a number: measure_version, evaluator, evaluator_sha256, protocol, protocol_hash, encoding
           and measures
    """

    facts: dict[str, Any]

    def score(
        self, pair: Pair, system: str, set_name: str, made: Path, scratch: Path, work: Path, monitor: Monitor
    ) -> tuple[Path | None, ScoreRow]: ...

    def distance(self, pairs: Sequence[Pair], made: Sequence[Path], work: Path) -> dict[str, Any] | None: ...

    def check(self, chosen: BenchmarkSet, monitor: Monitor) -> tuple[int, int, dict[str, Any]]: ...


@dataclass(frozen=True)
class Scoring:
    """How to score; small, so that every worker can be told.

    evaluator, protocol, shifts, detector, fast  as in `python -m eval score`
    families  of measures beside sync (eval.reference.FAMILIES)
    encoder   of the Fréchet distance: auto, inception or lab; "" for none
    """

    evaluator: str = "auto"
    protocol: str = "short"
    shifts: int | None = None
    families: tuple[str, ...] = ("motion", "image", "identity")
    detector: str | None = None
    fast: bool = False
    encoder: str = "auto"

    def open(self) -> Scorer:
        """The scorer, networks loaded. Raises LipsyncError where a file or name is not known."""
        return _Scorer(self)


class _Scorer:
    def __init__(self, how: Scoring) -> None:
        from eval.protocols import protocol
        from eval.syncnet import Evaluator

        self._how = how
        self._evaluator = Evaluator(how.evaluator, how.fast)
        self._protocol = protocol(how.protocol).with_shifts(how.shifts)
        self._detector = how.detector or self._evaluator.detector
        self._encoder = None
        self.facts = {
            "measure_version": VERSION,
            "evaluator": self._evaluator.name,
            "evaluator_sha256": self._evaluator.sha256,
            "protocol": self._protocol.name,
            "protocol_hash": self._protocol.sha(self._detector, self._evaluator),
            "encoding": ENCODING,
            "measures": list(how.families),
        }

    def score(
        self, pair: Pair, system: str, set_name: str, made: Path, scratch: Path, work: Path, monitor: Monitor
    ) -> tuple[Path | None, ScoreRow]:
        """The scored video, in `scratch`, and its row. Raises LipsyncError where the video cannot be read; Cancelled.

        made  what the system gave
        work  folder where the clips, encoded alike, are kept
        """
        from eval.inputs import Item
        from eval.score import score_clip

        clip = scorable(pair.video.path)
        remarks: list[str] = []
        video = encode(made, scratch / f"{pair_file(pair.id)}.mp4", clip, longest(pair, clip), remarks, monitor)
        reference = self._reference(pair, clip, work, monitor) if self._how.families else None
        item = Item(video, reference, pair.video.speaker, system, pair.id, set_name)
        row = score_clip(item, self._evaluator, self._protocol, self._how.families, self._detector, monitor)
        return video, replace(row, remarks=[*remarks, *row.remarks])

    def _reference(self, pair: Pair, clip: VideoInfo, work: Path, monitor: Monitor) -> Path:
        kept = work / "references" / f"{pair.video.sha256[:32]}-{ENCODING['version']}.mp4"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            # the writer puts it there whole; a clip needs no sound of its own
            encode(pair.video.path, kept, clip, float("inf"), [], monitor, silent=True)
        return kept

    def distance(self, pairs: Sequence[Pair], made: Sequence[Path], work: Path) -> dict[str, Any] | None:
        """The Fréchet distance of videos to the clips that they were made from, as DistanceFact has it; or None.

        Raises MeasureError.
        """
        from eval.encoders import VARIANTS, open_encoder, set_statistics
        from eval.metrics import frechet

        if not self._how.encoder:
            return None
        self._encoder = encoder = self._encoder or open_encoder(self._how.encoder)
        real = [self._reference(pair, scorable(pair.video.path), work, Monitor()) for pair in pairs]
        a, b = (set_statistics(paths, encoder, CROP, work / "statistics", EVERY) for paths in (real, made))
        found = frechet.evaluate(a, b)
        return {
            "encoder": encoder.name,
            "encoder_sha256": encoder.sha256,
            "title": encoder.title,
            "crop": VARIANTS[CROP],
            "clips": len(made),
            "n_real": a.n,
            "n_made": b.n,
            "frechet": found["frechet"],
            "extrapolated": found["frechet_extrapolated"],
            "kid": found["kid"],
        }

    def check(self, chosen: BenchmarkSet, monitor: Monitor) -> tuple[int, int, dict[str, Any]]:
        """How often a known shift of the sound is found, within a frame, in clips whose sound is their own.

        returns  tried, found, and each trial
        """
        import soundfile

        from eval.score import score_file
        from lipsync.media.reader import read_waveform

        clips: dict[str, Path] = {}
        for pair in chosen.pairs:
            clips.setdefault(pair.video.speaker or pair.video.id, pair.reference or pair.video.path)
        trials: list[dict[str, Any]] = []
        chosen_clips = list(clips.items())[:CHECKED]
        for done, (name, path) in enumerate(chosen_clips):
            monitor.step("check", done, len(chosen_clips))
            own = score_file(path, self._evaluator, self._protocol, self._detector, monitor)
            if own.error:  # silent, or no face: nothing can be tried with it
                trials.append({"clip": name, "reason": own.error})
                continue
            waveform = read_waveform(path)
            for shift in SHIFTS:
                with tempfile.TemporaryDirectory() as folder:
                    moved = Path(folder) / "moved.wav"
                    soundfile.write(moved, shifted(waveform, shift), 16_000, subtype="FLOAT")
                    row = score_file(path, self._evaluator, self._protocol, self._detector, monitor, moved)
                known = own.offset is not None and row.offset is not None
                found = known and abs(row.offset - (own.offset - shift)) <= 1
                trials.append({"clip": name, "shift": shift, "own": own.offset, "moved": row.offset, "found": found})
        tried = [t for t in trials if "shift" in t]
        return len(tried), sum(t["found"] for t in tried), {"trials": trials}


def shifted(waveform: np.ndarray, frames: int, samples: int = 640) -> np.ndarray:
    """Sound (S,) that comes so many frames later (earlier where negative), as long as it was; silence fills it."""
    moved = np.zeros_like(waveform)
    by = frames * samples
    if by >= 0:
        moved[by:] = waveform[: len(waveform) - by]
    else:
        moved[:by] = waveform[-by:]
    return moved


def pair_file(name: str) -> str:
    """A name of a set, system or pair as part of a path: what it may not hold is replaced, and then it is marked."""
    from hashlib import sha256

    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_+") else "_" for c in name)[:60]
    return kept if kept == name and kept else f"{kept}-{sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"


def scorable(path: Path) -> VideoInfo:
    """A clip as it is read for scoring: 25 frames a second. Raises InputError, BenchmarkError."""
    from lipsync.media.reader import probe

    info = probe(path)
    if not info.has_video:
        raise BenchmarkError("{file} holds no picture.", file=path.name)
    return replace(info, fps=FPS, frames=max(round(info.duration_s * FPS), 1))


def longest(pair: Pair, clip: VideoInfo) -> float:
    """Seconds that a video of a pair may have."""
    from lipsync.media.reader import probe

    voices = [probe(pair.voice.path).duration_s, *([probe(pair.reference).duration_s] if pair.reference else [])]
    return max(clip.duration_s, *voices) + LONGER_S


def encode(
    source: Path,
    out: Path,
    clip: VideoInfo,
    longest_s: float,
    remarks: list[str],
    monitor: Monitor,
    silent: bool = False,
) -> Path:
    """Write a video as all are written before they are scored.

    clip       whose size it gets
    longest_s  Raises BenchmarkError where it lasts longer
    remarks    gets a sentence for what was changed or damaged
    silent     a source without sound is written without; else refused
    Raises InputError where it cannot be read, Cancelled.
    """
    import cv2

    from lipsync.media.reader import FrameReader, SoundReader
    from lipsync.media.writer import SOUND_RATE, VideoWriter

    info = scorable(source)
    if info.is_still:
        raise BenchmarkError("{file} is a still picture: a video is needed.", file=source.name)
    if not info.has_audio and not silent:
        raise BenchmarkError("{file} holds no sound: it must have the voice that it was made with.", file=source.name)
    if info.duration_s > longest_s:
        raise BenchmarkError(
            "{file} lasts {seconds:.1f} s, where {most:.1f} s are the most.",
            file=source.name,
            seconds=info.duration_s,
            most=longest_s,
        )
    size = clip.width, clip.height
    same = (info.width, info.height) == size
    if not same:
        remarks.append(
            Message(
                "{from_width} × {from_height} was brought to the clip's {width} × {height}.",
                from_width=info.width,
                from_height=info.height,
                width=size[0],
                height=size[1],
            )
        )
    way = cv2.INTER_AREA if info.width > clip.width else cv2.INTER_CUBIC
    crf, preset = ENCODING["crf"], ENCODING["preset"]
    rate = SOUND_RATE if info.has_audio else None
    with VideoWriter(out, *size, FPS, rate, crf=crf, preset=preset, threads=1, reproducible=True) as writer:
        with FrameReader(info) as frames:
            for done, frame in enumerate(frames, 1):
                writer.write(frame if same else cv2.resize(frame, size, interpolation=way))
                monitor.step("encode", min(done, info.frames), info.frames)
        if info.has_audio:
            with SoundReader(source) as sound:
                for samples in sound:
                    writer.write_sound(samples)
                remarks += sound.notes
        if not writer.frames:
            raise BenchmarkError("{file} gives no frame.", file=source.name)
    remarks += frames.notes
    if frames.missing > 1:
        remarks.append(
            Message("{missing} of {frames} frames were missing.", missing=frames.missing, frames=info.frames)
        )
    return out
