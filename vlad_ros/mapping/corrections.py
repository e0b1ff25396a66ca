# SPDX-License-Identifier: Apache-2.0
"""Keyframe poses in the map: from their session's odometry, or as optimised by a back-end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vlad_ros.drive.trajectory import Trajectory
from vlad_ros.mapping.rows import Poses, Rows
from vlad_ros.mapping.tables import Correction
from vlad_ros.poses import inverse
from vlad_ros.types import F64, Ints


class Corrections:
    """Poses T_map_base (4, 4) of the keyframes `rows` of `sessions` (T_map_odom by session, None where unknown); both
    are the database's own and grow."""

    def __init__(self, rows: Rows, sessions: dict[int, F64 | None]) -> None:
        self._rows, self._sessions = rows, sessions
        self._corrected = Poses()  # from a back-end
        self.numbers: Counter[int] = Counter()  # session -> number of its corrected keyframes
        self._kept = Poses()  # of keyframes without a path, kept when T_map_odom changed
        self._settled: dict[int, int] = {}  # session -> the number of its first keyframes that are corrected or kept
        self._frames: dict[int, F64] = {}  # session -> T_map_path, the frame of its back-end's path
        self._paths: dict[int, tuple[Trajectory, int]] = {}  # session -> its newest path, keyframes at that time
        self._news: dict[int, Correction] = {}

    def news(self) -> list[Correction]:
        """The poses set since the last call."""
        news, self._news = list(self._news.values()), {}
        return news

    def all(self, ids: Ints) -> Iterator[Correction]:
        """The corrected and kept poses of `ids`."""
        for id in ids.tolist():
            corrected, kept = self._corrected.get(id), self._kept.get(id)
            if corrected is not None:
                yield Correction(id, corrected, kept=False)
            elif kept is not None:
                yield Correction(id, kept, kept=True)

    def corrected(self, id: int) -> F64 | None:
        """The pose that a back-end gave the keyframe `id`; None if it gave none."""
        return self._corrected.get(id)

    def told(self, id: int) -> F64 | None:
        """The corrected or kept pose of the keyframe `id`; None if it follows its session's odometry frame."""
        corrected = self._corrected.get(id)
        return self._kept.get(id) if corrected is None else corrected

    def T_map_base(self, id: int) -> F64 | None:
        """The pose of the keyframe `id` in the map; None if unknown."""
        row, told = self._rows[id], self.told(id)
        T_map_odom = self._sessions[row.session]
        if told is not None or T_map_odom is None or row.T_odom_base is None:
            return told
        return T_map_odom @ row.T_odom_base

    def place(self, id: int, T_map_base: F64) -> None:
        """Set the pose of the keyframe `id` in the map."""
        session = self._rows[id].session
        self._take(session, id, T_map_base)
        self._paths.pop(session, None)

    def restore(self, correction: Correction) -> None:
        """Take over a pose of a map file."""
        if correction.kept:
            self._kept.set(correction.id, correction.T_map_base)
        else:
            self._take(self._rows[correction.id].session, correction.id, correction.T_map_base)
        self._news.pop(correction.id, None)

    def _take(self, session: int, id: int, T_map_base: F64) -> None:
        self.numbers[session] += self._corrected.get(id) is None
        self._corrected.set(id, T_map_base)
        self._news[id] = Correction(id, T_map_base, kept=False)

    def remove(self, session: int, id: int) -> None:
        """The keyframe `id` of `session` was removed; its pose can still be asked for."""
        self.numbers[session] -= self._corrected.get(id) is not None
        self._settled.pop(session, None)

    def forget_frame(self, session: int) -> None:
        """Forget T_map_path after the session's pose in the map was set again; the next path determines it anew."""
        self._frames.pop(session, None)
        self._paths.pop(session, None)

    def correct(self, session: int, stamps: Sequence[int] | npt.NDArray[np.int64], poses: Sequence[F64] | F64) -> int:
        """See `KeyframeDatabase.correct`."""
        last, known = self._paths.get(session, (None, 0))
        ids, at, travel = self._between(session, stamps)
        path = Trajectory(stamps, poses, (at, travel), last)
        told = np.flatnonzero(path.tells(at))
        if not len(told):
            return 0
        newest = told[-1:]
        T_map_path = self._frame(session, int(ids[newest[0]]), path.at(at[newest])[0])
        if T_map_path is None:
            return 0
        moved = told[path.news(at[told]) | (ids[told] >= known)]
        for id, T_map_base in zip(ids[moved].tolist(), T_map_path @ path.at(at[moved]), strict=True):
            self._take(session, id, T_map_base)
        self._paths[session] = path, self._rows.next_id
        self._follow_newest(session)
        return len(told)

    def _between(self, session: int, stamps: Sequence[int] | npt.NDArray[np.int64]) -> tuple[Ints, Ints, F64]:
        """The ids (M,) of a session's keyframes from the first to the last of `stamps`, their own stamps (M,) [ns] and
        travel (M,) [m], NaN where unknown."""
        first, last = (int(np.min(stamps)), int(np.max(stamps))) if len(stamps) else (0, -1)
        ids = self._rows.between(session, first, last)
        return ids, self._rows.column("stamp", ids), self._rows.column("travel", ids)

    def _frame(self, session: int, id: int, T_path_base: F64) -> F64 | None:
        """T_map_path of the session's back-end, whose path has the keyframe `id` at `T_path_base`; None if unknown."""
        if session not in self._frames:
            placed = {other for other, number in self.numbers.items() if number}
            others = placed | {other for other, T in self._sessions.items() if T is not None}
            T_map_base = self.T_map_base(id) if others - {session} else T_path_base
            if T_map_base is None:
                return None
            self._frames[session] = T_map_base @ inverse(T_path_base)
        return self._frames[session]

    def _follow_newest(self, session: int) -> None:
        """Move the session's odometry frame with its newest corrected keyframe; earlier keyframes keep their poses."""
        own = self._rows.ids[session]
        for at in reversed(range(len(own))):
            newest = own[at]
            T_map_base, T_odom_base = self._corrected.get(newest), self._rows[newest].T_odom_base
            if T_map_base is None or T_odom_base is None:
                continue
            for id in own[self._settled.get(session, 0) : at]:
                had = self.T_map_base(id)
                if had is not None and self._corrected.get(id) is None:
                    self._kept.set(id, had)
                    self._news[id] = Correction(id, had, kept=True)
            self._settled[session] = at
            self._sessions[session] = T_map_base @ inverse(T_odom_base)
            return
