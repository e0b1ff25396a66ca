# SPDX-License-Identifier: Apache-2.0
"""The figures of a run that show its loops one by one: on the trajectory, and on the similarity matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.plots import style
from vlad_ros.report.curves import best_rows, missed, positions
from vlad_ros.report.panel import Panel, dress, thinned, thinning
from vlad_ros.runs.tables import Run
from vlad_ros.types import F32, F64, Ints

MOST_POINTS, MOST_EDGES, MOST_CELLS = 2000, 500, 250


@dataclass(frozen=True, eq=False)
class LoopClass:
    """Rows of the closures that are drawn alike, thinned; `total`: how many the run has."""

    name: str
    rows: Ints
    total: int
    colour: str
    symbol: str
    dash: str


def classes(run: Run) -> list[LoopClass]:
    """Accepted, wrongly accepted, missed and refused loops; of the last two only the best per keyframe."""
    closures = run.closures
    refused = best_rows(closures, np.flatnonzero(~closures.accepted))
    refused = refused[~np.isin(closures.query[refused], closures.query[closures.accepted])]
    if run.has_truth:
        lost = refused[np.isin(closures.query[refused], missed(run))]
        refused = refused[~np.isin(refused, lost)]
        right, wrong = closures.accepted & closures.is_right, closures.accepted & ~closures.is_right
        kinds = [
            ("refused", refused, style.GREY, "x-thin", "dot"),
            ("missed: refused at a revisit", lost, style.MISSED, "diamond", "dot"),
            ("accepted, right", np.flatnonzero(right), style.TRUE, "circle", "solid"),
            ("accepted, wrong", np.flatnonzero(wrong), style.FALSE, "square", "solid"),
        ]
    else:
        kinds = [
            ("refused", refused, style.GREY, "x-thin", "dot"),
            ("accepted", np.flatnonzero(closures.accepted), style.TRUE, "circle", "solid"),
        ]
    return [
        LoopClass(name, rows[thinned(len(rows), MOST_EDGES)], len(rows), colour, symbol, dash)
        for name, rows, colour, symbol, dash in kinds
    ]


def drawn_rows(run: Run) -> Ints:
    """All rows with a marker to click on."""
    return np.unique(np.concatenate([each.rows for each in classes(run)]))


def trajectory(run: Run) -> Panel:
    """The trajectory and its loops from above; a loop's marker lies half way between its ends."""
    title, protocol = "Trajectory and loops", run.about["protocol"]
    found = positions(run)
    if found is None:
        return Panel("trajectory", title, protocol, note="The run has neither true poses nor odometry.", wide=True)
    xy, source = found
    kept = thinned(len(xy), MOST_POINTS)
    figure = go.Figure()
    figure.add_scatter(
        **_line(xy[kept], run.keyframes.session[kept]), mode="lines", name="trajectory", hoverinfo="skip"
    )
    note = thinning(len(kept), len(xy), "keyframes")
    for each in classes(run):
        _edges(figure, run, xy, each)
        note += thinning(len(each.rows), each.total, f"loops ({each.name})")
    gone = _never_found(run)
    if len(gone):
        figure.add_scatter(
            x=xy[gone, 0], y=xy[gone, 1], mode="markers", name=f"missed: no candidate ({len(gone)})",
            marker={"symbol": "diamond-open", "size": 9, "color": style.MISSED}, hoverinfo="skip",
        )  # fmt: skip
    figure.update_xaxes(title=f"x [m], {source}")
    figure.update_yaxes(title="y [m]", scaleanchor="x", scaleratio=1)
    note += "Where all candidates of a keyframe were refused, only the best is shown. Click on a marker to see why."
    return Panel("trajectory", title, protocol, dress(figure, 640), note, wide=True)


def _never_found(run: Run) -> Ints:
    """Revisits without any candidate; none where truth is not known."""
    lost = missed(run)
    return lost[~np.isin(lost, run.closures.query)]


def _line(xy: F64, session: Ints) -> dict[str, Any]:
    """The line, broken between sessions."""
    cuts = np.flatnonzero(np.diff(session)) + 1
    line = np.insert(xy, cuts, np.nan, axis=0)
    return {"x": line[:, 0], "y": line[:, 1], "line": {"color": style.PATH, "width": 1.5}}


def _edges(figure: go.Figure, run: Run, xy: F64, each: LoopClass) -> None:
    """Lines between the two ends, and the markers to click on."""
    query, match = xy[run.closures.query[each.rows]], xy[run.closures.match[each.rows]]
    gap = np.full_like(query, np.nan)
    lines = np.stack([query, match, gap], axis=1).reshape(-1, 2)
    figure.add_scatter(
        x=lines[:, 0], y=lines[:, 1], mode="lines", hoverinfo="skip", showlegend=False, legendgroup=each.name,
        line={"color": each.colour, "width": 1, "dash": each.dash}, opacity=0.6,
    )  # fmt: skip
    middle = (query + match) / 2
    figure.add_scatter(x=middle[:, 0], y=middle[:, 1], **_markers(run, each))


def _markers(run: Run, each: LoopClass) -> dict[str, Any]:
    line = {"width": 1.2, "color": each.colour} if each.symbol.endswith("thin") else {"width": 0.6, "color": "white"}
    return {
        "mode": "markers",
        "name": f"{each.name} ({each.total:,})",
        "legendgroup": each.name,
        "marker": {"color": each.colour, "symbol": each.symbol, "size": 7, "line": line},
        "customdata": each.rows,
        "text": [hover(run, int(row)) for row in each.rows],
        "hovertemplate": "%{text}<extra></extra>",
    }


def hover(run: Run, row: int) -> str:
    """One loop in a few words."""
    c = run.closures
    known = "no probability" if np.isnan(c.probability[row]) else f"probability {c.probability[row]:.3f}"
    return f"closure {row}: {c.query[row]} to {c.match[row]}<br>{known}, similarity {c.similarity[row]:.3f}"


def descriptors(database: KeyframeDatabase, ids: Ints) -> F32:
    """(N, D): of the keyframes' local maps where they have one, else of their scans."""
    return np.stack([database.whole(int(id)).descriptor for id in ids])


def matrix(run: Run, database: KeyframeDatabase | None) -> Panel:
    """Similarity of all pairs of keyframes, with the loops on top."""
    title, protocol = "Similarity of all pairs", run.about["protocol"]
    if database is None or len(database) != len(run.keyframes):
        return Panel("matrix", title, protocol, note=f"The run's map {run.map_path.name} is not there or not readable.")
    ids = thinned(len(run.keyframes), MOST_CELLS)
    rows = descriptors(database, ids)
    figure = go.Figure()
    figure.add_heatmap(
        x=ids, y=ids, z=np.round(rows @ rows.T, 3), colorscale=style.SEQUENTIAL.capitalize(),
        colorbar={"title": {"text": "similarity (cosine) [-]", "side": "right"}, "thickness": 14},
        hovertemplate="keyframes %{y} and %{x}<br>similarity %{z:.3f}<extra></extra>",
    )  # fmt: skip
    note = thinning(len(ids), len(run.keyframes), "keyframes")
    for each in classes(run):
        if each.name != "refused":
            figure.add_scatter(x=run.closures.match[each.rows], y=run.closures.query[each.rows], **_markers(run, each))
    figure.update_xaxes(title="keyframe, the match of a loop [-]", constrain="domain")
    figure.update_yaxes(title="keyframe, the query of a loop [-]", scaleanchor="x", constrain="domain")
    figure.update_layout(showlegend=True)
    return Panel("matrix", title, protocol, dress(figure, 590).update_layout(margin_b=125), note)
