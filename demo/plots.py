"""Plots of the benchmark: sync against picture, sync by category, offsets, failures; figures of plotly."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from resynced.records import CATEGORIES

from .html import FRAME_MS

Words = Mapping[str, str]
COLOURS = ("#0d9488", "#d97706", "#7c3aed", "#db2777", "#2563eb", "#65a30d", "#64748b", "#dc2626")
GREY = "#7b8799"  # readable on both grounds
REASON_LETTERS = 48


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each system, the same in every plot."""
    return {label: COLOURS[k % len(COLOURS)] for k, label in enumerate(labels)}


def plane(table: Mapping[str, Any], labels: Mapping[str, str], t: Words) -> go.Figure | None:
    """LSE-D with its interval against the Fréchet distance: lower left is better. None where no system has both.

    labels  of all systems of the table by fingerprint, in its order: as in the other plots
    """
    rows = [r for r in table["rows"] if r["distance"] and r["distance"]["frechet"] is not None]
    rows = [r for r in rows if r["values"]["lse_d"]["mean"] is not None]
    if not rows:
        return None
    figure, colour = go.Figure(), colours(list(labels.values()))
    for row in rows:
        label = labels[row["fingerprint"]]
        value = row["values"]["lse_d"]
        low, high = (value["mean"] if value[k] is None else value[k] for k in ("low", "high"))
        bar = {"type": "data", "array": [high - value["mean"]], "arrayminus": [value["mean"] - low], "thickness": 1.5}
        figure.add_scatter(
            x=[row["distance"]["frechet"]],
            y=[value["mean"]],
            name=_plain(label),
            mode="markers",
            error_y=bar,
            marker={"size": 11, "color": colour[label]},
            hovertemplate=f"%{{fullData.name}}<br>{rows[0]['distance']['title']} %{{x:.3f}}"
            f"<br>LSE-D %{{y:.2f}} ({low:.2f}–{high:.2f})<extra></extra>",
        )
    return _dressed(figure, t["plot_plane"], f"{rows[0]['distance']['title']} ↓", "LSE-D ↓")


def by_category(clips: pd.DataFrame, labels: Mapping[str, str], t: Words) -> go.Figure | None:
    """LSE-D of every clip, by category. labels: of systems by fingerprint, in order."""
    known = clips[clips["lse_d"].notna()]
    if known.empty:
        return None
    figure, colour = go.Figure(), colours(list(labels.values()))
    for fingerprint, label in labels.items():
        mine = known[known["fingerprint"] == fingerprint]
        if len(mine):
            figure.add_box(
                x=mine["category"].map(lambda c: t.get(f"category_{c}", c)),
                y=mine["lse_d"],
                name=_plain(label),
                marker_color=colour[label],
                boxpoints="all" if len(known) < 2000 else "outliers",
                jitter=0.4,
                pointpos=0,
                marker_size=4,
                line_width=1.5,
                text=mine["pair"],
                hovertemplate="%{text}: %{y:.2f}<extra>%{fullData.name}</extra>",
            )
    order = [t[f"category_{c}"] for c in CATEGORIES]
    figure.update_layout(boxmode="group", xaxis={"categoryorder": "array", "categoryarray": order})
    return _dressed(figure, t["plot_category"], "", "LSE-D ↓")


def offsets(clips: pd.DataFrame, labels: Mapping[str, str], t: Words) -> go.Figure | None:
    """How far sound and mouth are apart, in milliseconds: share of each system's clips."""
    known = clips[clips["offset"].notna()]
    if known.empty:
        return None
    figure, colour = go.Figure(), colours(list(labels.values()))
    for fingerprint, label in labels.items():
        mine = known[known["fingerprint"] == fingerprint]
        if len(mine):
            counts = mine["offset"].astype(int).value_counts().sort_index()
            figure.add_bar(
                x=[int(o) * FRAME_MS for o in counts.index],
                y=(counts / len(mine)).tolist(),
                name=_plain(label),
                marker_color=colour[label],
                customdata=counts.tolist(),
                hovertemplate="%{x:+d} ms: %{customdata}<extra>%{fullData.name}</extra>",
            )
    ends = [int(known["offset"].min()) - 2, int(known["offset"].max()) + 2]
    figure.update_layout(
        barmode="group",
        bargap=0.4,
        yaxis={"tickformat": ".0%"},
        xaxis={"range": [e * FRAME_MS for e in ends], "dtick": FRAME_MS if ends[1] - ends[0] < 14 else None},
    )
    return _dressed(figure, t["plot_offsets"], t["plot_ms"], t["plot_share"])


def failures(found: pd.DataFrame, labels: Mapping[str, str], t: Words) -> go.Figure | None:
    """Clips without numbers, by reason.

    found  `resynced.leaderboard.failures`; labels: of systems by their names in it
    """
    if found.empty:
        return None
    figure, colour = go.Figure(), colours(list(labels.values()))
    cut = found["reason"].map(lambda r: "<br>".join(textwrap.wrap(_plain(r), REASON_LETTERS)[:3]))
    for system, mine in found.assign(cut=cut).groupby("system"):
        summed = mine.groupby("cut", sort=False)["clips"].sum()
        figure.add_bar(
            y=summed.index.tolist(),
            x=summed.tolist(),
            name=_plain(labels.get(system, system)),
            orientation="h",
            marker_color=colour.get(labels.get(system), GREY),
            hovertemplate="%{x}<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(barmode="stack", yaxis_autorange="reversed")
    return _dressed(figure, t["plot_failures"], t["plot_clips"], "")


def _plain(said: str) -> str:
    """Text that plotly does not take for its markup."""
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _dressed(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    axis = {"gridcolor": "rgba(123,135,153,0.25)", "zerolinecolor": "rgba(123,135,153,0.5)", "automargin": True}
    return figure.update_layout(
        title={"text": title, "font": {"size": 15}, "x": 0, "xref": "paper"},
        xaxis=axis,
        xaxis_title_text=x,
        yaxis=axis,
        yaxis_title_text=y,
        autosize=True,
        font={"family": "system-ui, sans-serif", "size": 13, "color": GREY},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        height=360,
        showlegend=True,
        margin={"l": 8, "r": 8, "t": 44, "b": 8},
        legend={"orientation": "h", "y": -0.28, "x": 0},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
    )
