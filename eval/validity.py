"""Do the measures move as they should? Clips are spoilt on purpose, and every measure is asked.

`python -m eval validity FOLDER --out DIR` writes validity.json, .png and .html and prints a table: for each trial the
mean at each level, and whether the change from the first level to the last goes the way it should, by the 95 %
bootstrap interval of the clips' differences. What is tried: protocol.md section 10 and docs/metrics.md.
"""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from rich.table import Table

from lipsync import audio
from lipsync.errors import LipsyncError
from lipsync.faces.tracking import find_faces
from lipsync.media.reader import FrameReader, VideoWriter, probe, read_waveform

from .clips import MainFace, main_face
from .encoders import open_encoder
from .inputs import spread
from .landmarks import lips_of
from .metrics import frechet, image, leakage, motion, retrieval, sync
from .metrics.base import MeasureError
from .protocols import FPS, SAMPLES, Protocol, windows
from .results import ScoreRow
from .score import embeddings, score_file, unscored
from .stats import bootstrap
from .syncnet import Evaluator, sound_windows

SHIFTS = tuple(range(16))  # frames
NOISES_DB = (np.inf, 20, 10, 0, -10)  # signal to noise
LENGTHS = (25, 50, 100, 200)  # frames
QUALITIES = (0, 18, 23, 28, 33, 38)  # x264's constant rate factor; 0 is lossless
BLURS_PX = (0, 0.5, 1, 2, 4)  # sigma, at the size of the evaluator's crop
MARGIN = 0.05  # of the first level: a change within it counts as none
WIDE = 16  # shifts to each side at which known shifts up to 15 frames are looked for
PICTURES = 40  # of a clip, for the image and Fréchet measures: the least of which a distance can be extrapolated
MOVING = 75  # frames of a clip, for the motion measures
SEEN = 250  # frames of a clip that are looked at


@dataclass
class Trial:
    """One way of spoiling clips, and what one measure said.

    wanted  "rises", "falls" or "stays", from the first level to the last
    values  (clips, levels), NaN where there was no number
    margin  how large a change still counts as none; None: a share MARGIN of the first level's mean size
    """

    name: str
    measure: str
    levels: tuple
    wanted: str
    values: np.ndarray
    margin: float | None = None

    def change(self) -> tuple[float, tuple[float, float] | None]:
        """Mean of last minus first over the clips that have both, and its 95 % interval."""
        both = self.values[:, [0, -1]]
        both = both[np.isfinite(both).all(1)]
        difference = both[:, 1] - both[:, 0]
        if not len(difference):
            return float("nan"), None
        return float(difference.mean()), bootstrap(difference) if len(difference) > 1 else None

    def verdict(self) -> str:
        """Does it move as wanted: "yes", "no", or "not shown" where the clips are too few or too unlike to tell.

        "stays" is shown only by an interval that lies within the margin: a wide one holds 0 too, and shows nothing.
        """
        mean, span = self.change()
        if span is None:
            return "not shown"
        low, high = span
        if self.wanted == "stays":
            margin = MARGIN * np.nanmean(np.abs(self.values[:, 0])) if self.margin is None else self.margin
            if -margin <= low and high <= margin:
                return "yes"
            return "no" if low > margin or high < -margin else "not shown"
        if low <= 0 <= high:
            return "not shown"
        return "yes" if (mean > 0) == (self.wanted == "rises") else "no"


