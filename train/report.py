"""A run as one page, also while it trains: `python -m train report RUN` writes RUN/report.html.

Curves from log.jsonl, from the best weights an ROC of in sync against off sync, a histogram of found offsets (experts
and evaluators), or a sheet of samples (generators: input, reference, output, truth).
"""

from __future__ import annotations

import base64
import html
from pathlib import Path

import cv2
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lipsync.checkpoints import state_dict as fitting

from . import metrics
from .config import Config
from .data.arrays import Arrays
from .loop import read_log
from .metrics import MOST, offset_curve
from .run import build
from .tasks import syncnet


def report(run: Path, data: Path | None = None, clips: int = 24) -> Path:
    """Write run/report.html; without `data` curves alone. Returns its path."""
    config = Config.load(run)
    lines = read_log(run)
    parts = [_plot(curves(lines))]
    if data is not None and (run / "best.safetensors").exists():
        task = build(config, data)
        network = task.networks[task.kept]
        network.load_state_dict(fitting.read(run / "best.safetensors"))
        network.eval()
        if config.task == "wav2lip":
            parts.append(
                _picture(
                    sample_sheet(network, task.tune, range(0, len(task.tune.clips), max(1, len(task.tune.clips) // 6)))
                )
            )
        else:
            parts += [_plot(f) for f in sync_plots(network, task, clips)]
    page = run / "report.html"
    title = html.escape(f"{config.task} {run.name}")
    page.write_text(
        f"<!doctype html><meta charset=utf-8><title>{title}</title>"
        f"<style>body{{font:15px system-ui;margin:2em;max-width:1100px}}"
        f"pre{{background:#f4f4f4;padding:1em}}img{{max-width:100%}}</style><h1>{title}</h1>"
        f"<script>{_plotly()}</script>"
        + "\n".join(parts)
        + f"<h2>Configuration</h2><pre>{html.escape((run / 'config.json').read_text())}</pre>"
    )
    return page


def curves(lines: list[dict]) -> go.Figure:
    """Every number of the log over the steps: training as a running median, validation as points."""
    steps, checks = [x for x in lines if "validation" not in x], [x for x in lines if "validation" in x]
    names = [k for k in (steps[-1] if steps else {}) if k not in ("step",)]
    judged = list(checks[-1]["validation"]) if checks else []
    figure = make_subplots(
        rows=-(-(len(names) + len(judged)) // 3) or 1,
        cols=3,
        subplot_titles=names + [f"validation: {k}" for k in judged],
    )
    for place, name in enumerate(names + judged):
        row, column = place // 3 + 1, place % 3 + 1
        if place < len(names):
            x, y = [s["step"] for s in steps if name in s], [s[name] for s in steps if name in s]
            width = max(1, len(y) // 50)
            y = [float(np.median(y[max(0, k - width) : k + 1])) for k in range(len(y))]
            figure.add_trace(go.Scatter(x=x, y=y, mode="lines", showlegend=False), row, column)
        else:
            x, y = [c["step"] for c in checks], [c["validation"].get(name) for c in checks]
            figure.add_trace(go.Scatter(x=x, y=y, mode="lines+markers", showlegend=False), row, column)
    figure.update_layout(height=230 * (-(-(len(names) + len(judged)) // 3) or 1), margin={"t": 40, "b": 20})
    return figure


def sync_plots(network, task, clips: int) -> list[go.Figure]:
    """ROC of true against false pairs of one clip, and where offsets are found, on the speakers that choose."""
    window = () if task.config.task == "syncnet" else (task.config.window,)
    embed_clip = syncnet.embed_clip if task.config.task == "syncnet" else metrics.embed_clip
    true, false, offsets = [], [], []
    for i in task.chosen[:clips]:
        audio, face = embed_clip(network, task.tune, i, *window)
        likeness = face @ audio.T
        far = np.abs(np.subtract.outer(range(len(face)), range(len(face)))) >= 3
        true += likeness.diagonal().tolist()
        false += likeness[far].tolist()
        offsets.append(int(offset_curve(audio, face).argmax()) - MOST)
    x, y, area = roc(np.array(true), np.array(false))
    curve = go.Figure(go.Scatter(x=x, y=y, mode="lines"))
    curve.update_layout(
        title=f"In sync against off sync, {len(offsets)} clips: area {area:.3f}",
        xaxis_title="false alarms",
        yaxis_title="found",
        height=400,
    )
    bars = go.Figure(go.Histogram(x=offsets, xbins={"start": -MOST - 0.5, "end": MOST + 0.5, "size": 1}))
    bars.update_layout(title="Offset found (frames; 0 is as recorded)", height=350)
    return [curve, bars]


def roc(true: np.ndarray, false: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """False alarms, finds (200 points each) and the area under the curve."""
    cuts = np.quantile(np.concatenate([true, false]), np.linspace(1, 0, 200))
    x, y = (np.array([(v >= c).mean() for c in cuts]) for v in (false, true))
    ranks = np.concatenate([true, false]).argsort().argsort() + 1.0
    area = (ranks[: len(true)].sum() - len(true) * (len(true) + 1) / 2) / (len(true) * len(false))
    return x, y, float(area)


def sample_sheet(network, arrays, clips, columns: int = 10) -> np.ndarray:
    """Rows of faces (H, W, 3) uint8 RGB; for each clip: input, reference, its own voice, truth, a foreign voice."""
    from .inference import crops, foreign, generate, mels_of, references_of

    rows = []
    for i in clips:
        faces = crops(arrays, i)
        shown = references_of(arrays, i, faces, network)
        picked = np.linspace(0, len(faces) - 1, columns).astype(int)
        masked = faces.copy()
        masked[:, 48:] = 0
        own = generate(network, faces, shown, mels_of(arrays, i, len(faces), network.mel_start))
        other = generate(network, faces, shown, mels_of(arrays, foreign(arrays, i), len(faces), network.mel_start))
        rows += [np.concatenate(list(x[picked]), axis=1) for x in (masked, shown[..., :3], own, faces, other)]
        rows.append(np.full((6, *rows[-1].shape[1:]), 255, np.uint8))
    width = max(r.shape[1] for r in rows)
    return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows])


def contact_sheet(networks: list, arrays: Arrays, people: int = 20, columns: int = 14, step: int = 2) -> np.ndarray:
    """Unseen faces under another speaker's voice, (H, W, 3) uint8 RGB: for each person a row of the untouched clip and
    one for each network, `columns` frames, every `step`th, from the stretch in which most is said."""
    from .inference import LOWER, crops, foreign, generate, mels_of, references_of

    longest = [max(ids, key=lambda i: arrays.clips[i].frames) for ids in arrays.speakers.values()]
    rows = []
    for k in np.linspace(0, len(longest) - 1, min(people, len(longest))).astype(int):
        i, span = longest[k], columns * step
        voice, faces = foreign(arrays, i), crops(arrays, i)[: 3 * span]
        length = min(len(faces), arrays.clips[voice].frames)
        spoken = np.convolve(arrays.speech(voice)[:length], np.ones(span), "valid") if length > span else np.zeros(1)
        picked = np.arange(spoken.argmax(), length)[:span:step]
        for network in (None, *networks):
            seen = faces[:length].copy()
            if network is not None:
                shown = references_of(arrays, i, faces, network)[:length]
                made = generate(network, faces[:length], shown, mels_of(arrays, voice, length, network.mel_start))
                seen[:, LOWER:] = made[:, LOWER:]
            row = np.concatenate(list(seen[picked]), axis=1)
            rows.append(np.pad(row, ((0, 0), (0, columns * row.shape[0] - row.shape[1]), (0, 0)), constant_values=255))
        rows.append(np.full((6, *rows[-1].shape[1:]), 255, np.uint8))
    return np.concatenate(rows)


def _plot(figure: go.Figure) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False)


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _picture(sheet: np.ndarray) -> str:
    png = base64.b64encode(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes()).decode()
    words = "Rows of each clip: input, reference, output (own voice), truth, output (another speaker's voice)"
    return f"<h2>Samples on unseen speakers</h2><p>{words}.</p><img src='data:image/png;base64,{png}'>"
