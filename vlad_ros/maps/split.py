# SPDX-License-Identifier: Apache-2.0
"""`vlad map split`: a map for each session, the way back from a merged one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlad_ros.atomic import withdrawing
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.maps.new_map import check_free, fill, write_new
from vlad_ros.maps.parts import drives_of
from vlad_ros.poses import inverse
from vlad_ros.types import F64, Bar


def alone(database: KeyframeDatabase, sessions: Sequence[int]) -> KeyframeDatabase:
    """A new map of one drive, `sessions` being its stretches, with the first one's number, UUID and name, in its own
    odometry frame: poses that came from a back-end or from merging keep their shape."""
    made = KeyframeDatabase(database.dim, model_hash=database.model_hash, bev=database.bev, kind=database.kind)
    ids = sorted((database.keyframe(id).stamp, id) for session in sessions for id in database.ids(session).tolist())

    def told(id: int) -> F64 | None:
        T_map_base, T_map_odom = database.corrections.told(id), database.sessions[database.keyframe(id).session]
        return T_map_base if T_map_base is None or T_map_odom is None else inverse(T_map_odom) @ T_map_base

    numbers = dict.fromkeys(sessions, sessions[0])
    fill(made, database, ((id, database.whole(id)) for _, id in ids), numbers, told)
    made.set_T_map_odom(sessions[0], np.eye(4))
    return made


def split(database: KeyframeDatabase, folder: str | os.PathLike[str], bar: Bar = iter) -> list[Path]:
    """Write `folder`/session_N.map for each session N, the stretches of one drive together under the first one's
    number; all or nothing. MapError where the folder exists."""
    check_free(folder)
    drives, paths = drives_of(database), []
    with withdrawing(folder):
        Path(folder).mkdir(parents=True)
        for first in bar(sorted(set(drives.values()))):
            paths.append(Path(folder) / f"session_{first}.map")
            made = alone(database, [session for session, drive in drives.items() if drive == first])
            write_new(made, paths[-1])
            made.close()
    return paths
