# SPDX-License-Identifier: Apache-2.0
"""Keyframes of other robots in a vehicle's own map.

A stretch of another's drive is a session of that robot, known by its UUID and named after the robot. It grows at its
end; what lies before it, or in a gap, is a stretch with a number of its own and the same UUID, for within a session
stamps only grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np

from vlad_ros.fleet.names import ROBOT, Key
from vlad_ros.fleet.packed import Packed, pose, unpack
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.mapping.tables import Session
from vlad_ros.poses import inverse
from vlad_ros.types import F64


class Guests:
    """The sessions of other robots in `database`, those that it was loaded with among them. For one thread, but for
    `has`."""

    def __init__(self, database: KeyframeDatabase, robot: str) -> None:
        self._database, self._robot = database, robot
        self._held: dict[UUID, set[int]] = {}  # stamps by session
        self.numbers: dict[UUID, list[int]] = {}  # sessions of the database by the UUID of the drive
        self._frames: dict[UUID, F64] = {}  # of the map that a drive's robot has corrected, in this one
        self.faults: list[str] = []
        for number, (uuid, name) in database.identities.items():
            if name == robot or not ROBOT.fullmatch(name):
                continue
            travels, stamps = (database.rows.column(column, database.ids(number)) for column in ("travel", "stamp"))
            if not np.isnan(travels).all():  # else it was made from a cloud, and is named after its file
                self.numbers.setdefault(uuid, []).append(number)
                self._held.setdefault(uuid, set()).update(stamps.tolist())

    def has(self, key: Key) -> bool:
        """Whether the map holds this keyframe; from any thread."""
        return key.stamp in self._held.get(key.session, ())

    def robot_of(self, session: int) -> str:
        """The robot whose session of the database this is; empty for the vehicle's own."""
        uuid, name = self._database.identities[session]
        return name if uuid in self.numbers else ""

    def take(self, keyframes: Sequence[Packed], T_map_odom: F64 | None, free: int) -> dict[int, list[int]]:
        """Add `keyframes`, sorted by session and stamp, all of one session, unless they are there; `T_map_odom` is the
        place of its odometry frame, None where it is not known, `free` the least number of a new session. Returns the
        ids that are new, by the numbers of their sessions."""
        grown: dict[int, list[int]] = {}
        for packed in keyframes:
            if self.has(packed.key) or packed.key.robot == self._robot:
                continue
            number = self._stretch(packed.key)
            new = number is None
            number = max(free, self._database.next_session()) if number is None else number
            try:
                keyframe, T_told = unpack(packed, self._database.dim, number), pose(packed.T_map_base)
                if new:
                    self._database.introduce(number, Session(packed.key.session, packed.key.robot, T_map_odom))
                    self.numbers.setdefault(packed.key.session, []).append(number)
                id = self._database.add(keyframe)
            except ValueError as error:
                self.faults.append(f"keyframe {packed.key} of the fleet is left out: {error}")
                continue
            self._held.setdefault(packed.key.session, set()).add(packed.key.stamp)
            self._place(id, T_told)
            grown.setdefault(number, []).append(id)
        return grown

    def _stretch(self, key: Key) -> int | None:
        """The session of the database that ends last before this keyframe."""
        ends = [(self._database.rows.last(number), number) for number in self.numbers.get(key.session, ())]
        before = [(last, number) for last, number in ends if last is not None and last < key.stamp]
        return max(before)[1] if before else None

    def _place(self, id: int, T_told: F64 | None) -> None:
        """Where its robot has corrected a keyframe's pose, it keeps its place relative to the first such one here."""
        row = self._database.keyframe(id)
        T_map_odom = self._database.sessions[row.session]
        if T_told is None or T_map_odom is None or row.T_odom_base is None:
            return
        uuid, _ = self._database.identities[row.session]
        T_map_theirs = self._frames.setdefault(uuid, T_map_odom @ row.T_odom_base @ inverse(T_told))
        self._database.place(id, T_map_theirs @ T_told)
