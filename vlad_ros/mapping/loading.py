# SPDX-License-Identifier: Apache-2.0
"""Take the rows of a map file into memory; what is damaged is named and left out."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from uuid import uuid4

import numpy as np

from vlad_ros.mapping import batches, tables
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
                store.geometries.learn_feature_size(connection)
                connection.execute("COMMIT")
    except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
        store.close(force=True)
        raise explain(name, error) from error


def _take_in(contents: MapContents, connection: sqlite3.Connection, name: str) -> None:
    (count,) = connection.execute("SELECT count(*) FROM keyframes").fetchone()
    with _part(contents, f"session of {name}", "its place in the map is unknown now") as damaged:
        for number, session in tables.read_sessions(connection):
            if session is None:
                damaged.append(number)
            else:
                contents.sessions[number] = session.T_map_odom
                contents.identities[number] = session.uuid, session.name
    with _part(contents, f"keyframe of {name}", "left out") as lost:
        for batch in batches.read_keyframes(connection, contents.dim):
            lost += batch.damaged + _add(contents, batch, count)
        for index in (contents.local, contents.local_scan, contents.single):
            index.tend()  # not before: building would take the processor from reading
    if (count or lost) and not len(contents):
        raise MapError(f"the map {name} is damaged: none of its {count or len(lost)} keyframes can be read")
    if len(contents) + len(lost) < count:
        contents.faults.append(f"{count - len(contents) - len(lost)} keyframes of {name} cannot be found any more")
    near = contents.rows.next_id + count  # others are no ids that were given
    contents.rows.reserve(max((id for id in lost if id < near), default=-1) + 1)
    with _part(contents, f"place of {name}", "left out") as damaged:
        for id, place in tables.read_places(connection):
            if place is None:
                damaged.append(id)
            elif contents.rows.has(id):
                contents.places.join(id, place)
    with _part(contents, f"corrected pose of {name}", "left out") as damaged:
        for id, correction in tables.read_corrections(connection):
            if correction is None:
                damaged.append(id)
            elif contents.rows.has(id):
                contents.corrections.restore(correction)


@contextlib.contextmanager
def _part(contents: MapContents, what: str, then: str) -> Iterator[list[int]]:
    """A list for the numbers of damaged rows, told at the end; what SQLite cannot read ends the part."""
    damaged: list[int] = []
    try:
        yield damaged
    except sqlite3.DatabaseError as error:
        contents.faults.append(f"more than one {what} cannot be read: {error}")
    if damaged:
        some = ", ".join(map(str, damaged[:NAMED])) + (", .." if len(damaged) > NAMED else "")
        contents.faults.append(f"{len(damaged)} damaged {what}, {then}: {some}")


def _add(contents: MapContents, batch: batches.Batch, count: int) -> list[int]:
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
