# SPDX-License-Identifier: Apache-2.0
"""The folder that `vlad evaluate --out` leaves, read back, and its figures."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from vlad_ros.evaluation.metrics import sweep
from vlad_ros.evaluation.protocols import NO_HIT, Outcome
from vlad_ros.plots import style
from vlad_ros.report.panel import Panel, dress, line_style, thinned, thinning
from vlad_ros.types import F64, Bools, Ints

AGAIN = "measure again with vlad evaluate --out"
MOST, BARS = 1000, 40
SHARE = [0.0, 1.02]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """`about` is configuration.json, `metrics` metrics.json; the columns of queries.csv (Q,) each: `match` and `rank`
    are -1 where there is none, `similarity` and `distance` [m] NaN."""

    path: Path
    about: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    frame: Ints
    is_query: Bools
    match: Ints
    similarity: F64
    distance: F64
    correct: Bools
    rank: Ints


def read_evaluation(path: Path) -> Evaluation:
    """Read the folder. ValueError, one sentence, where something is missing, empty or damaged."""
    try:
        about = json.loads((path / "configuration.json").read_text())
        metrics = json.loads((path / "metrics.json").read_text())
        with open(path / "queries.csv", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: an evaluation without {Path(error.filename).name}; {AGAIN}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: a damaged evaluation ({error}); {AGAIN}") from error
    if not rows:
        raise ValueError(f"{path}: an evaluation of no frames, there is nothing to show")
    try:
        return Evaluation(
            path,
            about,
            metrics,
            frame=_integers(rows, "frame"),
            is_query=_integers(rows, "is_query") == 1,
            match=_integers(rows, "match"),
            similarity=_floats(rows, "similarity"),
            distance=_floats(rows, "distance_m"),
            correct=_integers(rows, "correct") == 1,
            rank=_integers(rows, "rank"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path / 'queries.csv'}: damaged ({error}); {AGAIN}") from error


def _integers(rows: list[dict[str, str]], name: str) -> Ints:
    return np.array([int(row[name] or -1) for row in rows], np.int64)


def _floats(rows: list[dict[str, str]], name: str) -> F64:
    return np.array([float(row[name] or "nan") for row in rows])


def panels(evaluation: Evaluation) -> list[Panel]:
    """All figures of an evaluation, in the order of the page."""
    return [make(evaluation) for make in (_matches, _precision_recall, _recall_at_n, _similarities)]


def _matches(e: Evaluation) -> Panel:
    figure = go.Figure()
    found = np.flatnonzero(e.match >= 0)
    kept = found[thinned(len(found), 2 * MOST)]
    for name, chosen, colour, symbol in (
        ("no revisit", ~e.is_query, style.GREY, "x-thin"),
        ("revisit, best match wrong", e.is_query & ~e.correct, style.FALSE, "square"),
        ("revisit, best match right", e.is_query & e.correct, style.TRUE, "circle"),
    ):
        rows = kept[chosen[kept]]
        line = {"width": 1.2 if symbol == "x-thin" else 0.0, "color": colour}
        figure.add_scatter(
            x=e.frame[rows], y=e.match[rows], mode="markers", name=f"{name} ({int(chosen.sum()):,})",
            customdata=np.stack([e.similarity[rows], e.distance[rows]], axis=1),
            marker={"color": colour, "symbol": symbol, "size": 6, "line": line},
            hovertemplate="frame %{x} to %{y}<br>%{customdata[0]:.3f}, %{customdata[1]:.1f} m away<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="query frame [-]")
    figure.update_yaxes(title="best match [frame]")
    note = thinning(len(kept), len(found), "frames")
    return Panel("matches", "Best match of each frame", e.about["protocol"], dress(figure, 560), note, wide=True)


def _precision_recall(e: Evaluation) -> Panel:
    """Over all thresholds of the best match's similarity, counted as `vlad evaluate` does."""
    rank = np.where(e.rank < 0, NO_HIT, e.rank - 1)
    similarity = np.nan_to_num(e.similarity, nan=-np.inf)
    reverse = np.zeros(len(e.frame), bool)
    curve = sweep(Outcome(is_query=e.is_query, reverse=reverse, best=e.match, similarity=similarity, rank=rank))
    kept = thinned(len(curve.threshold), MOST)
    figure = go.Figure()
    figure.add_scatter(
        x=curve.recall[kept], y=curve.precision[kept], customdata=curve.threshold[kept], mode="lines",
        name="all thresholds of the similarity", line={"color": style.BLUE},
        hovertemplate="threshold %{customdata:.3f}<br>precision %{y:.3f}, recall %{x:.3f}<extra></extra>",
    )  # fmt: skip
    if len(curve.f1):
        best = int(curve.f1.argmax())
        figure.add_scatter(
            x=[curve.recall[best]], y=[curve.precision[best]], mode="markers", name=f"F1max {curve.f1_max:.3f}",
            marker={"symbol": "star", "size": 15, "color": style.FALSE},
            hovertemplate=f"threshold {curve.threshold[best]:.3f}<br>%{{y:.3f}}, recall %{{x:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="recall [share of the revisits]", range=SHARE)
    figure.update_yaxes(title="precision [share of those accepted]", range=SHARE)
    note = thinning(len(kept), len(curve.threshold), "thresholds")
    return Panel("precision_recall", "Precision and recall", e.about["protocol"], dress(figure, 440), note)


def _recall_at_n(e: Evaluation) -> Panel:
    ranks, n = e.rank[e.is_query], np.arange(1, 26)
    if not len(ranks):
        return Panel("recall_at_n", "Recall at N", e.about["protocol"], note="The drive revisits no place.")
    share = [float(((ranks > 0) & (ranks <= k)).mean()) for k in n]
    figure = go.Figure()
    figure.add_scatter(
        x=n, y=share, mode="lines+markers", name=e.about["descriptor"], line=line_style(0), showlegend=True,
        hovertemplate="%{y:.3f} among the first %{x}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="N, matches [-]")
    figure.update_yaxes(title=f"share of {len(ranks):,} revisits [-]", range=SHARE)
    return Panel("recall_at_n", "Recall at N", e.about["protocol"], dress(figure, 440))


def _similarities(e: Evaluation) -> Panel:
    figure = go.Figure()
    edges = np.linspace(np.nanmin(e.similarity), np.nanmax(e.similarity) + 1e-9, BARS + 1)
    for name, chosen, colour, pattern in (
        ("best match right", e.correct, style.TRUE, ""),
        ("best match wrong", e.is_query & ~e.correct, style.FALSE, "/"),
        ("no revisit", ~e.is_query, style.GREY, "."),
    ):
        count = np.histogram(e.similarity[chosen & (e.match >= 0)], edges)[0]
        figure.add_bar(
            x=(edges[1:] + edges[:-1]) / 2, y=count, name=name, marker={"color": colour, "pattern": {"shape": pattern}},
            hovertemplate=f"{name}: %{{y}} around %{{x:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="stack", bargap=0.05)
    figure.update_xaxes(title="similarity of the best match [-]")
    figure.update_yaxes(title="frames [-]")
    return Panel("similarities", "Similarity of best matches", e.about["protocol"], dress(figure, 440))
