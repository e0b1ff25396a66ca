# SPDX-License-Identifier: Apache-2.0
"""Panels, which a report is made of: a figure or the reason why there is none; and the look and thinning they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from vlad_ros.plots import style
from vlad_ros.types import Ints

LINES = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILION, style.PURPLE, style.SKY, style.BLACK, style.GREY)
DASHES = ("solid", "dash", "dot", "dashdot")
FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"}
GRID = {"gridcolor": "#e4e4e4", "linecolor": "#888888", "zeroline": False, "ticks": "outside", "tickcolor": "#888888"}


@dataclass(frozen=True, eq=False)
class Panel:
    """One section of the page. `name`: id of the figure's element; `protocol`: how its numbers were measured; `note`:
    what is not drawn, or without a figure the reason; `wide`: over the whole width."""

    name: str
    title: str
    protocol: str
    figure: go.Figure | None = None
    note: str = ""
    wide: bool = False


def thinned(count: int, most: int) -> Ints:
    """Indices of at most `most` of `count` things, evenly spread, first and last included."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def thinning(drawn: int, count: int, what: str) -> str:
    """A sentence when fewer things are drawn than there are, else nothing."""
    return f"{drawn:,} of {count:,} {what} are drawn. " if drawn < count else ""


def line_style(number: int) -> dict[str, str]:
    """Colour and dashes of line `number`; unique for the first 32."""
    return {"color": LINES[number % len(LINES)], "dash": DASHES[number // len(LINES) % len(DASHES)]}


def dress(figure: go.Figure, height: int, top: int = 40) -> go.Figure:
    """Apply the look that all figures share, with the legend below the axes and `top` [pixel] above them."""
    figure.update_layout(
        height=height,
        template="none",
        font=FONT,
        margin={"l": 70, "r": 25, "t": top, "b": 95},
        legend={"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom", "x": 0.5, "xanchor": "center"},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(**GRID, title_standoff=8)
    figure.update_yaxes(**GRID, title_standoff=8)
    return figure
