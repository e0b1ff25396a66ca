# SPDX-License-Identifier: Apache-2.0
"""The statistics of a run as figures: precision and recall, reliability, latency, and health."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.plots import style
from vlad_ros.report import loop_figures as loops
from vlad_ros.report.curves import aligned_in_bins, near, recall_at, reliability, sweep
from vlad_ros.report.panel import Panel, dress, line_style, thinned, thinning
from vlad_ros.runs.tables import Run
from vlad_ros.stamps import SECOND

MOST = 500  # points of a curve
BARS = 40
NO_TRUTH = "The run has no true poses to judge by."
SHARE = [0.0, 1.02]


def panels(run: Run, database: KeyframeDatabase | None) -> list[Panel]:
    """All figures of a run, in the order of the page."""
    judged = (precision_recall, recall_at_n, reliability_curve)
    return [
        loops.trajectory(run),
        *(make(run) for make in judged),
        loops.matrix(run, database),
        latency(run),
        health(run),
    ]


def precision_recall(run: Run) -> Panel:
    """Over all thresholds, and at the run's own."""
    title, protocol = "Precision and recall of the edges", run.about["protocol"]
    if not run.has_truth:
        return Panel("precision_recall", title, protocol, note=NO_TRUTH)
    curve = sweep(run.keyframes, run.closures)
    kept = thinned(len(curve.threshold), MOST)
    figure = go.Figure()
    figure.add_scatter(
        x=curve.recall[kept], y=curve.precision[kept], customdata=curve.threshold[kept], mode="lines",
        name="all thresholds of the probability", line={"color": style.BLUE, "width": 2},
        hovertemplate="threshold %{customdata:.3f}<br>precision %{y:.3f}, recall %{x:.3f}<extra></extra>",
    )  # fmt: skip
    metrics = {name: each["value"] for name, each in run.about["metrics"].items()}
    least = run.about["configuration"]["recognizer"]["min_probability"]
    if metrics["precision"] is not None and metrics["recall"] is not None:
        figure.add_scatter(
            x=[metrics["recall"]], y=[metrics["precision"]], mode="markers",
            name=f"this run, min_probability {least:g}",
            marker={"symbol": "star", "size": 15, "color": style.FALSE},
            hovertemplate="this run<br>precision %{y:.3f}, recall %{x:.3f}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="recall: revisits with a right edge [share]", range=SHARE)
    figure.update_yaxes(title="precision: right edges [share]", range=SHARE)
    note = thinning(len(kept), len(curve.threshold), "thresholds")
    return Panel("precision_recall", title, protocol, dress(figure, 440), note)


def recall_at_n(run: Run) -> Panel:
    """Share of the revisits found among their first N candidates."""
    title, protocol = "Recall at N candidates", run.about["protocol"]
    if not run.has_truth:
        return Panel("recall_at_n", title, protocol, note=NO_TRUTH)
    revisits = int(run.keyframes.is_revisit.sum())
    if not revisits:
        return Panel("recall_at_n", title, protocol, note="The drive revisits no place.")
    closures = run.closures
    most = int(run.about["configuration"]["recognizer"]["top_k"])
    radius = run.about["configuration"]["judge"]["radius"]
    n = np.arange(1, most + 1)
    figure = go.Figure()
    for number, (name, score, hit) in enumerate((
        (f"a keyframe within {radius:g} m, by similarity", closures.similarity, near(run)),
        ("a right edge, by probability", closures.probability, closures.is_right),
    )):  # fmt: skip
        figure.add_scatter(
            x=n, y=recall_at(run.keyframes, closures, score, hit, most), mode="lines+markers", name=name,
            line=line_style(number), marker={"symbol": ("circle", "square")[number], "size": 7},
            hovertemplate="%{y:.3f} among the first %{x}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="N, candidates [-]", dtick=1 if most <= 20 else None, range=[0.5, most + 0.5])
    figure.update_yaxes(title=f"share of {revisits:,} revisits [-]", range=SHARE)
    return Panel("recall_at_n", title, protocol, dress(figure, 440))


def reliability_curve(run: Run) -> Panel:
    """Predicted probability against the share that was right, and the number of candidates at each probability."""
    title = "Reliability: is a probability of 0.9 right nine times in ten?"
    protocol = run.about["protocol"]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.75, 0.25], vertical_spacing=0.06)
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        name="perfectly calibrated",
        line={"color": style.GREY, "dash": "dot"},
        hoverinfo="skip",
    )
    note = ""
    stored = (run.about.get("calibration") or {}).get("reliability") or []
    if stored:
        figure.add_scatter(
            x=[each["said"] for each in stored], y=[each["true"] for each in stored], mode="lines+markers",
            name="at calibration (simulated drives)",
            line={"color": style.ORANGE, "dash": "dash"}, marker={"symbol": "square", "size": 7},
            hovertemplate="predicted %{x:.3f}, right %{y:.3f}<extra></extra>",
        )  # fmt: skip
    if run.has_truth:
        note = _measured(figure, run)
    elif not stored:
        return Panel("reliability", title, protocol, note=NO_TRUTH)
    middle, count = aligned_in_bins(run.closures)
    figure.add_bar(
        x=middle, y=count, width=0.09, marker={"color": style.SKY}, showlegend=False, row=2, col=1,
        hovertemplate="%{y} candidates around %{x:.2f}<extra></extra>",
    )  # fmt: skip
    least = run.about["configuration"]["recognizer"]["min_probability"]
    figure.add_vline(x=least, line={"color": style.BLACK, "width": 1, "dash": "dash"})
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_xaxes(title="predicted probability [-]", row=2)
    figure.update_yaxes(title="right [share]", range=[-0.02, 1.02], row=1)
    figure.update_yaxes(title="candidates [-]", type="log", dtick=1, row=2)
    note += f"Dashed line: min_probability {least:g}. Below: this run's candidates at each probability."
    return Panel("reliability", title, protocol, dress(figure, 550).update_layout(margin_b=125), note)