def validity(
    paths: Sequence[Path], evaluator: Evaluator, protocol: Protocol, out: Path, say: Callable[[str], None] = print
) -> Table:
    """Run every trial on clips; returns the table, writes the rest into `out`. Raises MeasureError below 2 clips."""
    out.mkdir(parents=True, exist_ok=True)
    clips: list[tuple[Path, MainFace, np.ndarray]] = []
    for path in paths:
        try:
            face = main_face(path, evaluator, protocol, most=SEEN)
            embeddings(face, evaluator)
            clips.append((path, face, read_waveform(path)[face.first * SAMPLES :]))
        except LipsyncError as error:
            say(f"left out: {error}")
    if len(clips) < 2:
        raise MeasureError(f"{len(clips)} clip(s) could be scored: two or more are needed to say how sure a change is.")
    trials = [
        *_sound_trials(clips, evaluator, protocol),
        *_other_face_trials(clips, evaluator, protocol),
        *_file_trials(clips, evaluator, protocol),
        *_picture_trials(clips),
        *_motion_trials(clips),
    ]
    made_by = unscored(Path(), evaluator, protocol)
    title = f"{made_by.heading()} · {len(clips)} clips"
    report = {
        "evaluator": evaluator.name,
        "evaluator_sha256": evaluator.sha256,
        "protocol": protocol.name,
        "protocol_hash": made_by.protocol_hash,
        "engine": made_by.engine,
        "clips": len(clips),
        "trials": [_record(t) for t in trials],
    }
    (out / "validity.json").write_text(json.dumps(report, indent=1))
    _plots(trials, title).write_html(out / "validity.html")
    _picture(trials, title, out / "validity.png")
    return _table(trials, title)


def _record(trial: Trial) -> dict:
    mean, span = trial.change()
    means = [None if not np.isfinite(c).any() else round(float(np.nanmean(c)), 5) for c in trial.values.T]
    return {
        "trial": trial.name,
        "measure": trial.measure,
        "levels": [str(v) for v in trial.levels],
        "means": means,
        "wanted": trial.wanted,
        "change": None if np.isnan(mean) else round(mean, 5),
        "interval": None if span is None else [round(v, 5) for v in span],
        "holds": trial.verdict(),
    }


