# SPDX-License-Identifier: Apache-2.0
"""What can be done with a map file at the desk: look into it, thin it out, describe it anew. No file is changed."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.mapping.map_file import VERSION, MapError, MapLock
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Geometry, Keyframe

if TYPE_CHECKING:
    from vlad_ros.model.describer import Describer

Bar = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class SessionInfo:
    """`length` [m] is None without odometry; `corrected`: keyframes that have a pose from a back-end."""

    session: int
    keyframes: int
    seconds: float
    length: float | None
    placed: bool
    corrected: int


@dataclass(frozen=True, eq=False)
class MapInfo:
    """What `vlad map info` prints. `box` (2, 3): least and greatest x y z [m] in the map of the keyframes whose place
    in it is known, None without any."""

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


def describe_map(path: str | os.PathLike[str]) -> MapInfo:
    """What the map file at `path` holds; MapError when it cannot be read."""
    database = KeyframeDatabase.open(path)
    ids = range(len(database))
    rows = [database.keyframe(id) for id in ids]
    poses = [T for T in map(database.T_map_base, ids) if T is not None]
    places = np.array([T[:3, 3] for T in poses])
    geometries = [database.geometry(id) for id in ids]
    return MapInfo(
        path=os.fspath(path),
        bytes=Path(path).stat().st_size,
        kind=database.kind,
        model_hash=database.model_hash,
        dim=database.dim,
        keyframes=len(database),
        local_maps=sum(row.is_local_map for row in rows),
        partial=sum(row.partial for row in rows),
        geometry_bytes=sum(geometry.nbytes for geometry in geometries if geometry is not None),
        box=np.stack([places.min(0), places.max(0)]) if len(places) else None,
        sessions=[_session_info(database, session) for session in database.sessions],
    )


def _session_info(database: KeyframeDatabase, session: int) -> SessionInfo:
    ids = database.ids(session)
    rows = [database.keyframe(id) for id in ids]
    travels = [row.travel for row in rows if row.travel is not None]
    return SessionInfo(
        session=session,
        keyframes=len(ids),
        seconds=(rows[-1].stamp - rows[0].stamp) / SECOND if rows else 0.0,
        length=max(travels) - min(travels) if travels else None,
        placed=database.sessions[session] is not None,
        corrected=sum(database.corrected(id) is not None for id in ids),
    )


def choose(database: KeyframeDatabase, spacing: float | None = None, size: int | None = None) -> list[int]:
    """The ids, in order, of the keyframes that a thinner map keeps: evenly spread in space, session by session.

    `spacing` [m]: no two of a session are nearer to each other, and each one left out is nearer than that to one
    kept; keyframes without a pose are all kept. `size`: that many in all, those that lie farthest from the others
    first (farthest-point sampling; Gonzalez, 1985); keyframes without a pose count as one metre apart. Headings are
    not looked at. ValueError unless exactly one of the two is given, for a spacing that is not above 0, and for a size
    with fewer keyframes than the map has sessions.
    """
    if (spacing is None) == (size is None):
        raise ValueError("prune to a spacing or to a size, one of the two")
    if spacing is not None and not (spacing > 0 and math.isfinite(spacing)):
        raise ValueError(f"the spacing must be above 0 m, not {spacing}")
    ids = [database.ids(session) for session in database.sessions]
    sessions = sum(len(some) > 0 for some in ids)
    if size is not None and size < max(sessions, 1):
        raise ValueError(f"a map of {sessions} sessions keeps at least one keyframe of each, not {size} in all")
    distances = np.full(len(database), -math.inf)  # of each keyframe to those chosen before it
    for some in ids:
        posed, places = _places(database, some)
        distances[posed] = farthest_first(places, spacing or 0.0, size)
        others = np.setdiff1d(some, posed)
        metres = np.zeros((len(others), 3))
        metres[:, 0] = np.arange(len(others))
        distances[others] = math.inf if spacing is not None else farthest_first(metres, 0.0, size)
        if len(posed) and size is not None and len(others):
            distances[others[0]] = 1.0  # a session's first keyframe is kept at any price, but only one
    if spacing is not None:
        return [int(id) for id in np.flatnonzero(distances >= spacing)]
    return sorted(int(id) for id in np.argsort(-distances, kind="stable")[:size])


def farthest_first(places: F64, least: float, most: int | None) -> F64:
    """Farthest-point sampling of `places` (N, 3) [m]: the distance (N,) of each from those chosen before it, infinite
    for the first, -inf for those not chosen because they lie nearer than `least` or `most` have been chosen."""
    distances = np.full(len(places), -math.inf)
    nearest = np.full(len(places), math.inf)
    for _ in range(len(places) if most is None else min(most, len(places))):
        at = int(np.argmax(nearest))
        if nearest[at] < least:
            break
        distances[at] = nearest[at]
        nearest = np.minimum(nearest, np.linalg.norm(places - places[at], axis=1))
        nearest[at] = -math.inf
    return distances


def _places(database: KeyframeDatabase, ids: range) -> tuple[np.ndarray, F64]:
    """Those of a session's keyframes that have a pose, and where they lie, all in one frame."""
    poses = {id: database.T_map_base(id) for id in ids}
    if all(T is None for T in poses.values()):
        poses = {id: database.keyframe(id).T_odom_base for id in ids}
    places = {id: T[:3, 3] for id, T in poses.items() if T is not None}
    return np.array(list(places), np.int64), np.array(list(places.values())).reshape(-1, 3)


