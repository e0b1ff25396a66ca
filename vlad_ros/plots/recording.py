# SPDX-License-Identifier: Apache-2.0
"""A run as a recording for the viewer of rerun: what was known, and when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np

from vlad_ros.atomic import replacing
from vlad_ros.graph.smoother import find_gtsam
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.plots import style
from vlad_ros.runs.growing_graph import growing_graph
from vlad_ros.runs.tables import Run
from vlad_ros.types import F64, POINT_SCALE

STAGES = 200  # of a drive, at most, at which trajectories and edges are drawn anew
MOVED = 0.02  # m from which on a keyframe's cloud is put to another place
TIME = "stamp"  # the timeline


def find_rerun() -> Any:
    """The module; ValueError with a remedy where it is not installed."""
    try:
        import rerun
    except ImportError as error:
        raise ValueError(
            "--rerun needs rerun-sdk, which is not installed: pip install rerun-sdk "
            "(Python 3.11 and numpy 2 or newer; on a robot in a virtual environment of its own)"
        ) from error
    return rerun


def save_recording(run: Run, database: KeyframeDatabase, path: str | os.PathLike[str]) -> str:
    """Write the run, whose map is `database`, as a .rrd file; what was done. ValueError without rerun-sdk or odometry,
    OSError if it cannot be written.

    `map/before` is the trajectory by odometry, `map/after` with the loops known by then, `map/edges` the verified
    candidates by probability, accepted and rejected, `map/keyframes/N` what keyframe N keeps of its cloud.
    """
    if not np.isfinite(run.keyframes.T_odom_base).any():
        raise ValueError(f"{run.path}: without odometry there are no poses to show")
    rerun = find_rerun()
    try:
        find_gtsam()
    except ValueError as error:
        poses, words = _by_odometry(run), f"by odometry alone: {error}"
    else:
        poses, words = _along(run), "before and after the loops"
    stream = rerun.RecordingStream("vlad_ros")
    stream.set_log_time_enabled(False)  # of this computer, which says nothing about the drive
    with replacing(path) as temporary:
        stream.save(temporary)
        stream.log("map", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        film = _Film(rerun, stream, run, database)
        for T_map_base in poses:
            film.show(T_map_base)
        stream.flush()
        stream.disconnect()
    return f"{film.shown} keyframes, {words}: {os.fspath(path)}"


def _along(run: Run) -> Iterator[F64]:
    """T_map_base (N, 4, 4) of the keyframes, NaN where unknown by then, at the stages of the drive."""
    every = max(1, -(-len(run.keyframes) // STAGES))
    count = int(np.isfinite(run.keyframes.T_odom_base[:, 0, 0]).sum())
    for number, (graph, nodes) in enumerate(growing_graph(run)):
        if number % every == 0 or number == count:  # the last one is the graph's last word
            yield _placed(run, nodes, graph.poses())


def _placed(run: Run, nodes: list[int], poses: F64) -> F64:
    out = np.full((len(run.keyframes), 4, 4), np.nan)
    out[nodes] = poses
    return out


def _by_odometry(run: Run) -> Iterator[F64]:
    """The same where there is no pose graph: of the first session, for the others' frames are not known."""
    first = np.flatnonzero(run.keyframes.session == run.keyframes.session[0])
    for end in np.unique(np.linspace(0, len(first), STAGES + 1).round().astype(int))[1:]:
        yield _placed(run, first[:end].tolist(), run.keyframes.T_odom_base[first[:end]])


class _Film:
    """Logs the stages of a drive, in their order."""

    def __init__(self, rerun: Any, stream: Any, run: Run, database: KeyframeDatabase) -> None:
        self._rerun, self._stream, self._run, self._database = rerun, stream, run, database
        self._at: dict[int, F64] = {}  # where each keyframe's cloud was put last
        self._before = np.where(  # other sessions' odometry has a frame of its own
            (run.keyframes.session == run.keyframes.session[0])[:, None], run.keyframes.T_odom_base[:, :3, 3], np.nan
        )

    @property
    def shown(self) -> int:
        """Keyframes with a pose so far."""
        return len(self._at)

    def show(self, T_map_base: F64) -> None:
        """A stage: the keyframes' poses (N, 4, 4), NaN where unknown."""
        known = np.flatnonzero(np.isfinite(T_map_base[:, 0, 0]))
        if not len(known):
            return
        for k in known.tolist():
            self._keyframe(k, T_map_base[k])
        self._set_time(int(known[-1]))
        before = self._before[: known[-1] + 1]
        self._line("map/before", before[np.isfinite(before[:, 0])], style.VERMILION)
        self._line("map/after", T_map_base[known, :3, 3], style.BLUE)
        self._edges(T_map_base[:, :3, 3], int(known[-1]))

    def _set_time(self, k: int) -> None:
        self._stream.set_time(TIME, timestamp=np.datetime64(int(self._run.keyframes.stamp[k]), "ns"))

    def _line(self, name: str, points: F64, colour: str) -> None:
        colours = [int(colour[1:] + "ff", 16)]
        self._stream.log(name, self._rerun.LineStrips3D([points.astype(np.float32)], colors=colours))

    def _keyframe(self, k: int, T: F64) -> None:
        """Its cloud when it is new, its place when it has moved."""
        last, name = self._at.get(k), f"map/keyframes/{k}"
        if last is not None and np.abs(last - T).max() < MOVED:
            return
        if last is None:
            self._set_time(k)
            geometry = self._database.geometry(k)
            if geometry is not None and len(geometry.cloud):
                self._stream.log(name, self._rerun.Points3D(geometry.cloud * np.float32(POINT_SCALE), radii=0.05))
        self._stream.log(name, self._rerun.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
        self._at[k] = T

    def _edges(self, positions: F64, newest: int) -> None:
        """The verified candidates so far, as lines between their keyframes, dark to bright by probability."""
        closures, colours = self._run.closures, matplotlib.colormaps[style.SEQUENTIAL]
        ends = np.stack([positions[closures.match], positions[closures.query]], axis=1)
        there = (closures.query <= newest) & np.isfinite(closures.probability) & np.isfinite(ends).all(axis=(1, 2))
        for name, chosen in (("accepted", closures.accepted), ("rejected", ~closures.accepted)):
            rows = np.flatnonzero(there & chosen)
            paint = (255 * colours(closures.probability[rows])).astype(np.uint8)
            lines = self._rerun.LineStrips3D(ends[rows].astype(np.float32), colors=paint)
            self._stream.log(f"map/edges/{name}", lines)
