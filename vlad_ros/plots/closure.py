# SPDX-License-Identifier: Apache-2.0
"""One candidate of a run explained: two places, their keypoint matches, their clouds aligned, and the evidence."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch

from vlad_ros.calibration import FEATURES, Calibration, features
from vlad_ros.cloud.raster import rasterize
from vlad_ros.loops.verification import Verifier
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.plots import style
from vlad_ros.poses import transform
from vlad_ros.runs.tables import Run, read_run
from vlad_ros.stamps import SECOND
from vlad_ros.types import F32, F64, Evidence, Geometry, RejectReason, Verification

# Lines of inlier matches, and of the others
LOOKS: dict[bool, dict[str, Any]] = {
    True: {"color": style.TRUE, "lw": 0.7, "alpha": 0.6},
    False: {"color": style.FALSE, "lw": 0.7, "ls": "--", "alpha": 0.6},
}
VALUES = {  # how each feature's evidence is printed
    "similarity": "{e.similarity:.3f}",
    "margin": "{e.margin:+.3f}",
    "inliers": "{e.inliers}",
    "inlier_share": "{e.inliers} of {e.matches}",
    "overlap": "{e.overlap:.2f}",
    "residual": "{e.residual:.2f} m",
    "ambiguity": "{e.ambiguity:.2f}",
    "agreement": "{e.agreement:.2f}",
    "odometry": "{e.odometry:.1f} sigma",
}


@dataclass(frozen=True, eq=False)
class Explanation:
    """Row `id` of a run's closures. `rasters` and `geometries`: of the query and of the match; `found`: the result of
    verifying them again. `query` and `match` (N, 2) x y [m]: the points of both in the match's levelled frame; the
    query's are moved by the run's `T_match_query`, or by the one `found` now, or left out; `alignment` says which.
    `terms`: what each feature adds to the log-odds of the probability, by name, with the `bias`; empty without
    `evidence`. `heading` and `verdict`: in words."""

    id: int
    heading: str
    verdict: str
    accepted: bool
    probability: float
    min_probability: float
    extent: float
    rasters: tuple[F32, F32]
    geometries: tuple[Geometry, Geometry]
    found: Verification
    query: F64
    match: F64
    alignment: str
    evidence: Evidence | None
    terms: dict[str, float]


def explain(run: Run, id: int, database: KeyframeDatabase) -> Explanation:
    """Row `id` of the run's closures; `database` is the run's own map. ValueError where there is no such row, or one of
    the two keyframes has kept no geometry."""
    count = len(run.closures)
    if not 0 <= id < count:
        rows = f"its closures are 0 to {count - 1}" if count else "it has none"
        raise ValueError(f"{run.path}: there is no closure {id}, {rows}")
    closures = run.closures
    query, match = (_geometry(run, database, int(ids[id])) for ids in (closures.query, closures.match))
    found = Verifier().verify(query, match)
    T, alignment = _alignment(closures.T_match_query[id], found)
    in_match = np.empty((0, 3)) if T is None else transform(query.points.astype(np.float64), T)
    evidence = _evidence(run, id)
    return Explanation(
        id=id,
        heading=heading(run, id),
        verdict=verdict(run, id),
        accepted=bool(closures.accepted[id]),
        probability=float(closures.probability[id]),
        min_probability=float(run.about["configuration"]["recognizer"]["min_probability"]),
        extent=database.bev.extent,
        rasters=(_raster(query, database), _raster(match, database)),
        geometries=(query, match),
        found=found,
        query=transform(in_match, match.T_level_body)[:, :2],
        match=transform(match.points.astype(np.float64), match.T_level_body)[:, :2],
        alignment=alignment,
        evidence=evidence,
        terms={} if evidence is None else terms(Calibration.from_dict(run.about["calibration"]), evidence),
    )


def _alignment(recorded: F64, found: Verification) -> tuple[F64 | None, str]:
    """T_match_query to draw, None where there is none, and where it comes from."""
    if np.isfinite(recorded).all():
        return recorded, "both clouds, aligned by the run's T_match_query"
    if found.T_match_query is not None:
        return found.T_match_query, "both clouds, aligned now: the run has no transform"
    return None, "the match alone: no transform aligns the query"


def terms(calibration: Calibration, evidence: Evidence) -> dict[str, float]:
    """What each feature adds to the log-odds; with the bias they sum to the log-odds of the probability."""
    model = calibration.model(evidence)
    standard = (features(evidence) - np.array(model.centre)) / np.array(model.scale)
    added = standard * np.array(model.coefficients)
    return {"bias": model.bias} | dict(zip(FEATURES, added.tolist(), strict=True))


def _geometry(run: Run, database: KeyframeDatabase, keyframe: int) -> Geometry:
    geometry = database.geometry(keyframe)
    if geometry is None or not len(geometry.cloud):
        raise ValueError(f"{run.path}: keyframe {keyframe} has kept no points, so that nothing of it can be drawn")
    return geometry


def _raster(geometry: Geometry, database: KeyframeDatabase) -> F32:
    """(C, H, W) of the stored points, above the ground plane that was fitted to the whole cloud."""
    a, b, c, d = geometry.T_level_body[2]  # the height above ground of (x, y, z, 1)
    plane = np.array([-a / c, -b / c, -d / c])
    return np.asarray(rasterize(geometry.points, database.bev, plane=plane).raster)


def _evidence(run: Run, id: int) -> Evidence | None:
    values: dict[str, Any] = {name: float(column[id]) for name, column in run.closures.evidence.items()}
    if math.isnan(values["overlap"]):
        return None
    counts = {name: int(values[name]) for name in ("matches", "inliers")}
    return Evidence(**values | counts)


def heading(run: Run, id: int) -> str:
    """Row `id` of the closures as a question."""
    c = run.closures
    ends = [
        f"keyframe {ids[id]} ({stamps[id] / SECOND:.1f} s, session {sessions[id]})"
        for ids, stamps, sessions in (
            (c.query, c.query_stamp, c.query_session),
            (c.match, c.match_stamp, c.match_session),
        )
    ]
    return f"{run.about['source']}, closure {id}: is {ends[0]} at the place of {ends[1]}?"


def verdict(run: Run, id: int) -> str:
    """The decision, its reason, and the true error where it is known."""
    c = run.closures
    known = not math.isnan(c.probability[id])
    decision = "accepted" if c.accepted[id] else f"refused: {RejectReason(int(c.reason[id])).words}"
    decision += f" (probability {c.probability[id]:.3f})" if known else ""
    if not run.has_truth or math.isnan(c.error_m[id]):
        return decision
    truth = "right" if c.is_right[id] else "wrong"
    return f"{decision}; the true poses say {truth}: off by {c.error_m[id]:.2f} m, {c.error_deg[id]:.1f} deg"


def draw(data: Explanation) -> Figure:
    """Matches above; below the aligned clouds and the evidence."""
    figure = Figure(figsize=(16, 14), layout="constrained")
    top, bottom = style.split(figure, 2, 1, height_ratios=(1.1, 1))
    _matches(top, data)
    left, right = bottom.subplots(1, 2)
    _overlay(left, data)
    _terms(right, data)
    colour = style.TRUE if data.accepted else style.FALSE
    figure.suptitle(data.heading, fontsize=14)
    top.suptitle(data.verdict, fontsize=13, color=colour)
    return figure


def _matches(figure: SubFigure, data: Explanation) -> None:
    both = figure.subplots(1, 2)
    names = [
        f"{name}, {len(geometry.keypoints)} keypoints"
        for name, geometry in zip(("query", "match"), data.geometries, strict=True)
    ]
    for axes, raster, geometry, name in zip(both, data.rasters, data.geometries, names, strict=True):
        style.draw_raster(axes, raster, data.extent, name)
        x, y = geometry.keypoints.T
        axes.scatter(y, x, s=10, color="black", lw=0, zorder=2)
        axes.plot(0, 0, marker="+", color="black", ms=12, mew=2, ls="none")
    both[1].yaxis.tick_right()
    both[1].yaxis.set_label_position("right")
    order = np.argsort(data.found.is_inlier, kind="stable")  # inliers on top
    for pair, inlier in zip(data.found.pairs[order], data.found.is_inlier[order], strict=True):
        ends = [tuple(geometry.keypoints[k, ::-1].tolist()) for geometry, k in zip(data.geometries, pair, strict=True)]
        line = ConnectionPatch(ends[0], ends[1], "data", "data", axesA=both[0], axesB=both[1], **LOOKS[bool(inlier)])
        line.set_in_layout(False)
        figure.add_artist(line)
    others = len(data.found.is_inlier) - data.found.inliers
    handles = [
        Line2D([], [], color=style.TRUE, label=f"{data.found.inliers} inlier matches"),
        Line2D([], [], color=style.FALSE, ls="--", label=f"{others} outlier matches"),
        Line2D([], [], color="black", marker=".", ls="none", label="keypoint"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)


def _overlay(axes: Axes, data: Explanation) -> None:
    axes.scatter(data.match[:, 1], data.match[:, 0], s=4, color=style.MATCH, lw=0, label="match")
    if len(data.query):
        axes.scatter(data.query[:, 1], data.query[:, 0], s=3, color=style.QUERY, lw=0, label="query")
    half = data.extent / 2
    axes.set(
        xlim=(half, -half),
        ylim=(-half, half),
        aspect="equal",
        xlabel="y, to the left [m]",
        ylabel="x, ahead [m]",
        title=data.alignment,
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False, markerscale=4)


def _terms(axes: Axes, data: Explanation) -> None:
    if data.evidence is None:
        axes.axis("off")
        axes.text(0.5, 0.5, "no evidence:\nsee the reason above", ha="center", va="center")
        return
    names = list(data.terms)
    values = np.array(list(data.terms.values()))
    colours = [style.TRUE if value >= 0 else style.FALSE for value in values]
    axes.barh(range(len(names)), values, color=colours, hatch=["" if value >= 0 else "//" for value in values])
    texts = ["bias: all evidence average", *(_named(name, data.evidence) for name in names[1:])]
    axes.set_yticks(range(len(names)), texts)
    axes.axvline(0.0, color="black", lw=0.8)
    total = values.sum()
    axes.set(
        xlabel="adds to the log-odds [-]: right for the loop, left against it",
        title=f"evidence: log-odds {total:+.2f} = probability {data.probability:.3f}, accepted from "
        f"{data.min_probability:g} on",
    )
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)


def _named(name: str, evidence: Evidence) -> str:
    """A feature with its evidence."""
    unknown = name == "odometry" and math.isnan(evidence.odometry)
    return f"{name.replace('_', ' ')}: {'unknown' if unknown else VALUES[name].format(e=evidence)}"


def lines(data: Explanation) -> list[str]:
    """What the picture says, for a terminal."""
    out = [data.heading, data.verdict]
    if data.evidence is not None:
        out += [f"{added:+8.2f}  {_named(name, data.evidence)}" for name, added in data.terms.items() if name != "bias"]
    return out


def make(folder: str | os.PathLike[str], id: int, path: Path) -> Explanation:
    """Read the run in `folder`, explain row `id` of its closures, draw and save."""
    run = read_run(folder)
    data = explain(run, id, KeyframeDatabase.open(run.map_path))
    style.save(draw(data), path)
    return data