def _measured(figure: go.Figure, run: Run) -> str:
    curve = reliability(run.closures)
    figure.add_scatter(
        x=curve.said, y=curve.true, mode="lines+markers", name="this run, 95 % intervals",
        error_y={"array": curve.high - curve.true, "arrayminus": curve.true - curve.low, "thickness": 1.2},
        line={"color": style.BLUE}, marker={"size": 8}, customdata=curve.count,
        hovertemplate="predicted %{x:.3f}, right %{y:.3f}<br>%{customdata} candidates<extra></extra>", row=1, col=1,
    )  # fmt: skip
    return f"Expected calibration error {curve.error:.3f} over {int(curve.count.sum()):,} aligned candidates. "


def latency(run: Run) -> Panel:
    """A histogram per stage."""
    title, protocol = "Latency of each stage", "wall time of each keyframe on the computer that played the drive"
    stages = {name: values[np.isfinite(values)] for name, values in run.timing.items()}
    stages = {name: np.maximum(values, 0.01) for name, values in stages.items() if len(values)}
    if not stages:
        return Panel("latency", title, protocol, note="The run has no times.")
    titles = [
        f"{name}: median {np.percentile(ms, 50):.3g} ms, p95 {np.percentile(ms, 95):.3g} ms"
        for name, ms in stages.items()
    ]
    figure = make_subplots(
        rows=len(stages), cols=1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.18 / len(stages)
    )
    low, high = (np.log10(limit([limit(ms) for ms in stages.values()])) for limit in (np.min, np.max))
    edges = np.logspace(low - 0.02, high + 0.02, BARS + 1)
    for number, ms in enumerate(stages.values(), 1):
        count = np.histogram(ms, edges)[0]
        figure.add_bar(
            x=np.sqrt(edges[1:] * edges[:-1]), y=count, width=np.diff(edges), marker={"color": style.BLUE},
            hovertemplate="%{y} keyframes around %{x:.3g} ms<extra></extra>", showlegend=False, row=number, col=1,
        )  # fmt: skip
    figure.update_xaxes(type="log")
    figure.update_xaxes(title="time [ms]", row=len(stages))
    figure.update_yaxes(title="keyframes [-]")
    figure.update_annotations(font={"size": 13})
    return Panel("latency", title, protocol, dress(figure, 150 + 130 * len(stages), top=60))


GROUPS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("played", lambda name: name in ("scans", "keyframes")),
    ("loops", lambda name: name in ("candidates", "accepted") or name.startswith("rejected_")),
    ("dropped or flagged", lambda name: name.startswith("counted_")),
)


def health(run: Run) -> Panel:
    """The counts over the drive, once per second."""
    title, protocol = "Health over the drive", "counts since the start of the drive; time by the stamps"
    counts = {name: values for name, values in run.health.items() if name != "stamp_ns"}
    groups = [(name, [key for key in counts if chosen(key)]) for name, chosen in GROUPS]
    groups = [(name, keys) for name, keys in groups if keys]
    if not groups:
        return Panel("health", title, protocol, note="The run has no counts.")
    seconds = (run.health["stamp_ns"] - run.health["stamp_ns"][0]) / SECOND
    kept = thinned(len(seconds), MOST)
    names = [name for name, _ in groups]
    figure = make_subplots(rows=len(groups), cols=1, shared_xaxes=True, subplot_titles=names, vertical_spacing=0.08)
    number, legends = 0, {}
    for row, (_, keys) in enumerate(groups, 1):
        for key in keys:
            label = key.removeprefix("counted_").replace("_", " ").lower()
            figure.add_scatter(
                x=seconds[kept], y=counts[key][kept], mode="lines", name=label, line=line_style(number), row=row, col=1,
                legend=f"legend{row if row > 1 else ''}", showlegend=True,
                hovertemplate=f"{label}: %{{y}} after %{{x:.0f}} s<extra></extra>",
            )  # fmt: skip
            number += 1
        low, high = figure.layout[f"yaxis{row if row > 1 else ''}"].domain
        beside = {"orientation": "v", "x": 1.02, "xanchor": "left", "y": (low + high) / 2, "yanchor": "middle"}
        legends[f"legend{row if row > 1 else ''}"] = beside | {"yref": "paper"}
    figure.update_xaxes(title="time since the first scan [s]", row=len(groups))
    figure.update_yaxes(title="count [-]", rangemode="tozero")
    figure.update_annotations(font={"size": 13})
    note = thinning(len(kept), len(seconds), "seconds")
    return Panel(
        "health", title, protocol, dress(figure, 190 + 170 * len(groups), top=60).update_layout(**legends), note
    )
