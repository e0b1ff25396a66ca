# SPDX-License-Identifier: Apache-2.0
"""The demo's picture, drawn from the files it has written: the drive, its loop edges, precision and recall."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from vlad_ros.plots.style import FALSE, PATH, TRUE
from vlad_ros.stamps import SECOND


def draw(folder: Path, path: Path) -> None:
    """Read trajectory.csv, edges.csv and metrics.json in `folder`, write the PNG."""
    stamps, xy = _trajectory(folder / "trajectory.csv")
    index = {stamp: i for i, stamp in enumerate(stamps)}
    with open(folder / "edges.csv", newline="") as file:
        edges = [
            (index[int(r["query_stamp_ns"])], index[int(r["match_stamp_ns"])], r["true"] == "1")
            for r in csv.DictReader(file)
        ]
    metrics = json.loads((folder / "metrics.json").read_text())
    figure, (plan, time) = plt.subplots(1, 2, figsize=(11, 5.6), width_ratios=(1, 1))
    _plan(plan, xy, edges)
    _over_time(time, np.array(stamps) / SECOND, edges)
    figure.suptitle(
        f"{len(edges)} keyframes announce a loop: precision {metrics['precision']:.3f} of {metrics['edges']} edges, "
        f"recall {metrics['recall']:.3f} of {metrics['revisits']} revisits (within {metrics['radius_m']:g} m)"
    )
    handles = [
        Line2D([], [], color=PATH, lw=2, label="drive"),
        Line2D([], [], color="black", ls="none", marker="^", ms=7, label="start"),
        Line2D([], [], color=TRUE, lw=1.5, marker="o", ms=4, label="true loop (marker: where it was announced)"),
        Line2D([], [], color=FALSE, lw=1.5, ls="--", marker="x", ms=5, label="false loop"),
    ]
    figure.legend(handles=handles, loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 0.97))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _trajectory(path: Path) -> tuple[list[int], np.ndarray]:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [int(r["stamp_ns"]) for r in rows], np.array([[float(r["x_m"]), float(r["y_m"])] for r in rows])


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
