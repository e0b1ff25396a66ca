# SPDX-License-Identifier: Apache-2.0
"""Two descriptors side by side: what each cluster contributes to their similarity, and NetVLAD against mean pooling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from vlad_ros.model.describer import Describer
from vlad_ros.plots import style
from vlad_ros.plots.insides import Insides, look_inside
from vlad_ros.types import F32, F64

NOISE, KEPT = 0.05, 0.5  # m, standard deviation of each coordinate; share of the points that stay


@dataclass(frozen=True, eq=False)
class Structure:
    """Descriptors `a` and `b` as (K, C), their `cosine` and each cluster's part in it, `contributions` (K,).
    `compared`: the similarity that the search uses, of the descriptors or of their projections. `with_noise` and
    `other`: similarity of scan A to itself with noise and to scan B, by NetVLAD and by mean pooling of the same
    features, (2,) each."""

    a: F32
    b: F32
    cosine: float
    compared: float
    contributions: F64
    with_noise: F64
    other: F64

    @property
    def gap(self) -> F64:
        """(2,): how much more similar scan A with noise is than scan B."""
        return self.with_noise - self.other


def add_noise(points: np.ndarray, seed: int = 0) -> F32:
    """A worse scan of the same scene: half of the points (N, >=3) [m], with noise of 0.05 m (1 sigma, each axis)."""
    rng = np.random.default_rng(seed)
    noisy = np.asarray(points, np.float32)[rng.random(len(points)) < KEPT]
    noisy[:, :3] += rng.normal(0.0, NOISE, (len(noisy), 3)).astype(np.float32)
    return noisy


def look_at_noisy(describer: Describer, points: np.ndarray) -> Insides:
    """The scan `points` (N, >=3) with noise, described."""
    try:
        return look_inside(describer, add_noise(points))
    except ValueError as error:
        raise ValueError(f"the first scan with half of its points and noise: {error}") from error


def mean_pooled(inside: Insides) -> F64:
    """(C,) unit norm: the descriptor if both heads took the weighted mean of their features, fused alike."""
    pooled = [unit(head.weights.astype(np.float64) @ head.features) for head in (inside.fusion, inside.bev)]
    return unit(inside.share * pooled[0] + (1.0 - inside.share) * pooled[1])


def unit(vector: F64) -> F64:
    """`vector` over its length; zeros stay."""
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def compute(a: Insides, b: Insides, noisy: Insides) -> Structure:
    """Scan A, scan B, and scan A with noise."""
    clusters = len(a.fusion.centroids)
    left, right = (each.descriptor.reshape(clusters, -1) for each in (a, b))
    contributions = (left.astype(np.float64) * right).sum(axis=1)

    def similarities(other: Insides) -> F64:
        return np.array([a.descriptor.astype(np.float64) @ other.descriptor, mean_pooled(a) @ mean_pooled(other)])

    cosine, compared = float(contributions.sum()), float(a.compared @ b.compared)
    return Structure(left, right, cosine, compared, contributions, similarities(noisy), similarities(b))


def draw(data: Structure, a: Insides, b: Insides, extent: float, names: tuple[str, str]) -> Figure:
    """Descriptors and rasters above; contributions and comparisons below."""
    figure = Figure(figsize=(17, 12.5), layout="constrained")
    top, bottom = style.split(figure, 2, 1, height_ratios=(1.35, 1))
    _descriptors(top, data, a, b, extent)
    left, right = bottom.subplots(1, 2, width_ratios=(1.5, 1))
    _contributions(left, data)
    _aggregations(right, data)
    figure.suptitle(f"Descriptors of A: {names[0]}, and B: {names[1]}", fontsize=14)
    return figure


def _descriptors(figure: SubFigure, data: Structure, a: Insides, b: Insides, extent: float) -> None:
    grid = figure.add_gridspec(3, 2, width_ratios=(2.2, 1))
    images = [figure.add_subplot(grid[row, 0]) for row in range(3)]
    limit = float(max(np.abs(data.a).max(), np.abs(data.b).max()))
    signed: dict[str, Any] = {"cmap": style.DIVERGING, "vmin": -limit, "vmax": limit}
    difference: dict[str, Any] = {"cmap": style.SEQUENTIAL, "vmin": 0.0}
    clusters, channels = data.a.shape
    size = len(a.compared)
    projected = (
        f" (projected to {size} numbers, as the search compares: {data.compared:.3f})" if size < data.a.size else ""
    )
    rows = (
        (data.a, signed, f"descriptor of A, {clusters} x {channels}"),
        (data.b, signed, f"descriptor of B, {clusters} x {channels}"),
        (np.abs(data.a - data.b), difference, f"|A - B|, cosine {data.cosine:.3f}{projected}"),
    )
    for axes, (image, look, title) in zip(images, rows, strict=True):
        drawn = axes.imshow(image, aspect="auto", interpolation="nearest", **look)
        axes.set(xlabel="feature channel [-]", ylabel="cluster [-]", title=title)
        style.count_axis(axes.yaxis)
        figure.colorbar(drawn, ax=axes, label="value [-]", pad=0.01)
    maps = grid[:, 1].subgridspec(2, 1)
    for row, (inside, name) in enumerate(((a, "A"), (b, "B"))):
        axes = figure.add_subplot(maps[row, 0])
        style.draw_raster(axes, inside.raster, extent, f"bird's-eye view of {name}")


def _contributions(axes: Axes, data: Structure) -> None:
    carries = data.contributions >= 0
    clusters = np.arange(len(carries))
    handles: list[Artist] = []
    for chosen, colour, hatch, label in (
        (carries, style.TRUE, "", "clusters that raise the similarity"),
        (~carries, style.FALSE, "//", "clusters that lower it"),
    ):
        axes.bar(clusters[chosen], data.contributions[chosen], color=colour, hatch=hatch)
        total = data.contributions[chosen].sum()
        handles.append(Patch(color=colour, hatch=hatch, label=f"{label}: {chosen.sum()}, {total:+.3f}"))
    even = axes.axhline(1.0 / len(clusters), color=style.GREY, ls=":", label="all equal, if B were A")
    axes.axhline(0.0, color="black", lw=0.8)
    axes.set(
        xlabel="cluster [-]",
        ylabel="contribution to the similarity [-]",
        title=f"contributions of the clusters, sum {data.contributions.sum():.3f}",
        xticks=clusters if len(clusters) <= 32 else clusters[::4],
    )
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))
    axes.legend(handles=[*handles, even], loc="upper center", frameon=False)


def _aggregations(axes: Axes, data: Structure) -> None:
    at = np.arange(2)
    bars = (
        (-0.2, data.with_noise, style.TRUE, "", "A and A with noise"),
        (0.2, data.other, style.ORANGE, "//", "A and B"),
    )
    for shift, heights, colour, hatch, label in bars:
        drawn = axes.bar(at + shift, heights, 0.36, color=colour, hatch=hatch, label=label)
        axes.bar_label(drawn, fmt="%.3f", padding=2)
    titles = [f"{name}\ngap {gap:+.3f}" for name, gap in zip(("NetVLAD", "mean pooling"), data.gap, strict=True)]
    axes.set_xticks(at, titles)
    low = min(0.0, float(data.other.min()) - 0.1)
    axes.set(
        ylabel="similarity (cosine) [-]",
        ylim=(low, 1.3),
        title=f"noise: {NOISE:g} m on each coordinate, {KEPT:.0%} of the points",
    )
    axes.axhline(0.0, color="black", lw=0.8)
    axes.legend(loc="upper center", ncols=2, frameon=False)


def lines(data: Structure) -> list[str]:
    """What the picture says, for a terminal."""
    out = [
        f"cosine        {data.cosine:.3f}, {data.compared:.3f} as the search compares; clusters that lower it: "
        f"{(data.contributions < 0).sum()} of {len(data.contributions)}"
    ]
    for name, noise, other, gap in zip(("NetVLAD", "mean pooling"), data.with_noise, data.other, data.gap, strict=True):
        out.append(f"{name:<13} A and A with noise {noise:.3f}   A and B {other:.3f}   gap {gap:+.3f}")
    return out


def make(a: Insides, b: Insides, noisy: Insides, extent: float, names: tuple[str, str], path: Path) -> Structure:
    """Compute, draw and save."""
    data = compute(a, b, noisy)
    style.save(draw(data, a, b, extent, names), path)
    return data
