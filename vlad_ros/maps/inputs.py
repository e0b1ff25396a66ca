# SPDX-License-Identifier: Apache-2.0
"""The maps that are to be merged: of one make, and each keyframe in one of them only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.mapping.lock import MapError
from vlad_ros.types import PathLike


def open_maps(paths: Sequence[PathLike], tell: Callable[[str], None] = lambda sentence: None) -> list[KeyframeDatabase]:
    """The maps, of one make. A keyframe is known by its session's UUID and its stamp: what several maps hold, such as
    one robot's drive and another's guests from it, is left in the one that has most of the session, and `tell` is told
    of it. MapError when a map cannot be read, was made differently, or holds nothing, or nothing of its own."""
    first = KeyframeDatabase.open(paths[0])
    make = {"dim": first.dim, "model_hash": first.model_hash, "bev": first.bev, "kind": first.kind}
    databases = [first, *(KeyframeDatabase.load(path, **make) for path in paths[1:])]  # type: ignore[arg-type]
    for path, database in zip(paths, databases, strict=True):
        if not len(database):
            raise MapError(f"{path} holds no keyframes, so there is nothing to merge")
    for path, database, number in zip(paths, databases, _take_once(databases), strict=True):
        if not len(database):
            raise MapError(f"all that {path} holds is in another: a map is not merged with itself or its copy")
        if number:
            tell(f"{path}: {number} keyframes are in another of these maps, too, and taken once")
    return databases


def _take_once(databases: Sequence[KeyframeDatabase]) -> list[int]:
    """Drop what a map that has more of a session holds, too, and the sessions that this leaves empty; returns how many
    keyframes each map has lost."""
    held: dict[UUID, list[tuple[int, dict[int, int]]]] = {}  # by session: of each map that has it, ids by stamp
    for number, database in enumerate(databases):
        for session, (uuid, _) in database.identities.items():
            of = held.setdefault(uuid, [])
            if not of or of[-1][0] != number:
                of.append((number, {}))
            own = database.ids(session)
            of[-1][1].update(zip(database.rows.column("stamp", own).tolist(), own.tolist(), strict=True))
    lost = [0] * len(databases)
    for holders in held.values():
        known: set[int] = set()
        for number, ids in sorted(holders, key=lambda holder: -len(holder[1])):
            again = known & set(ids)
            for stamp in again:
                databases[number].drop(ids[stamp])
            lost[number] += len(again)
            known |= set(ids)
    for database, number in zip(databases, lost, strict=True):
        for session in [one for one in database.sessions if number and not len(database.ids(one))]:
            del database.sessions[session], database.identities[session]
    return lost
