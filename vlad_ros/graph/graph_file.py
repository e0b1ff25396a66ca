# SPDX-License-Identifier: Apache-2.0
"""A live graph as a file of its own, beside the map: safetensors with nodes, loops and what is believed of them.

Resumed, the first drive's frame stays the map's, and what follows is a new drive. Nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vlad_ros.atomic import replacing
from vlad_ros.graph.chain import Node
from vlad_ros.graph.consistency import Loop
from vlad_ros.graph.drives import Anchor
from vlad_ros.graph.edits import Edit
from vlad_ros.graph.pose_graph import LiveGraph
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.poses import from_quaternion, to_quaternion
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Ints

FORMAT = "vlad_ros pose graph 1"
Arrays = dict[str, np.ndarray]


class GraphLock:
    """Holds a graph file for one process, until `release` or the process ends; ValueError names the file where another
    one holds it. The lock file stays: removing it would race with the next holder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        real = os.path.realpath(path)
        try:
            self._file = os.open(f"{real}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ValueError(f"the graph file {real} cannot be locked: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise ValueError(f"the graph file {real} is in use by another graph node") from error

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._file)


def pack(graph: LiveGraph) -> tuple[Arrays, dict[str, str]]:
    """Arrays and metadata of a graph, which may go on changing afterwards."""
    nodes, loops, anchors = graph.chain.nodes, graph.beliefs.loops, graph.anchors
    arrays: Arrays = {
        "key": np.array([[n.drive, n.stamp, n.part] for n in nodes], np.int64).reshape(-1, 3),
        "travel": np.array([n.travel for n in nodes], np.float64),
        "T_odom_base": _stacked([n.T_odom_base for n in nodes], (4, 4)),
        "T_map_base": graph.poses(),
        "loop": np.array([[o.i, o.j, o.cluster, o.on, o.forced, o.forbidden] for o in loops], np.int64).reshape(-1, 6),
        "loop_T": _stacked([o.T for o in loops], (4, 4)),
        "loop_covariance": _stacked([o.covariance for o in loops], (6, 6)),
        "loop_probability": np.array([o.probability for o in loops], np.float64),
        "anchor": np.array([[a.node, a.found] for a in anchors], np.int64).reshape(-1, 2),
        "anchor_T": _stacked([a.T_map_base for a in anchors], (4, 4)),
        "anchor_covariance": _stacked([a.covariance for a in anchors], (6, 6)),
    }
    edits = [
        [e.match, e.query, e.forced, e.reason, None if e.T_match_query is None else e.T_match_query.tolist()]
        for e in graph.edits.values()
    ]
    return arrays, {
        "format": FORMAT,
        "sha256": _digest(arrays),
        "sessions": json.dumps(list(graph.sessions.items())),
        "guests": json.dumps(sorted(graph.guests)),
        "edits": json.dumps(edits),
        "config": json.dumps(dataclasses.asdict(graph.config)),
    }


def write(path: str | os.PathLike[str], arrays: Arrays, metadata: Mapping[str, str]) -> None:
    """Write what `pack` gave, atomically and durably. OSError if it cannot be written."""
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata))
    with replacing(path, durable=True) as temporary:
        temporary.write_bytes(data)


def save_graph(graph: LiveGraph, path: str | os.PathLike[str]) -> None:
    """Write the file that `resume` reads."""
    write(path, *pack(graph))


def resume(path: str | os.PathLike[str], config: PoseGraphConfig) -> LiveGraph:
    """The graph of a file, ready for a new drive. ValueError, naming the file, for one that is damaged or no graph."""
    if not Path(path).is_file():
        raise ValueError(f"there is no graph file {path}")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a readable graph file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is not a graph file of this version ({metadata.get('format', 'no format')})")
    if metadata.get("sha256") != _digest(arrays):
        raise ValueError(f"{path} is damaged: its content has not the hash that it names")
    return _unpack(arrays, metadata, config)


def _unpack(arrays: Arrays, metadata: Mapping[str, str], config: PoseGraphConfig) -> LiveGraph:
    graph = LiveGraph(config)
    rows = zip(arrays["key"].tolist(), arrays["T_odom_base"], arrays["travel"].tolist(), strict=True)
    for (drive, stamp, part), T, travel in rows:
        graph.chain.add(Node(drive, stamp, T, travel, part))
    graph.sessions = {int(session): int(drive) for session, drive in json.loads(metadata["sessions"])}
    graph.guests = set(json.loads(metadata.get("guests", "[]")))
    for match, query, forced, reason, numbers in json.loads(metadata["edits"]):
        T = None if numbers is None else np.array(numbers, np.float64)
        edit = Edit((match[0], match[1]), (query[0], query[1]), forced, reason, T)
        graph.edits[edit.match, edit.query] = edit
    poses = arrays["T_map_base"]
    placed = np.isfinite(poses[:, 0, 0])
    graph.placed = set(arrays["key"][placed, 0].tolist())
    held = zip(arrays["anchor"].tolist(), arrays["anchor_T"], arrays["anchor_covariance"], strict=True)
    graph.anchors = [Anchor(index, T, C, bool(found)) for (index, found), T, C in held]
    ends = arrays["loop"].tolist()
    loops = zip(ends, arrays["loop_T"], arrays["loop_covariance"], arrays["loop_probability"].tolist(), strict=True)
    graph.rebuild_with(
        poses,
        [
            (Loop(i, j, T, C, probability, bool(forced), bool(forbidden)), cluster, bool(on))
            for (i, j, cluster, on, forced, forbidden), T, C, probability in loops
        ],
    )
    graph.begin_drive()
    return graph


def write_tum(path: str | os.PathLike[str], stamps: Ints, poses: F64) -> None:
    """A trajectory (N,) [ns], (N, 4, 4) in the TUM format: lines of seconds (all nine digits), x y z [m], quaternion
    x y z w. OSError if it cannot be written."""
    with replacing(path) as temporary, open(temporary, "w") as file:
        for stamp, T in zip(stamps.tolist(), poses, strict=True):
            numbers = " ".join(f"{number:.9f}" for number in (*T[:3, 3], *to_quaternion(T)))
            file.write(f"{stamp // SECOND}.{stamp % SECOND:09d} {numbers}\n")


def read_tum(path: str | os.PathLike[str]) -> tuple[Ints, F64]:
    """What `write_tum` has written: stamps (N,) [ns] and poses (N, 4, 4). ValueError for anything else."""
    try:
        rows = [line.split() for line in Path(path).read_text().splitlines()]
        stamps = [int(seconds) * SECOND + int(rest) for seconds, rest in (row[0].split(".") for row in rows)]
        numbers = np.array([row[1:] for row in rows], np.float64).reshape(len(rows), 7)
    except (OSError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is no trajectory in TUM format with nanoseconds: {error}") from error
    return np.array(stamps, np.int64), from_quaternion(numbers[:, :3], numbers[:, 3:])


def _stacked(matrices: list[F64], shape: tuple[int, int]) -> F64:
    return np.stack(matrices) if matrices else np.empty((0, *shape))


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