def subset(database: KeyframeDatabase, ids: Iterable[int]) -> KeyframeDatabase:
    """A new database of the keyframes `ids`, given in order. Their ids are the new rows, 0, 1, ...; what names a
    keyframe across maps, session and stamp, stays, and so does the place of each session and keyframe."""
    kept = KeyframeDatabase(database.dim, model_hash=database.model_hash, bev=database.bev, kind=database.kind)
    _fill(kept, database, ((id, database.whole(id)) for id in ids))
    return kept


def rebuild(database: KeyframeDatabase, describer: Describer, bar: Bar = iter) -> KeyframeDatabase:
    """A new database whose descriptors, keypoints and features `describer` has made anew from the stored clouds.

    It is second best to driving the route again: the clouds are thinned, so that live scans of a dense sensor are less
    similar to their descriptors than to those of whole clouds; and a keyframe keeps one cloud, so that where it has a
    local map its single scan's descriptor is made from that, too. `bar` wraps what is gone through. ValueError for a
    map of rasters given from outside, or with keyframes that have no points.
    """
    if database.kind != "points":
        raise ValueError("the map was made from rasters given from outside, which it does not keep; record it anew")
    ids = range(len(database))
    empty = sum(geometry is None or not len(geometry.cloud) for geometry in map(database.geometry, ids))
    if empty:
        raise ValueError(f"{empty} of the map's {len(database)} keyframes have no points to describe; record it anew")
    built = KeyframeDatabase(describer.dim, model_hash=describer.model_hash, bev=describer.bev)
    _fill(built, database, ((id, _described_anew(database.whole(id), describer)) for id in bar(ids)))
    return built


def _described_anew(keyframe: Keyframe, describer: Describer) -> Keyframe:
    geometry = keyframe.geometry
    if geometry is None:  # ruled out above
        return keyframe
    seen = describer.see(_cloud(geometry))
    return dataclasses.replace(
        keyframe,
        descriptor=seen.descriptor,
        scan_descriptor=seen.descriptor,
        geometry=dataclasses.replace(seen.geometry(), cloud=geometry.cloud),  # thinned once, never again
    )


def _cloud(geometry: Geometry) -> np.ndarray:
    """(N, 4) float32, as clouds come in; intensity is not kept."""
    points = np.zeros((len(geometry.cloud), 4), np.float32)
    points[:, :3] = geometry.points
    return points


def _fill(new: KeyframeDatabase, old: KeyframeDatabase, keyframes: Iterable[tuple[int, Keyframe]]) -> None:
    new.sessions.update(old.sessions)
    for id, keyframe in keyframes:
        T_map_base = old.corrected(id)
        added = new.add(keyframe)
        if T_map_base is not None:
            new.place(added, T_map_base)


def check_free(path: str | os.PathLike[str]) -> None:
    """MapError when something lies at `path` already."""
    if os.path.lexists(path):
        raise MapError(f"{os.fspath(path)} exists already; name a file that does not (no map is overwritten)")


def write_new(database: KeyframeDatabase, path: str | os.PathLike[str]) -> None:
    """Save `database` as a new map; MapError when something lies at `path` already, or a node holds it."""
    check_free(path)
    with MapLock(path):
        database.save(path)


def text(info: MapInfo) -> str:
    """`info` for people to read."""
    count = max(info.keyframes, 1)
    lines = [
        f"{info.path}: map format {VERSION}, {info.bytes / 1e6:.1f} MB",
        f"keyframes     {info.keyframes}: {info.local_maps} local maps ({info.partial} partial), "
        f"{info.keyframes - info.local_maps} single scans",
        f"a keyframe    {info.bytes / count / 1e3:.1f} kB, {info.geometry_bytes / count / 1e3:.1f} kB of them geometry",
        f"made from     {info.kind}",
        f"weights       {info.model_hash}",
        f"descriptor    {info.dim} numbers",
    ]
    if info.box is not None:
        spans = (f"{axis} {low:.1f} .. {high:.1f} m" for axis, low, high in zip("xyz", *info.box, strict=True))
        lines.append(f"bounding box  {', '.join(spans)}")
    lines += [f"session {one.session:<6}{_session_text(one)}" for one in info.sessions]
    return "\n".join(lines)


def _session_text(one: SessionInfo) -> str:
    length = "no odometry" if one.length is None else f"{one.length:.0f} m"
    place = "T_map_odom known" if one.placed else "T_map_odom unknown"
    corrected = f", {one.corrected} keyframes corrected by a back-end" if one.corrected else ""
    return f"{one.keyframes} keyframes, {one.seconds:.0f} s, {length}, {place}{corrected}"
