# SPDX-License-Identifier: Apache-2.0
"""A map file's keyframes, read in batches. Nothing is believed that a checksum, a size or an order contradicts."""

from __future__ import annotations

import itertools
import sqlite3
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vlad_ros.mapping.codec import POSE, are_rigid, packed_size, unpack_descriptors
from vlad_ros.mapping.rows import KNOWN, ROW
from vlad_ros.mapping.tables import MAX_ID, row_checksum
from vlad_ros.types import F32, Ints

BATCH = 4096  # rows read at once
PLAUSIBLE = f"""
SELECT k.id, session, stamp, flags, travel, T_odom_base, k.checksum, descriptor, scan, d.checksum
FROM keyframes k JOIN descriptors d ON d.id = k.id
WHERE k.id >= ? AND k.id < ? AND k.id BETWEEN 0 AND {MAX_ID}
AND typeof(session) = 'integer' AND session BETWEEN 0 AND {MAX_ID} AND typeof(stamp) = 'integer'
AND typeof(flags) = 'integer' AND flags BETWEEN 0 AND {KNOWN - 1}
AND (travel IS NULL OR typeof(travel) = 'real' AND abs(travel) <= {sys.float_info.max!r})
AND (T_odom_base IS NULL OR typeof(T_odom_base) = 'blob' AND length(T_odom_base) = {POSE})
AND typeof(descriptor) = 'blob' AND length(descriptor) = {{size}}
AND (scan IS NULL OR typeof(scan) = 'blob' AND length(scan) = {{size}})
ORDER BY k.id LIMIT ?
"""


class Batch(NamedTuple):
    """Rows read: `ids` (N,), `records` (N,) of type `rows.ROW`, `descriptors` (N, D), `scans` (M, D) of those where
    `has_scan` (N,); `damaged`: ids of the rows left out."""

    ids: Ints
    records: np.ndarray
    descriptors: F32
    has_scan: np.ndarray
    scans: F32
    damaged: list[int]


def read_keyframes(connection: sqlite3.Connection, dim: int) -> Iterator[Batch]:
    """All keyframes by ascending id. Rows with a wrong checksum, size or content are left out, and so are those that
    SQLite cannot read and those of which only the descriptors are left."""
    begin: int | None = _next(connection, 0)
    while begin is not None:
        yield _read(connection, dim, begin, begin + BATCH)
        begin = _next(connection, begin + BATCH)


def _next(connection: sqlite3.Connection, begin: int) -> int | None:
    """Where the next batch begins; many ids may have been removed."""
    found = []
    for table in ("keyframes", "descriptors"):
        query = f"SELECT min(id) FROM {table} WHERE id BETWEEN ? AND {MAX_ID}"
        try:
            found.append(connection.execute(query, (begin,)).fetchone()[0])
        except sqlite3.DatabaseError:
            found.append(begin if begin < _end(connection, table) else None)
    return min((max(id, begin) for id in found if id is not None), default=None)


def _end(connection: sqlite3.Connection, table: str) -> int:
    """One above the last id of a damaged table; 0 if that cannot be read either."""
    try:
        return int(connection.execute(f"SELECT max(id) FROM {table} WHERE id <= {MAX_ID}").fetchone()[0] or 0) + 1
    except sqlite3.DatabaseError:
        return 0


def _read(connection: sqlite3.Connection, dim: int, begin: int, end: int) -> Batch:
    try:
        return _checked(_select(connection, dim, begin, end), dim)
    except sqlite3.DatabaseError:
        if end - begin == 1:
            return _checked([], dim)._replace(damaged=[begin])
    middle = (begin + end) // 2
    low, high = _read(connection, dim, begin, middle), _read(connection, dim, middle, end)
    merged = (np.concatenate([getattr(low, name), getattr(high, name)]) for name in Batch._fields[:-1])
    return Batch(*merged, low.damaged + high.damaged)  # type: ignore[call-arg]


def _select(connection: sqlite3.Connection, dim: int, begin: int, end: int) -> list[tuple[object, ...]]:
    most = end - begin + 1  # more only where pages are in each other's place
    rows = connection.execute(PLAUSIBLE.format(size=packed_size(dim)), (begin, end, most)).fetchall()
    told: set[object] = {row[0] for row in rows}
    query = "SELECT id FROM {} WHERE id >= ? AND id < ? LIMIT ?"
    every, other = (
        [id for (id,) in connection.execute(query.format(table), (begin, end, most))]
        for table in ("keyframes", "descriptors")
    )
    for ids in ([row[0] for row in rows], every, other):
        if any(one >= other for one, other in itertools.pairwise([begin - 1, *ids, end])):
            raise sqlite3.DatabaseError("its rows are out of order")
    return rows + [(id, *9 * [None]) for id in sorted({*every, *other} - told)]


def _checked(rows: list[tuple[object, ...]], dim: int) -> Batch:
    good = [row for row in rows if row_checksum(*row[:6]) == row[6] and row_checksum(row[0], *row[7:9]) == row[9]]
    records = np.zeros(len(good), ROW)
    for name, at in (("session", 1), ("stamp", 2), ("flags", 3)):
        records[name] = [row[at] for row in good]
    records["travel"] = [np.nan if row[4] is None else row[4] for row in good]
    nowhere = np.full(12, np.nan).astype("<f8").tobytes()
    poses = b"".join(nowhere if row[5] is None else row[5] for row in good)  # type: ignore[misc]
    records["T_odom_base"] = np.frombuffer(poses, "<f8").reshape(-1, 3, 4)
    has_scan = np.array([row[8] is not None for row in good], np.bool_)
    packed = [row[7] for row in good], [row[8] for row in good if row[8] is not None]
    descriptors, scans = (unpack_descriptors(some, dim) for some in packed)  # type: ignore[arg-type]
    posed = ~np.isnan(records["T_odom_base"]).all(axis=(1, 2))
    right = ~posed | are_rigid(records["T_odom_base"])
    ids = np.array([row[0] for row in good], np.int64)
    kept = set(ids[right].tolist())
    damaged = sorted(int(row[0]) for row in rows if row[0] not in kept)  # type: ignore[call-overload]
    return Batch(ids[right], records[right], descriptors[right], has_scan[right], scans[right[has_scan]], damaged)


def read_descriptors(connection: sqlite3.Connection, id: int, dim: int) -> tuple[F32, F32 | None] | None:
    """The descriptors of a keyframe, None if it is damaged: a local map's and its single scan's, or the single
    scan's."""
    batch = _read(connection, dim, id, id + 1)
    return (batch.descriptors[0], batch.scans[0] if len(batch.scans) else None) if len(batch.ids) else None
