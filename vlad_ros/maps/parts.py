# SPDX-License-Identifier: Apache-2.0
"""The keyframes of several maps side by side, each with its pose in the frame of its own part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.poses import inverse
from vlad_ros.types import F64, Ints

NO_SESSION = -1


@dataclass(frozen=True)
class Part:
    """What shares a frame: all sessions of one map whose T_map_odom is known, or the stretches of a drive whose is not.
    `map`: number of the map; `sessions`: their numbers there."""

    map: int
    sessions: tuple[int, ...]


@dataclass(eq=False)
class Rows:
    """Keyframes that have a pose in the frame of their part (N,): `map`, `id` there, `session` over all maps (of a
    drive's stretches the first one), `part`; `poses` (N, 4, 4) T_part_base, and `travel` [m] of the session, NaN where
    unknown."""

    map: Ints
    id: Ints
    session: Ints
    part: Ints
    poses: F64
    travel: F64

    def __len__(self) -> int:
        return len(self.id)

    def of(self, map: int) -> dict[int, int]:
        """The rows of a map's keyframes by their ids."""
        return {int(self.id[row]): int(row) for row in np.flatnonzero(self.map == map)}

    def way(self, a: Ints, b: Ints) -> F64:
        """Travel [m] between the rows `a` and `b`, any shapes; where no odometry leads from one to the other their
        distance: their map has been put together by loops, so that its error is about that of a straight way."""
        straight = np.linalg.norm(self.poses[a, :3, 3] - self.poses[b, :3, 3], axis=-1)
        travelled = np.abs(self.travel[a] - self.travel[b])
        one = (self.session[a] == self.session[b]) & np.isfinite(travelled)
        return np.asarray(np.where(one, travelled, straight))


def drives_of(database: KeyframeDatabase) -> dict[int, int]:
    """Of each session the first one of its UUID: stretches of another robot's drive are sessions of their own."""
    first: dict[UUID, int] = {}
    return {session: first.setdefault(uuid, session) for session, (uuid, _) in database.identities.items()}


def parts_of(databases: Sequence[KeyframeDatabase]) -> list[Part]:
    """Those of each map in turn, the one with its first session first."""
    found = []
    for number, database in enumerate(databases):
        known = tuple(session for session, T in database.sessions.items() if T is not None)
        alone: dict[int, list[int]] = {}
        for session, drive in drives_of(database).items():
            if database.sessions[session] is None:
                alone.setdefault(drive, []).append(session)
        found += [Part(number, tuple(sessions)) for sessions in ([known] if known else []) + [*alone.values()]]
    return found


def rows_of(databases: Sequence[KeyframeDatabase], parts: Sequence[Part], numbers: Sequence[dict[int, int]]) -> Rows:
    """The keyframes of all parts that have a pose there. `numbers`: of each map, its sessions' numbers over all."""
    columns: tuple[list[int], ...] = ([], [], [], [])
    poses: list[F64] = []
    travels: list[float] = []
    for number, part in enumerate(parts):
        database = databases[part.map]
        drives = drives_of(database)
        for session in part.sessions:
            for id in database.ids(session).tolist():
                row = database.keyframe(id)
                T = row.T_odom_base if database.sessions[session] is None else database.T_map_base(id)
                if T is None:
                    continue
                drive = numbers[part.map][drives[session]]
                for column, value in zip(columns, (part.map, id, drive, number), strict=True):
                    column.append(value)
                poses.append(T)
                travels.append(np.nan if row.travel is None else row.travel)
    table = np.array(columns, np.int64)
    return Rows(table[0], table[1], table[2], table[3], np.array(poses).reshape(-1, 4, 4), np.array(travels))


@dataclass(frozen=True, eq=False)
class Loops:
    """Loops between parts (L,): rows of `match` and `query`, T_match_query (L, 4, 4), covariances (L, 6, 6) on the side
    of the match, and probabilities."""

    match: Ints
    query: Ints
    T: F64
    covariance: F64
    probability: F64

    def __len__(self) -> int:
        return len(self.match)

    def take(self, which: np.ndarray) -> Loops:
        """Some of them."""
        return Loops(*(getattr(self, name)[which] for name in ("match", "query", "T", "covariance", "probability")))

    def placements(self, rows: Rows) -> F64:
        """T_matched_querying (L, 4, 4): where each puts the querying part in the matched one's frame."""
        return np.asarray(rows.poses[self.match] @ self.T @ inverse(rows.poses[self.query]))
