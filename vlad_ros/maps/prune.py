# SPDX-License-Identifier: Apache-2.0
"""`vlad map prune`: a thinner map, of evenly spread keyframes of each session."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.maps.new_map import fill
from vlad_ros.types import F64, Ints


def choose(database: KeyframeDatabase, spacing: float | None = None, size: int | None = None) -> list[int]:
    """The ids, in order, of the keyframes that a thinner map keeps: evenly spread in space, session by session.

    `spacing` [m]: no two kept ones of a session are nearer to each other, and each one left out is nearer than that to
    a kept one; keyframes without a pose are all kept. `size`: that many in all, chosen by farthest-point sampling
    (Gonzalez, 1985), at least one per session; keyframes without a pose count as one metre apart. Headings are ignored.
    ValueError unless exactly one of the two is given, for a spacing that is not above 0, and for a size below the
    number of sessions.
    """
    if (spacing is None) == (size is None):
        raise ValueError("prune to a spacing or to a size, one of the two")
    if spacing is not None and not (spacing > 0 and math.isfinite(spacing)):
        raise ValueError(f"the spacing must be above 0 m, not {spacing}")
    ids = [database.ids(session) for session in database.sessions]
    sessions = sum(len(some) > 0 for some in ids)
    if size is not None and size < max(sessions, 1):
        raise ValueError(f"a map of {sessions} sessions keeps at least one keyframe of each, not {size} in all")
    distances = np.full(max((int(some[-1]) + 1 for some in ids if len(some)), default=0), -math.inf)  # to earlier ones
    for some in ids:
        posed, places = _places(database, some)
        distances[posed] = farthest_first(places, spacing or 0.0, size)
        others = np.setdiff1d(some, posed)
        metres = np.zeros((len(others), 3))
        metres[:, 0] = np.arange(len(others))
        distances[others] = math.inf if spacing is not None else farthest_first(metres, 0.0, size)
        if len(posed) and size is not None and len(others):
            distances[others[0]] = 1.0  # inf forces a keyframe in; one per session is enough
    if spacing is not None:
        return [int(id) for id in np.flatnonzero(distances >= spacing)]
    best = np.argsort(-distances, kind="stable")[:size]
    return sorted(int(id) for id in best if distances[id] > -math.inf)


def farthest_first(places: F64, least: float, most: int | None) -> F64:
    """Farthest-point sampling of `places` (N, 3) [m]: the distance (N,) of each from those chosen before it; infinite
    for the first; -inf for those not chosen, which lie nearer than `least` or come after the first `most`."""
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


def _places(database: KeyframeDatabase, ids: Ints) -> tuple[np.ndarray, F64]:
    """The ids of a session's keyframes that have a pose, and their positions (N, 3) [m], all in one frame."""
    poses = {id: database.T_map_base(id) for id in ids.tolist()}
    if all(T is None for T in poses.values()):
        poses = {id: database.keyframe(id).T_odom_base for id in ids.tolist()}
    places = {id: T[:3, 3] for id, T in poses.items() if T is not None}
    return np.array(list(places), np.int64), np.array(list(places.values())).reshape(-1, 3)


def subset(database: KeyframeDatabase, ids: Iterable[int]) -> KeyframeDatabase:
    """A new database of the keyframes `ids`, given in order. They get new ids 0, 1, ...; their keys (session and
    stamp), the sessions' T_map_odom and corrected poses stay."""
    kept = KeyframeDatabase(database.dim, model_hash=database.model_hash, bev=database.bev, kind=database.kind)
    fill(kept, database, ((id, database.whole(id)) for id in ids))
    return kept
