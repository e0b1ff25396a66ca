# SPDX-License-Identifier: Apache-2.0
"""What is known of each keyframe besides descriptors and geometry, in arrays; a session's rows may be interleaved."""

from __future__ import annotations

import bisect
from array import array
from typing import NamedTuple

import numpy as np

from vlad_ros.types import F64, Ints

CHUNK = 16384  # rows; arrays that grow in place would copy everything from time to time
LOCAL_MAP, PARTIAL, GEOMETRY, KNOWN, PRESENT = 1, 2, 4, 8, 16  # flags; the last two are in memory only
ROW = np.dtype(
    [("session", "<u4"), ("stamp", "<i8"), ("flags", "u1"), ("travel", "<f8"), ("T_odom_base", "<f8", (3, 4))]
)


class KeyframeRow(NamedTuple):
    """What the database knows of a keyframe besides descriptors and geometry; the fields are those of `Keyframe`."""

    session: int
    stamp: int
    is_local_map: bool
    partial: bool
    T_odom_base: F64 | None
    travel: float | None


class Poses:
    """Transforms (4, 4) by id, NaN where there is none; grows in chunks, those of which nothing is known are absent."""

    def __init__(self) -> None:
        self._chunks: dict[int, F64] = {}

    def get(self, id: int) -> F64 | None:
        """The transform (4, 4) of `id`, a copy; None if there is none."""
        at, row = divmod(id, CHUNK)
        if at not in self._chunks or np.isnan(self._chunks[at][row, 0, 0]):
            return None
        T = np.eye(4)
        T[:3] = self._chunks[at][row]
        return T

    def set(self, id: int, T: F64 | None) -> None:
        """Set or remove the transform of `id`."""
        at, row = divmod(id, CHUNK)
        if at not in self._chunks:
            self._chunks[at] = np.full((CHUNK, 3, 4), np.nan)
        self._chunks[at][row] = np.nan if T is None else T[:3]


class Rows:
    """The rows by id. Ids are never reused: one that was left out has no row, one that was removed keeps its own."""

    def __init__(self) -> None:
        self._chunks: dict[int, np.ndarray] = {}  # ascending
        self._size = 0
        self._present = 0
        self.ids: dict[int, array[int]] = {}  # session -> the ids of its keyframes, ascending
        self.stamps: dict[int, array[int]] = {}  # session -> their stamps [ns], ascending

    def __len__(self) -> int:
        return self._present

    @property
    def next_id(self) -> int:
        """The id of the next keyframe."""
        return self._size

    def reserve(self, next_id: int) -> None:
        """Give no new keyframe an id below `next_id`."""
        self._size = max(self._size, next_id)

    def has(self, id: int) -> bool:
        """Whether there is a keyframe `id`, or was when the map was opened."""
        return self._is(id, KNOWN)

    def owes_geometry(self, id: int) -> bool:
        """Whether the file that the keyframe `id` was read from must have its geometry."""
        return self._is(id, GEOMETRY)

    def present(self) -> Ints:
        """(N,) the ids of all keyframes, ascending."""
        ids = [np.flatnonzero(chunk["flags"] & PRESENT) + at * CHUNK for at, chunk in self._chunks.items()]
        return np.concatenate(ids) if ids else np.empty(0, np.int64)

    def __getitem__(self, id: int) -> KeyframeRow:
        session, stamp, flags, travel, T = self._row(id).item()
        pose = None
        if not np.isnan(T[0, 0]):
            pose = np.eye(4)
            pose[:3] = T
        metres = None if np.isnan(travel) else travel
        return KeyframeRow(session, stamp, bool(flags & LOCAL_MAP), bool(flags & PARTIAL), pose, metres)

    def column(self, name: str, ids: Ints) -> np.ndarray:
        """(N, ...) the field `name` of `ids`."""
        out = np.empty((len(ids), *ROW[name].shape), ROW[name].base)
        for at in np.unique(ids // CHUNK).tolist():
            here = ids // CHUNK == at
            out[here] = self._chunks[at][name][ids[here] % CHUNK]
        return out

    def last(self, session: int) -> int | None:
        """The stamp [ns] of the newest keyframe of `session`; None if it has none."""
        stamps = self.stamps.get(session)
        return stamps[-1] if stamps else None

    def append(self, record: np.ndarray) -> int:
        """Add one row, a `record` of type `ROW`; returns its id."""
        id = self._size
        self.extend(np.array([id]), record.reshape(1))
        return id

    def extend(self, ids: Ints, records: np.ndarray) -> None:
        """Add rows (N,) of type `ROW` with ascending `ids`, all above those before; ids in between have no row."""
        if not len(ids):
            return
        self._size = int(ids[-1]) + 1
        records = records.copy()
        records["flags"] |= KNOWN | PRESENT
        for at in np.unique(ids // CHUNK).tolist():
            here = ids // CHUNK == at
            self._chunks.setdefault(at, np.zeros(CHUNK, ROW))[ids[here] % CHUNK] = records[here]
        self._present += len(ids)
        for session in np.unique(records["session"]).tolist():
            own = records["session"] == session
            self.ids.setdefault(session, array("q")).frombytes(ids[own].astype(np.int64).tobytes())
            self.stamps.setdefault(session, array("q")).frombytes(records["stamp"][own].tobytes())

    def is_present(self, id: int) -> bool:
        """Whether there is a keyframe `id` that was not removed."""
        return self._is(id, PRESENT)

    def remove(self, id: int) -> tuple[int, int]:
        """Remove the keyframe `id`; returns its session and its position there."""
        row = self._row(id)
        session = int(row["session"])
        at = bisect.bisect_left(self.ids[session], id)
        del self.ids[session][at], self.stamps[session][at]
        row["flags"] &= ~np.uint8(PRESENT)
        self._present -= 1
        return session, at

    def between(self, session: int, first: int, last: int) -> Ints:
        """(N,) the ids of a session's keyframes with stamps from `first` to `last` [ns]."""
        stamps = self.stamps.get(session, array("q"))
        own = self.ids.get(session, array("q"))
        return np.array(own[bisect.bisect_left(stamps, first) : bisect.bisect_right(stamps, last)], np.int64)

    def _is(self, id: int, flag: int) -> bool:
        return id // CHUNK in self._chunks and bool(self._row(id)["flags"] & flag)

    def _row(self, id: int) -> np.ndarray:
        row: np.ndarray = self._chunks[id // CHUNK][id % CHUNK]
        return row


def record(row: KeyframeRow) -> np.ndarray:
    """`row` as a record () of type `ROW`."""
    flags = LOCAL_MAP * row.is_local_map | PARTIAL * row.partial
    T = np.full((3, 4), np.nan) if row.T_odom_base is None else row.T_odom_base[:3]
    travel = np.nan if row.travel is None else row.travel
    return np.array((row.session, row.stamp, flags, travel, T), ROW)
