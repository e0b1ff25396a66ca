# SPDX-License-Identifier: Apache-2.0
"""The demo's picture, drawn from the files it has written: the drive, its loop edges, precision and recall, and the
trajectory before and after."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from vlad_ros.plots.style import FALSE, GREEN, ORANGE, PATH, TRUE
from vlad_ros.stamps import SECOND

LINES: dict[str, dict[str, Any]] = {
    "before": {"color": ORANGE, "lw": 1.3, "label": "by odometry alone"},
    "after": {"color": GREEN, "lw": 1.3, "label": "with the loops (pose graph)"},
}


def draw(folder: Path, path: Path) -> None:
    """Read trajectory.csv, edges.csv and metrics.json in `folder`, write the PNG."""
    stamps, lines = _trajectory(folder / "trajectory.csv")
    index = {stamp: i for i, stamp in enumerate(stamps)}
    with open(folder / "edges.csv", newline="") as file:
        edges = [
            (index[int(r["query_stamp_ns"])], index[int(r["match_stamp_ns"])], r["true"] == "1")
            for r in csv.DictReader(file)
        ]
    metrics = json.loads((folder / "metrics.json").read_text())
    corrected = metrics["rmse_after_m"] is not None
    figure, panels = plt.subplots(1 + corrected, 2, figsize=(11, 10.4 if corrected else 5.6), layout="constrained")
    panels, seconds = panels.ravel(), np.array(stamps) / SECOND
    _plan(panels[0], lines["true"], edges)
    _over_time(panels[1], seconds, edges)
    handles = [
        Line2D([], [], color=PATH, lw=2, label="drive"),
        Line2D([], [], color="black", ls="none", marker="^", ms=7, label="start"),
        Line2D([], [], color=TRUE, lw=1.5, marker="o", ms=4, label="true loop (marker: where it was announced)"),
        Line2D([], [], color=FALSE, lw=1.5, ls="--", marker="x", ms=5, label="false loop"),
    ]
    title = (
        f"{len(edges)} keyframes announce a loop: precision {metrics['precision']:.3f} of {metrics['edges']} edges, "
        f"recall {metrics['recall']:.3f} of {metrics['revisits']} revisits (within {metrics['radius_m']:g} m)"
    )
    if corrected:
        _before_after(panels[2], panels[3], seconds, lines)
        handles += [Line2D([], [], **style) for style in LINES.values()]
        title += (
            f"\nRMSE {metrics['rmse_before_m']:.2f} m by odometry alone, {metrics['rmse_after_m']:.2f} m with the loops"
        )
    figure.suptitle(title)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles) // (1 + corrected), frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _trajectory(path: Path) -> tuple[list[int], dict[str, np.ndarray]]:
    """Stamps, and x y (S, 2) of each line, NaN where it has no pose."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    prefixes = {"true": "", "before": "before_", "after": "after_"}
    lines = {
        name: np.array([[float(r[f"{prefix}{axis}_m"] or "nan") for axis in "xy"] for r in rows])
        for name, prefix in prefixes.items()
    }
    return [int(r["stamp_ns"]) for r in rows], lines


def _before_after(plan: Axes, time: Axes, seconds: np.ndarray, lines: dict[str, np.ndarray]) -> None:
    """The trajectory by odometry and as the pose graph has corrected it, laid over the true one, and how far each is
    off."""
    plan.plot(*lines["true"].T, color=PATH, lw=4, alpha=0.5)
    for name, style in LINES.items():
        known = np.isfinite(lines[name][:, 0])
        plan.plot(*lines[name][known].T, **style)
        off = np.linalg.norm(lines[name] - lines["true"], axis=1)
        time.plot(seconds[known], off[known], **style)
    plan.set(xlabel="x [m]", ylabel="y [m]", title="trajectory before and after", aspect="equal")
    plan.margins(0.08)
    time.set(xlabel="time [s]", ylabel="distance from the true position [m]", ylim=(0, None), title="its error")


def _plan(axes: Axes, xy: np.ndarray, edges: list[tuple[int, int, bool]]) -> None:
    """The drive from above."""
    axes.plot(*xy.T, color=PATH, lw=2, zorder=1)
    for true, colour, style, marker in ((True, TRUE, "solid", "o"), (False, FALSE, "dashed", "x")):
        lines = np.array([xy[[query, match]] for query, match, verdict in edges if verdict == true]).reshape(-1, 2, 2)
        axes.add_collection(LineCollection(list(lines), colors=colour, linestyles=style, linewidths=1.2, zorder=2))
        axes.scatter(lines[:, 0, 0], lines[:, 0, 1], color=colour, marker=marker, s=14, zorder=3)
    axes.plot(*xy[0], marker="^", color="black", ms=8, ls="none", zorder=4)
    axes.set(xlabel="x [m]", ylabel="y [m]", title="from above", aspect="equal")
    axes.margins(0.08)


def _over_time(axes: Axes, seconds: np.ndarray, edges: list[tuple[int, int, bool]]) -> None:
    """Time of the query against time of the match: rising where the drive repeats itself, falling where it returns."""
    for true, colour, marker in ((True, TRUE, "o"), (False, FALSE, "x")):
        chosen = np.array([[seconds[query], seconds[match]] for query, match, verdict in edges if verdict == true])
        if len(chosen):
            axes.scatter(chosen[:, 0], chosen[:, 1], color=colour, marker=marker, s=14, linewidths=1.2)
    axes.plot(seconds[[0, -1]], seconds[[0, -1]], color=PATH, lw=1)
    axes.set(xlabel="announced at [s]", ylabel="recognised as the place at [s]", title="over time", aspect="equal")
