# SPDX-License-Identifier: Apache-2.0
"""Take the rows of a map file into memory; what is damaged is named and left out."""

from __future__ import annotations

import sqlite3
from uuid import uuid4

import numpy as np

from vlad_ros.mapping import tables
from vlad_ros.mapping.connection import explain
from vlad_ros.mapping.contents import MapContents
from vlad_ros.mapping.index import EXACT, DescriptorIndex
from vlad_ros.mapping.lock import MapError
from vlad_ros.mapping.rows import LOCAL_MAP
from vlad_ros.mapping.store import MapStore
from vlad_ros.types import F32, Ints

NAMED = 5  # ids that a sentence names


def take_in(contents: MapContents, store: MapStore) -> None:
    """Add all that `store` holds to the empty `contents`. MapError, with the store closed, when it cannot be read."""
    name = store.path or "the map"
    try:
        with store.reading() as connection:
            if connection is not None:
                connection.execute("BEGIN")  # one instant of a map that another process writes
                _take_in(contents, connection, str(name))
                connection.execute("COMMIT")
    except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
        store.close(force=True)
        raise explain(name, error) from error


def _take_in(contents: MapContents, connection: sqlite3.Connection, name: str) -> None:
    sessions, damaged = tables.read_sessions(connection)
    for number, session in sessions.items():
        contents.sessions[number] = session.T_map_odom
        contents.identities[number] = session.uuid, session.name
    _tell(contents, damaged, f"session of {name}", "its place in the map is unknown now")
    (count,) = connection.execute("SELECT count(*) FROM keyframes").fetchone()
    lost: list[int] = []
    for batch in tables.read_keyframes(connection, contents.dim):
        lost += batch.damaged + _add(contents, batch, count)
    if count and not len(contents):
        raise MapError(f"the map {name} is damaged: none of its {count} keyframes can be read")
    _tell(contents, lost, f"keyframe of {name}", "left out")
    for id, place in tables.read_places(connection):
        if contents.rows.has(id):
            contents.places.join(id, place)
    corrections, damaged = tables.read_corrections(connection)
    for correction in corrections:
        if contents.rows.has(correction.id):
            contents.corrections.restore(correction)
    _tell(contents, damaged, f"corrected pose of {name}", "left out")


def _add(contents: MapContents, batch: tables.Batch, count: int) -> list[int]:
    """Add a batch but for the rows that do not follow their session's last; returns the ids of those."""
    rows, records = contents.rows, batch.records
    follows = np.ones(len(records), np.bool_)
    for session in np.unique(records["session"]).tolist():
        own, last = np.flatnonzero(records["session"] == session), rows.last(session)
        for at in own.tolist():
            stamp = int(records["stamp"][at])
            follows[at] = last is None or stamp > last
            last = stamp if follows[at] else last
    ids, records = batch.ids[follows], records[follows]
    for session in np.unique(records["session"]).tolist():
        if session not in contents.sessions:  # its row was damaged
            contents.sessions[session], contents.identities[session] = None, (uuid4(), "")
        own = records["session"] == session
        contents.exclusion.extend(session, records["stamp"][own], records["travel"][own])
    rows.extend(ids, records)
    local = (records["flags"] & LOCAL_MAP) != 0
    descriptors, has_scan = batch.descriptors[follows], batch.has_scan[follows]
    _index(contents.local, ids[local], descriptors[local], count)
    _index(contents.single, ids[~local], descriptors[~local], count)
    _index(contents.local_scan, ids[has_scan], batch.scans[follows[batch.has_scan]], count)
    return [int(id) for id in batch.ids[~follows]]


def _index(index: DescriptorIndex, ids: Ints, descriptors: F32, count: int) -> None:
    if count > EXACT:
        index.fill(ids, descriptors)
    else:
        index.add(ids.tolist(), descriptors)


def _tell(contents: MapContents, damaged: list[int], what: str, then: str) -> None:
    if damaged:
        some = ", ".join(map(str, damaged[:NAMED])) + (", .." if len(damaged) > NAMED else "")
        contents.faults.append(f"{len(damaged)} damaged {what}, {then}: {some}")
