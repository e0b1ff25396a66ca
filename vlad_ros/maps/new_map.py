# SPDX-License-Identifier: Apache-2.0
"""A new map made from others: filling it, and writing it to a new path. No map is overwritten."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.mapping.lock import MapError, MapLock
from vlad_ros.types import F64, Keyframe


def fill(
    new: KeyframeDatabase,
    old: KeyframeDatabase,
    keyframes: Iterable[tuple[int, Keyframe]],
    numbers: Mapping[int, int] | None = None,
    told: Callable[[int], F64 | None] | None = None,
) -> None:
    """Add `keyframes`, with the ids that they have in `old`, to `new`, with sessions and corrected poses. `numbers`:
    the sessions that are taken, and what they are called in `new`; None: all, by their own numbers. `told`: the pose
    of a keyframe of `old` in the new map, where odometry does not say it; None: as in `old`."""
    numbers = {session: session for session in old.sessions} if numbers is None else numbers
    for session, number in numbers.items():
        new.adopt_session(session, old, number)
    told = told or old.corrections.told
    for id, keyframe in keyframes:
        T_map_base = told(id)
        added = new.add(dataclasses.replace(keyframe, session=numbers[keyframe.session]))
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
