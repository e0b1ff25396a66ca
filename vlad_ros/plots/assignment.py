# SPDX-License-Identifier: Apache-2.0
"""One scan's soft assignment: which NetVLAD cluster each keypoint belongs to, and how clearly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from vlad_ros.plots import style
from vlad_ros.plots.insides import Insides
from vlad_ros.types import F32, F64

SHOWN = 3  # clusters whose weights are drawn one by one


@dataclass(frozen=True, eq=False)
class Assignment:
    """`matrix` (C, K) of C clusters and K keypoints, columns sum to 1; `totals` (C,) its rows' sums, K in all;
    `strongest` (K,) each keypoint's cluster and `counts` (C,) its histogram; `entropy` (K,) [bit], 0 (one cluster) to
    log2(C) (uniform); `components` (C, 2): the centroids' two principal components; `explains` (2,): each one's share
    of the variance."""

    matrix: F32
    totals: F64
    strongest: np.ndarray
    counts: np.ndarray
    entropy: F64
    components: F64
    explains: F64


def compute(inside: Insides) -> Assignment:
    """The assignment of the keypoints of `inside` by its fusion head, without their learnt weights."""
    matrix = inside.fusion.assignment
    strongest = matrix.argmax(axis=0)
    p = matrix.astype(np.float64)
    entropy = -(p * np.log2(np.maximum(p, 1e-300))).sum(axis=0)
    components, explains = principal_components(inside.fusion.centroids)
    counts = np.bincount(strongest, minlength=len(matrix))
    return Assignment(matrix, p.sum(axis=1), strongest, counts, entropy, components, explains)


def principal_components(rows: F32, count: int = 2) -> tuple[F64, F64]:
    """`rows` (N, C) on their first `count` principal components (N, count), and each one's share of the variance."""
    centred = rows.astype(np.float64) - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return u[:, :count] * s[:count], s[:count] ** 2 / max(float((s**2).sum()), 1e-300)


def draw(data: Assignment, inside: Insides, extent: float, name: str) -> Figure:
    """Six panels, and the clusters on the raster of side `extent` [m]; `name` says which scan it is."""
    clusters, keypoints = data.matrix.shape
    figure = Figure(figsize=(20, 9.6), layout="constrained")
    left, right = style.split(figure, 1, 2, width_ratios=(1.5, 1))
    axes = left.subplots(2, 3)
    _matrix(axes[0, 0], data, left)
    _totals(axes[0, 1], data)
    _histogram(axes[0, 2], data)
    _entropy(axes[1, 0], data)
    _weights(axes[1, 1], data)
    _centroids(axes[1, 2], data)
    _painted(right.subplots(), data, inside, extent)
    of = "" if keypoints == inside.wanted else f" (of {inside.wanted} wanted)"
    figure.suptitle(f"{name}: soft assignment of {keypoints} keypoints{of} to {clusters} clusters", fontsize=14)
    return figure


def _matrix(axes: Axes, data: Assignment, figure: SubFigure) -> None:
    image = axes.imshow(data.matrix, aspect="auto", cmap=style.SEQUENTIAL, vmin=0.0, interpolation="nearest")
    axes.set(xlabel="keypoint, best score first [-]", ylabel="cluster [-]", title="assignment")
    style.count_axis(axes.yaxis)
    figure.colorbar(image, ax=axes, label="weight, columns sum to 1 [-]", pad=0.02)


def _totals(axes: Axes, data: Assignment) -> None:
    clusters, keypoints = data.matrix.shape
    axes.bar(range(clusters), data.totals, color=style.SKY)
    mean = keypoints / clusters
    axes.axhline(mean, color=style.VERMILION, ls="--")
    axes.set(xlabel="cluster [-]", ylabel="total weight [keypoints]", title="total weight of each cluster")
    _caption(axes, f"dashed: the mean, {keypoints}/{clusters} = {mean:.2f}")
    style.count_axis(axes.xaxis)


def _histogram(axes: Axes, data: Assignment) -> None:
    axes.bar(range(len(data.counts)), data.counts, color=style.BLUE)
    axes.set(xlabel="cluster [-]", ylabel="keypoints [-]", title="strongest cluster of each keypoint")
    used = int((data.counts > 0).sum())
    _caption(axes, f"{used} of {len(data.counts)} clusters are the strongest of some keypoint")
    style.count_axis(axes.xaxis)
    style.count_axis(axes.yaxis)


