# SPDX-License-Identifier: Apache-2.0
"""What all pictures share: colours that people with any colour vision tell apart, the raster as a backdrop, saving."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from vlad_ros.atomic import replacing
from vlad_ros.types import F32

# Okabe and Ito's colours (2008).
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, BLACK, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#999999"

# Their meaning, in every picture
TRUE, FALSE, MISSED, PATH = BLUE, VERMILION, ORANGE, GREY
QUERY, MATCH = BLUE, ORANGE

CLUSTER_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW, BLACK)
CLUSTER_MARKERS = "osD^vPX*"  # the shape differs where the colours repeat
SEQUENTIAL, DIVERGING = "cividis", "PuOr_r"  # perceptually uniform, safe for colour-blind readers
# Heights as greys on white, so that everything drawn on top stays visible
BACKDROP = LinearSegmentedColormap.from_list("backdrop", ["#c4c4c4", "#5a5a5a"]).with_extremes(bad="white")


def cluster_style(cluster: int) -> tuple[str, str]:
    """Colour and marker of a cluster; unique for the first 64."""
    count = len(CLUSTER_COLOURS)
    return CLUSTER_COLOURS[cluster % count], CLUSTER_MARKERS[cluster // count % len(CLUSTER_MARKERS)]


def draw_raster(axes: Axes, raster: F32, extent: float, title: str = "") -> None:
    """The heights of `raster` (C, H, W) of side `extent` [m] as a map in grey: x (ahead) up, y to the left."""
    heights = np.where(raster[1:].max(axis=0) > 0, raster[0], np.nan)
    half = extent / 2
    axes.imshow(heights, cmap=BACKDROP, extent=(half, -half, -half, half), interpolation="nearest", zorder=0)
    axes.set(xlabel="y, to the left [m]", ylabel="x, ahead [m]", title=title)


def split(figure: Figure | SubFigure, rows: int, columns: int, **ratios: Any) -> list[SubFigure]:
    """Subfigures, row by row; `ratios` as of a GridSpec."""
    grid = figure.add_gridspec(rows, columns, **ratios)
    return [figure.add_subfigure(grid[row, column]) for row in range(rows) for column in range(columns)]


def count_axis(axis: Any) -> None:
    """Ticks at whole numbers only."""
    axis.set_major_locator(MaxNLocator(integer=True))


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG atomically; makes its folder where there is none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
