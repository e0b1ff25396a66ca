# SPDX-License-Identifier: Apache-2.0
"""`vlad map info`: what a map file holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.mapping.tables import VERSION
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64


@dataclass(frozen=True)
class SessionInfo:
    """`name`: that of its robot or file, empty where it has none; `length` [m] is None without odometry; `placed`: its
    T_map_odom is known; `corrected`: keyframes that have a pose from a back-end or a merge."""

    session: int
    keyframes: int
    seconds: float
    length: float | None
    placed: bool
    corrected: int
    uuid: UUID
    name: str


@dataclass(frozen=True, eq=False)
class MapInfo:
    """What `vlad map info` prints. `box` (2, 3): least and greatest x y z [m] in the map frame, over the keyframes
    with a known pose there; None if there are none. `faults`: a sentence for each damage."""

    path: str
    bytes: int
    kind: str
    model_hash: str
    dim: int
    keyframes: int
    local_maps: int
    partial: int
    geometry_bytes: int
    box: F64 | None
    sessions: list[SessionInfo]
    faults: list[str]


def read_info(path: str | os.PathLike[str]) -> MapInfo:
    """What the map file at `path` holds; MapError when it cannot be read."""
    database = KeyframeDatabase.open(path)
    ids = database.ids().tolist()
    rows = [database.keyframe(id) for id in ids]
    poses = [T for T in map(database.T_map_base, ids) if T is not None]
    places = np.array([T[:3, 3] for T in poses])
    return MapInfo(
        path=os.fspath(path),
        bytes=Path(path).stat().st_size,
        kind=database.kind,
        model_hash=database.model_hash,
        dim=database.dim,
        keyframes=len(database),
        local_maps=sum(row.is_local_map for row in rows),
        partial=sum(row.partial for row in rows),
        geometry_bytes=database.geometry_bytes(),
        box=np.stack([places.min(0), places.max(0)]) if len(places) else None,
        sessions=[_session_info(database, session) for session in database.sessions],
        faults=database.faults,
    )


def _session_info(database: KeyframeDatabase, session: int) -> SessionInfo:
    ids = database.ids(session).tolist()
    rows = [database.keyframe(id) for id in ids]
    travels = [row.travel for row in rows if row.travel is not None]
    return SessionInfo(
        session=session,
        keyframes=len(ids),
        seconds=(rows[-1].stamp - rows[0].stamp) / SECOND if rows else 0.0,
        length=max(travels) - min(travels) if travels else None,
        placed=database.sessions[session] is not None,
        corrected=sum(database.corrected(id) is not None for id in ids),
        uuid=database.identities[session][0],
        name=database.identities[session][1],
    )


def text(info: MapInfo) -> str:
    """`info` for people to read."""
    count = max(info.keyframes, 1)
    lines = [
        f"{info.path}: map format {VERSION}, {info.bytes / 1e6:.1f} MB",
        f"keyframes     {info.keyframes}: {info.local_maps} local maps ({info.partial} partial), "
        f"{info.keyframes - info.local_maps} single scans",
        f"per keyframe  {info.bytes / count / 1e3:.1f} kB, {info.geometry_bytes / count / 1e3:.1f} kB of them geometry",
        f"made from     {info.kind}",
        f"weights       {info.model_hash}",
        f"descriptor    {info.dim} numbers",
    ]
    if info.box is not None:
        spans = (f"{axis} {low:.1f} .. {high:.1f} m" for axis, low, high in zip("xyz", *info.box, strict=True))
        lines.append(f"bounding box  {', '.join(spans)}")
    lines += [f"session {one.session:<6}{_session_text(one)}" for one in info.sessions]
    return "\n".join(lines + info.faults)


def _session_text(one: SessionInfo) -> str:
    length = "no odometry" if one.length is None else f"{one.length:.0f} m"
    place = "T_map_odom known" if one.placed else "T_map_odom unknown"
    corrected = f", {one.corrected} keyframes corrected by a back-end or a merge" if one.corrected else ""
    known = f"{one.name}/{one.uuid}" if one.name else str(one.uuid)
    return f"{one.keyframes} keyframes, {one.seconds:.0f} s, {length}, {place}{corrected}, {known}"
