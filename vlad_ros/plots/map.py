# SPDX-License-Identifier: Apache-2.0
"""A map from above: the way of each session that has a place in it, over the points that its keyframes keep."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vlad_ros.cloud.decode import four_columns
from vlad_ros.cloud.growing import GrowingCloud
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.plots import style
from vlad_ros.poses import transform
from vlad_ros.types import F64, PathLike

COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILION, style.PURPLE, style.SKY, style.BLACK)
VOXEL = 0.5  # m
STANDING = 0.5  # m above the ground; the ground would hide everything
WIDEST, THINNER = 5.0, 0.7  # points; each line is thinner than those below it, so that all are seen where they overlap


@dataclass(frozen=True, eq=False)
class Drawn:
    """What the picture shows: by session its positions (N, 2) [m], empty where it has no place in the map, and the
    standing points (P, 2) [m]; `names` by session."""

    title: str
    ways: dict[int, F64]
    names: dict[int, str]
    points: F64


def read(path: PathLike) -> Drawn:
    """What of the map at `path` is drawn; MapError where it cannot be read."""
    database = KeyframeDatabase.open(path)
    ways: dict[int, F64] = {}
    cloud = GrowingCloud(VOXEL)
    for session in database.sessions:
        poses = {id: database.T_map_base(id) for id in database.ids(session).tolist()}
        ways[session] = np.array([T[:2, 3] for T in poses.values() if T is not None]).reshape(-1, 2)
        for id, T in poses.items():
            geometry = database.geometry(id)
            if T is not None and geometry is not None:
                height = transform(geometry.points, geometry.T_level_body)[:, 2]
                cloud.add(four_columns(geometry.points[height > STANDING]), T)
    origin = np.zeros(3) if cloud.origin is None else cloud.origin
    names = {session: name for session, (_, name) in database.identities.items()}
    return Drawn(Path(path).name, ways, names, cloud.points()[:, :2] + origin[:2])


def make(path: PathLike, picture: str | os.PathLike[str]) -> Drawn:
    """Draw the map at `path`; ValueError where nothing in it has a place."""
    data = read(path)
    if not any(map(len, data.ways.values())):
        raise ValueError(f"{os.fspath(path)}: no keyframe has a pose in the map, so there is nothing to draw")
    style.save(draw(data), picture)
    return data


def draw(data: Drawn) -> Figure:
    """The picture."""
    everything = np.concatenate([data.points, *data.ways.values()])
    across, high = np.maximum(np.ptp(everything, axis=0), 1.0)
    width = 9.0
    figure = Figure(figsize=(width, float(np.clip(width * high / across, 3.0, 12.0)) + 1.0), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(data.points[:, 0], data.points[:, 1], s=1.0, c="0.75", linewidths=0, zorder=0)
    for number, line in enumerate(lines(data)):
        way = list(data.ways.values())[number]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(*way.T, ".-", color=colour, lw=WIDEST * THINNER**number, ms=2.0, label=line, zorder=1 + number)
        axes.plot(*way[:1].T, "o", color=colour, mec="black", ms=8.0, zorder=99)
    axes.set(xlabel="x [m]", ylabel="y [m]", title=f"{data.title} (circles: where each session begins)", aspect="equal")
    axes.legend(loc="best", fontsize="small")
    return figure


def lines(data: Drawn) -> list[str]:
    """A line a session."""
    return [
        f"session {session}{f' {data.names[session]!r}' if data.names[session] else ''}: "
        + (f"{len(way)} keyframes" if len(way) else "no place in the map")
        for session, way in data.ways.items()
    ]