def _scored(
    face: MainFace,
    waveform: np.ndarray,
    evaluator: Evaluator,
    protocol: Protocol,
    seen: np.ndarray | None = None,
) -> tuple[sync.SyncScore | None, np.ndarray]:
    """Score a face under another waveform; embeddings of the pictures are taken over where they are given."""
    pcm = np.clip(np.round(waveform * 32768), -32768, 32767)
    mfcc = audio.mfcc_syncnet(pcm).astype(np.float32)
    heard = replace(face, mfcc=mfcc, frames_heard=len(waveform) // SAMPLES)
    if seen is None:
        seen, sound = embeddings(heard, evaluator)
    else:
        count = min(len(seen), windows(len(face.crops), heard.frames_heard))
        sound, seen = evaluator.sound(sound_windows(heard.mfcc, range(count))), seen[:count]
    try:
        sync.validate(seen, sound, protocol.shifts, protocol.padded)
    except LipsyncError:
        return None, seen
    return sync.score(sync.distance_rows(seen, sound, shifts=protocol.shifts, padded=protocol.padded)), seen


def _sound_trials(clips, evaluator: Evaluator, protocol: Protocol) -> list[Trial]:
    """Shifts, noise, a frozen mouth, another's voice, length, and the same thing twice."""
    rng = np.random.default_rng(0)
    found: dict[str, list[list[sync.SyncScore | None]]] = {
        k: [] for k in ("shift", "noise", "frozen", "swapped", "length", "wide")
    }
    wide = protocol.with_shifts(max(protocol.shifts, WIDE))
    for number, (_, face, waveform) in enumerate(clips):
        own, seen = _scored(face, waveform, evaluator, protocol)

        def under(changed: np.ndarray, face=face, seen=seen) -> sync.SyncScore | None:
            return _scored(face, changed, evaluator, protocol, seen)[0]

        late = [np.concatenate([np.zeros(k * SAMPLES, np.float32), waveform])[: len(waveform)] for k in SHIFTS]
        found["shift"].append([under(w) for w in late])
        found["wide"].append([_scored(face, w, evaluator, wide, seen)[0] for w in late])
        loud = float(np.sqrt(np.mean(waveform**2)))
        grain = rng.standard_normal(len(waveform)).astype(np.float32) * loud
        found["noise"].append([under(waveform + grain * np.float32(10 ** (-db / 20))) for db in NOISES_DB])
        still = replace(face, crops=np.repeat(face.crops[:1], len(face.crops), 0))
        found["frozen"].append([own, _scored(still, waveform, evaluator, protocol)[0]])
        other = clips[(number + 1) % len(clips)][2]
        found["swapped"].append([own, under(np.resize(other, len(waveform)))])
        short = [replace(face, crops=face.crops[:n]) if n <= len(face.crops) else None for n in LENGTHS]
        found["length"].append([None if f is None else _scored(f, waveform, evaluator, protocol)[0] for f in short])
    weaker = {"lse_c": "falls", "lse_d": "rises"}
    plans = [
        ("shift", SHIFTS, weaker),
        ("noise", NOISES_DB, weaker),
        ("frozen", ("own", "frozen"), {"lse_c": "falls"}),
        ("swapped", ("own", "another's"), weaker | {"certainty": "falls"}),
        ("length", LENGTHS, {"lse_c": "stays", "lse_d": "stays"}),
    ]
    trials = [
        Trial(_NAMES[key], measure, levels, wanted, _values(found[key], measure))
        for key, levels, measures in plans
        for measure, wanted in measures.items()
    ]
    error = _values(found["wide"], "offset")
    wrong = np.abs(error - error[:, :1] + np.array(SHIFTS))  # a later sound lowers the offset
    return [Trial(_NAMES["shift"], f"offset at ±{wide.shifts}: error in frames", SHIFTS, "stays", wrong, 1.0), *trials]


_NAMES = {
    "shift": "sound late by frames",
    "noise": "white noise, dB",
    "frozen": "frozen mouth",
    "swapped": "another's voice",
    "length": "length in frames",
}


def _other_face_trials(clips, evaluator: Evaluator, protocol: Protocol) -> list[Trial]:
    """The mouth of the next clip in place of the own one, asked of leakage and of retrieval."""
    both = [embeddings(face, evaluator) for _, face, _ in clips]
    video, audio = [v for v, _ in both], [a for _, a in both]
    ranked = [retrieval.ranks(retrieval.distances(some, audio)) for some in (video, [*video[1:], video[0]])]
    leaks = []
    for number, sound in enumerate(audio):
        scores = []
        for seen in (video[number], video[(number + 1) % len(video)]):
            count = min(len(seen), len(sound))
            try:
                sync.validate(seen[:count], sound[:count], protocol.shifts, protocol.padded)
            except MeasureError:
                break
            rows = sync.distance_rows(seen[:count], sound[:count], shifts=protocol.shifts, padded=protocol.padded)
            scores.append(sync.score(rows))
        told = [leakage.evaluate(scores[0], score) for score in scores] if len(scores) == 2 else [{}, {}]
        leaks.append([(_number(t.get("leak_silence")), _number(t.get("leaks"))) for t in told])
    name, levels, values = "another's mouth", ("own", "another's"), np.array(leaks, float)
    return [
        Trial(name, "leak_silence", levels, "falls", values[..., 0]),
        Trial(name, "leaks", levels, "falls", values[..., 1]),
        Trial(name, "retrieval: rank of its voice", levels, "rises", np.array(ranked, float).T),
    ]


def _motion_trials(clips) -> list[Trial]:
    """Head or mouth shaken by a pixel to and fro, a frozen mouth, one that talks in pauses, on crops."""
    plans = {
        ("head shaken by 1 px", "head"): {"box_jitter": "rises"},
        ("mouth shaken by 1 px", "mouth"): {"mouth_jitter": "rises"},
        ("frozen mouth", "frozen"): {"mouth_movement_speech": "falls", "lmd": "rises", "lmd_velocity": "rises"},
        ("pauses filled with speech's pictures", "filled"): {"mouth_movement_silence": "rises", "rest_ratio": "rises"},
    }
    found: dict[str, list[dict]] = {"own": [], "head": [], "mouth": [], "frozen": [], "filled": []}
    for _, face, waveform in clips:
        crops = face.crops[:MOVING]
        speech = audio.loud_frames(waveform, FPS, len(crops))
        head = np.stack([np.roll(crop, 1 if k % 2 else -1, 1) for k, crop in enumerate(crops)])
        mouth, half = crops.copy(), crops.shape[1] * 5 // 9  # below the nose: crop_face has the face's centre at 4/9
        mouth[:, half:] = head[:, half:]
        spoilt = {"own": crops, "head": head, "mouth": mouth, "frozen": np.repeat(crops[:1], len(crops), 0)}
        if speech.any() and not speech.all():
            spoilt["filled"] = crops.copy()
            spoilt["filled"][~speech] = np.resize(crops[speech], ((~speech).sum(), *crops.shape[1:]))
        try:
            lips = {kind: _lips(some) for kind, some in spoilt.items()}
        except MeasureError:
            lips = {}
        for kind, rows in found.items():
            (seen, boxes), own = lips.get(kind, (None, None)), lips.get("own", (None, None))
            rows.append({} if seen is None else motion.evaluate(seen, boxes, speech, FPS, *own))
    return [
        Trial(
            name,
            measure,
            ("own", kind),
            wanted,
            np.array(
                [
                    [_number(a.get(measure)), _number(b.get(measure))]
                    for a, b in zip(found["own"], found[kind], strict=True)
                ]
            ),
        )
        for (name, kind), measures in plans.items()
        for measure, wanted in measures.items()
    ]


def _lips(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lips (T, 40, 2) and boxes (T, 4) of crops, NaN where they are not seen. Raises MeasureError without a face."""
    track = lips_of(crops, find_faces(crops, FPS))
    lips, boxes = np.full((len(crops), *track.lips.shape[1:]), np.nan), np.full((len(crops), 4), np.nan)
    lips[track.start :][: len(track.lips)], boxes[track.start :][: len(track.boxes)] = track.lips, track.boxes
    return lips, boxes


def _values(scores: list[list[sync.SyncScore | None]], measure: str) -> np.ndarray:
    return np.array([[np.nan if s is None else float(getattr(s, measure)) for s in row] for row in scores], float)


def _file_trials(clips, evaluator: Evaluator, protocol: Protocol) -> list[Trial]:
    """Coded again at five qualities, and at another frame rate, through files, as they reach an evaluator."""
    coded: list[list[float]] = []
    rated: list[list[float]] = []
    again: list[list[ScoreRow]] = []
    for path, _, _ in clips:
        info = probe(path)
        again.append([score_file(path, evaluator, protocol) for _ in range(2)])
        with tempfile.TemporaryDirectory(prefix="eval-validity-") as folder:

            def made(name: str, fps: Fraction, crf: int, info=info, folder=folder, path=path) -> float:
                target = Path(folder, name)
                read = replace(info, fps=fps, frames=min(round(info.duration_s * fps), round(SEEN * fps / 25)))
                with (
                    FrameReader(read, [(0, read.frames)]) as frames,
                    VideoWriter(target, info.width, info.height, fps, 16_000, 1, crf) as writer,
                ):
                    for frame in frames:
                        writer.write(frame)
                    writer.write_sound(read_waveform(path)[: round(float(read.frames / fps) * 16_000), None])
                return _number(score_file(target, evaluator, protocol).lse_c)

            coded.append([made(f"{q}.mp4", info.fps, q) for q in QUALITIES])
            rated.append([coded[-1][1], made("30.mp4", Fraction(30), 18)])
    return [
        Trial("coded again, x264 crf", "lse_c", QUALITIES, "falls", np.array(coded)),
        Trial("frame rate", "lse_c", ("own", "30"), "stays", np.array(rated)),
        *(
            Trial(
                "the file scored again",
                m,
                ("once", "twice"),
                "stays",
                np.array([[_number(getattr(row, m)) for row in rows] for rows in again]),
                0.0,
            )
            for m in ("lse_d", "lse_c", "offset")
        ),
    ]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _picture_trials(clips) -> list[Trial]:
    """Blur, asked of the image measures and of the Fréchet distance."""
    encoder = open_encoder()
    crops = [np.stack(spread(face.crops, PICTURES)) for _, face, _ in clips]
    names = [m.name for m in image.MEASURES]
    per: dict[str, list[list[float]]] = {n: [] for n in names}
    for some in crops:
        rows = [image.evaluate(some, _blurred(some, sigma)) for sigma in BLURS_PX]
        for name in names:
            per[name].append([_number(row[name]) for row in rows])
    trials = [Trial("blur, sigma in px", n, BLURS_PX, "falls", np.array(per[n])) for n in names]
    distances: dict[str, list[list[float]]] = {m.name: [] for m in frechet.MEASURES}
    for some in crops:  # clip by clip, so that there is an interval
        own = frechet.Statistics.of(encoder.features(some))
        made = [own, *(frechet.Statistics.of(encoder.features(_blurred(some, sigma))) for sigma in BLURS_PX[1:])]
        rows = [frechet.evaluate(own, one, paired=True) for one in made]
        for name, values in distances.items():
            values.append([_number(row[name]) for row in rows])
    return [
        *trials,
        *(
            Trial(
                "blur, sigma in px",
                m.title.format(encoder=encoder.title),
                BLURS_PX,
                "rises",
                np.array(distances[m.name]),
            )
            for m in frechet.MEASURES
        ),
    ]


def _blurred(pictures: np.ndarray, sigma: float) -> np.ndarray:
    return pictures if not sigma else np.stack([cv2.GaussianBlur(p, (0, 0), sigma) for p in pictures])


def _table(trials: list[Trial], title: str) -> Table:
    shown = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("Trial", "Measure", "Mean, level by level", "Should", "Change", "95 %", "Does it?"):
        shown.add_column(heading, overflow="fold")
    for record in map(_record, trials):
        means = " ".join(
            f"{level}: {'–' if mean is None else f'{mean:.3g}'}"
            for level, mean in zip(record["levels"], record["means"], strict=True)
        )
        span = record["interval"]
        shown.add_row(
            record["trial"],
            record["measure"],
            means,
            record["wanted"],
            f"{record['change'] or 0:.3g}",
            "–" if span is None else f"{span[0]:.3g} to {span[1]:.3g}",
            record["holds"],
        )
    return shown


def _plots(trials: list[Trial], title: str):
    from plotly.subplots import make_subplots

    columns = 4
    figure = make_subplots(
        -(-len(trials) // columns), columns, subplot_titles=[f"{t.name}: {t.measure} ({t.verdict()})" for t in trials]
    )
    for k, trial in enumerate(trials):
        place = {"row": k // columns + 1, "col": k % columns + 1}
        levels = [str(level) for level in trial.levels]
        for row in trial.values:
            figure.add_scatter(x=levels, y=row, line={"color": "#bbb", "width": 1}, showlegend=False, **place)
        mean = [np.nanmean(c) if np.isfinite(c).any() else None for c in trial.values.T]
        figure.add_scatter(x=levels, y=mean, line={"color": "#0a5", "width": 3}, showlegend=False, **place)
    return figure.update_layout(title=title, height=260 * (-(-len(trials) // columns)), template="plotly_white")


def _picture(trials: list[Trial], title: str, path: Path) -> None:
    """The same plots as a PNG, for docs/metrics.md."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 4
    figure = Figure(figsize=(14, 2.4 * -(-len(trials) // columns)), layout="constrained")
    figure.suptitle(title)
    for k, trial in enumerate(trials):
        axes = figure.add_subplot(-(-len(trials) // columns), columns, k + 1)
        axes.set_title(f"{textwrap.fill(f'{trial.name}: {trial.measure}', 50)}\n({trial.verdict()})", fontsize=7)
        axes.tick_params(labelsize=6)
        levels = [str(level) for level in trial.levels]
        axes.plot(levels, trial.values.T, color="#bbb", linewidth=0.8)
        axes.plot(levels, [np.nanmean(c) if np.isfinite(c).any() else np.nan for c in trial.values.T], color="#0a5")
    FigureCanvasAgg(figure).print_png(path)