def _entropy(axes: Axes, data: Assignment) -> None:
    most = np.log2(len(data.matrix))
    axes.vlines(np.arange(len(data.entropy)), 0, data.entropy, color=style.SKY, lw=1)
    axes.scatter(np.arange(len(data.entropy)), data.entropy, s=9, color=style.BLUE, zorder=3)
    axes.axhline(most, color=style.GREY, ls=":")
    axes.set(
        xlabel="keypoint, best score first [-]",
        ylabel="entropy [bit]",
        title="entropy: high is ambiguous",
        ylim=(0, 1.08 * most),
    )
    _caption(axes, f"median {np.median(data.entropy):.2f}; dotted: uniform, log2({len(data.matrix)}) = {most:.2f}")


def _weights(axes: Axes, data: Assignment) -> None:
    shown = min(SHOWN, len(data.matrix))
    for cluster in range(shown):
        colour, marker = style.CLUSTER_COLOURS[cluster], style.CLUSTER_MARKERS[cluster]
        row = data.matrix[cluster]
        axes.plot(row, color=colour, lw=0.8, marker=marker, ms=3.5, label=f"cluster {cluster}")
    axes.set(
        xlabel="keypoint, best score first [-]", ylabel="weight [-]", title=f"weights of the first {shown} clusters"
    )
    axes.set_ylim(0, 1.25 * max(float(data.matrix[:shown].max()), 1e-6))
    axes.legend(loc="upper center", ncols=shown, frameon=False, columnspacing=0.8, handletextpad=0.3, fontsize=9)


def _centroids(axes: Axes, data: Assignment) -> None:
    for cluster, (x, y) in enumerate(data.components):
        colour, marker = style.cluster_style(cluster)
        axes.scatter(x, y, s=70, color=colour, marker=marker, edgecolor="black", lw=0.5, zorder=3)
        side = 1 if cluster % 2 == 0 else -1  # neighbours' numbers on different sides
        at = (9 * side, 8 * side)
        axes.annotate(str(cluster), (x, y), xytext=at, textcoords="offset points", ha="center", va="center")
    first, second = 100 * data.explains
    axes.set(
        xlabel=f"principal component 1 [-] ({first:.0f} % of the variance)",
        ylabel=f"principal component 2 [-] ({second:.0f} %)",
        title="centroids",
    )
    axes.margins(0.15)
    axes.grid(alpha=0.3)


def _painted(axes: Axes, data: Assignment, inside: Insides, extent: float) -> None:
    style.draw_raster(axes, inside.raster, extent, "the same on the bird's-eye view; marker size: keypoint score")
    sizes = marker_sizes(inside.score)
    for cluster in range(len(data.matrix)):
        chosen = data.strongest == cluster
        colour, marker = style.cluster_style(cluster)
        x, y = inside.xy[chosen].T
        axes.scatter(y, x, s=sizes[chosen], color=colour, marker=marker, edgecolor="black", lw=0.6, zorder=3)
    axes.plot(0, 0, marker="+", color="black", ms=12, mew=2, ls="none")
    styles = [(*style.cluster_style(cluster), f"{cluster} ({count})") for cluster, count in enumerate(data.counts)]
    handles = [
        Line2D([], [], color=colour, marker=marker, ms=7, mec="black", mew=0.6, ls="none", label=label)
        for colour, marker, label in styles
    ]
    axes.figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=8,
        frameon=False,
        title="cluster (keypoints)",
        columnspacing=1.0,
        handletextpad=0.1,
    )


def marker_sizes(score: F32) -> F64:
    """Areas [pt^2], linear in the score: 20 for the scan's lowest, 120 for its highest."""
    low, high = float(score.min()), float(score.max())
    return 20.0 + 100.0 * (score.astype(np.float64) - low) / max(high - low, 1e-9)


def _caption(axes: Axes, text: str) -> None:
    """A second, smaller line of the title."""
    axes.set_title(axes.get_title(), pad=20)
    axes.text(0.5, 1.02, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=9)


def lines(data: Assignment) -> list[str]:
    """What the picture says, for a terminal."""
    clusters, keypoints = data.matrix.shape
    heaviest = int(data.totals.argmax())
    return [
        f"assignment    {keypoints} keypoints, {clusters} clusters, {(data.counts > 0).sum()} of them the strongest "
        "of some keypoint",
        f"heaviest      cluster {heaviest} with {data.totals[heaviest]:.1f} keypoints, the mean is "
        f"{keypoints / clusters:.1f}",
        f"entropy       median {np.median(data.entropy):.2f} bit of {np.log2(clusters):.2f}",
    ]


def make(inside: Insides, extent: float, name: str, path: Path) -> Assignment:
    """Compute, draw and save."""
    data = compute(inside)
    style.save(draw(data, inside, extent, name), path)
    return data
