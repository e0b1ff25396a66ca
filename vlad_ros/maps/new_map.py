# SPDX-License-Identifier: Apache-2.0
"""A new map made from another: filling it, and writing it to a new path. No map is overwritten."""

from __future__ import annotations

import os
from collections.abc import Iterable

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.mapping.lock import MapError, MapLock
from vlad_ros.types import Keyframe


def fill(new: KeyframeDatabase, old: KeyframeDatabase, keyframes: Iterable[tuple[int, Keyframe]]) -> None:
    """Add `keyframes`, with the ids that they have in `old`, to the empty `new`, with sessions and corrected
    poses."""
    for session in old.sessions:
        new.adopt_session(session, old)
    for id, keyframe in keyframes:
        T_map_base = old.corrected(id)
        added = new.add(keyframe)
        if T_map_base is not None:
            new.place(added, T_map_base)


def check_free(path: str | os.PathLike[str]) -> None:
    """MapError when `path` exists already."""
    if os.path.lexists(path):
        raise MapError(f"{os.fspath(path)} exists already; name a file that does not (no map is overwritten)")


def write_new(database: KeyframeDatabase, path: str | os.PathLike[str]) -> None:
    """Save `database` as a new map; MapError when `path` exists already, or a node holds it."""
    check_free(path)
    with MapLock(path):
        database.save(path)
