# SPDX-License-Identifier: Apache-2.0
"""`vlad map split`: a map for each session, the way back from a merged one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vlad_ros.atomic import withdrawing
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.maps.new_map import check_free, fill, write_new
from vlad_ros.poses import inverse


def alone(database: KeyframeDatabase, session: int) -> KeyframeDatabase:
    """A new map of one session, with its number, UUID and name, in its own odometry frame: poses that came from a
    back-end or from merging keep their shape."""
    made = KeyframeDatabase(database.dim, model_hash=database.model_hash, bev=database.bev, kind=database.kind)
    ids = database.ids(session).tolist()
    fill(made, database, ((id, database.whole(id)) for id in ids), {session: session})
    T_map_odom = made.sessions[session]
    back = np.eye(4) if T_map_odom is None else inverse(T_map_odom)
    made.set_T_map_odom(session, np.eye(4))
    for id in made.ids().tolist():
        T_map_base = made.corrected(id)
        if T_map_base is not None:
            made.place(id, back @ T_map_base)
    return made


def split(database: KeyframeDatabase, folder: str | os.PathLike[str], bar: Iterable[int]) -> list[Path]:
    """Write `folder`/session_N.map for each session N of `bar`; all or nothing. MapError where the folder exists."""
    check_free(folder)
    paths = []
    with withdrawing(folder):
        Path(folder).mkdir(parents=True)
        for session in bar:
            paths.append(Path(folder) / f"session_{session}.map")
            made = alone(database, session)
            write_new(made, paths[-1])
            made.close()
    return paths
