# SPDX-License-Identifier: Apache-2.0
"""All keyframes so far: FAISS inner-product search that excludes the recent ones inside the search."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, cast
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt

from vlad_ros.config import BevConfig
from vlad_ros.mapping import loading, tables
from vlad_ros.mapping.codec import quantise
from vlad_ros.mapping.connection import refuse_mismatch, write_copy
from vlad_ros.mapping.corrections import Corrections
from vlad_ros.mapping.exclusion import Exclusion
from vlad_ros.mapping.geometry_check import check_geometry
from vlad_ros.mapping.index import DescriptorIndex
from vlad_ros.mapping.lock import MapError
from vlad_ros.mapping.rows import KeyframeRow, Rows, record
from vlad_ros.mapping.store import MapStore
from vlad_ros.poses import check_rigid
from vlad_ros.settings import from_mapping
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64, Candidate, Geometry, Ints, Keyframe, PathLike

__all__ = ["KeyframeDatabase", "KeyframeRow", "MapError"]

Kind = Literal["points", "bev"]
METRIC = "inner_product"
SINGLE_SCANS = 0.1  # share; fewer keyframes without a local map are those of gaps in the odometry
MAX_UINT32 = 2**32 - 1
THREADS = min(4, len(os.sched_getaffinity(0)))  # more do not help: the search is limited by memory bandwidth
_POOL = ThreadPoolExecutor(THREADS, "search")


class KeyframeDatabase:
    """Keyframes by id, which is the row in insertion order.

    Only like descriptors are compared: a keyframe with a local map has two, its local map's and its single scan's, one
    without has only the latter. A query with a local map is compared with the former by local maps' descriptors, with
    the latter by single scans'; a query without one, with all by single scans'. So three indexes hold the descriptors
    (of local maps; of the single scans of some of the same keyframes; of keyframes with nothing but a single scan), a
    query searches two of them, and every keyframe appears at most once, with one similarity. A local map's keyframe
    without its single scan's descriptor does not meet those that have nothing else.

    Geometry is on disk: in the map file that the database `extend`s, else in an unnamed temporary one; keyframes of a
    file that was only `load`ed stay there. `dim`: length D of the descriptors. `model_hash` and `bev` say which network
    made them, `kind` whether from clouds ("points") or from external rasters ("bev"): a map made differently is
    refused.
    """

    def __init__(self, dim: int, *, model_hash: str, bev: BevConfig, kind: Kind = "points") -> None:
        self.dim, self.model_hash, self.bev, self.kind = dim, model_hash, bev, kind
        self.sessions: dict[int, F64 | None] = {}  # session -> T_map_odom, None where unknown
        self.identities: dict[int, tuple[UUID, str]] = {}  # session -> its UUID and name
        self.faults: list[str] = []  # a sentence for each kind of damage found in the file
        self.rows = Rows()
        self.exclusion = Exclusion(self.rows)
        self._corrections = Corrections(self.rows, self.sessions)
        self._feature_size: int | None = None  # of the geometries' features
        self.local, self.local_scan, self.single = (DescriptorIndex(dim) for _ in range(3))
        self._loaded: MapStore | None = None  # a file that is only read
        self._first = 0  # the first id that is not in it
        self.store = MapStore(None, self._make())

    @classmethod
    def load(cls, path: PathLike, *, dim: int, model_hash: str, bev: BevConfig, kind: Kind = "points") -> KeyframeDatabase:
        """A new database from a map file, which is never written. MapError says why the file cannot be used: missing,
        damaged, of another version, or made with another network, raster, metric or kind of input."""
        database = cls(dim, model_hash=model_hash, bev=bev, kind=kind)
        store = MapStore.read(path)
        refuse_mismatch(path, store.make, database._make())
        return database._over(store)

    @classmethod
    def open(cls, path: PathLike) -> KeyframeDatabase:
        """As `load`, of a map made by any network."""
        store = MapStore.read(path)
        bev = from_mapping(BevConfig, json.loads(store.make["bev"]))
        make = store.make
        database = cls(int(make["dim"]), model_hash=make["model_hash"], bev=bev, kind=cast(Kind, make["kind"]))
        return database._over(store)

    @classmethod
    def extend(
        cls, path: PathLike, *, dim: int, model_hash: str, bev: BevConfig, kind: Kind = "points"
    ) -> KeyframeDatabase:
        """The database of a map file that grows with it; the file is created where there is none. MapError as in
        `load`. The caller holds its `MapLock`, and closes the database."""
        database = cls(dim, model_hash=model_hash, bev=bev, kind=kind)
        database.store = MapStore.grow(path, database._make())
        loading.take_in(database, database.store)
        return database

    def _over(self, store: MapStore) -> KeyframeDatabase:
        self._loaded = store
        loading.take_in(self, store)
        self._first = self.rows.next_id
        return self

    def close(self, force: bool = False) -> None:
        """Write what is left to the map file, and let go of it. MapError when that cannot be done, unless `force`."""
        self.store.close(force)
        if self._loaded is not None:
            self._loaded.close()

    def __len__(self) -> int:
        return len(self.rows)

    def keyframe(self, id: int) -> KeyframeRow:
        """Session, stamp, pose and travel of the keyframe `id`; ValueError when there is none."""
        if not self.rows.has(id):
            raise ValueError(f"there is no keyframe {id} among {len(self)}")
        return self.rows[id]

    @property
    def has_single_scans(self) -> bool:
        """Whether a tenth of the keyframes have no local map: to meet these, queries need single scans' descriptors."""
        return len(self) > 0 and len(self.single) >= SINGLE_SCANS * len(self)

    def ids(self, session: int | None = None) -> Ints:
        """The ids (N,) of a session's keyframes (None: of all), ascending; empty if there is no such session."""
        return self.rows.present() if session is None else np.array(self.rows.ids.get(session, ()), np.int64)

    def geometry(self, id: int) -> Geometry | None:
        """The geometry of the keyframe `id` for loop verification, None where it has none; ValueError when there is no
        such keyframe."""
        self.keyframe(id)
        return self._store_of(id).geometry(id)

    def _store_of(self, id: int) -> MapStore:
        return self._loaded if self._loaded is not None and id < self._first else self.store

    def whole(self, id: int) -> Keyframe:
        """The keyframe `id` as it was added, with its descriptors and its geometry."""
        row, store = self.keyframe(id), self._store_of(id)
        geometry = store.geometry(id)
        if (waiting := store.waiting(id)) is not None:
            return waiting
        with store.reading() as connection:
            found = None if connection is None else tables.read_descriptors(connection, id, self.dim)
        if found is None:
            raise MapError(f"the descriptors of keyframe {id} can no longer be read")
        descriptor, scan = found
        scan = scan if row.is_local_map else descriptor
        return Keyframe(descriptor=descriptor, scan_descriptor=scan, geometry=geometry, **row._asdict())

    def next_session(self) -> int:
        """The first session id above all those in use."""
        return max(self.sessions, default=-1) + 1

    def set_T_map_odom(self, session: int, T_map_odom: F64 | None) -> None:
        """Set the pose of a session's odometry frame in the map; None: unknown."""
        self._check_session(session)
        self.sessions[session] = None if T_map_odom is None else check_rigid(T_map_odom, "T_map_odom")
        self._corrections.forget_frame(session)
        self._write_session(session)

    def adopt_session(self, session: int, other: KeyframeDatabase) -> None:
        """Have a session as `other` has it, without its keyframes."""
        self.sessions[session], self.identities[session] = other.sessions[session], other.identities[session]
        self._write_session(session)

    def corrected(self, id: int) -> F64 | None:
        """T_map_base (4, 4) of the keyframe `id` as optimised by a back-end; None if it was not."""
        return self._corrections.corrected(id)

    def number_corrected(self, session: int) -> int:
        """The number of a session's keyframes that a back-end has optimised."""
        return self._corrections.numbers[session]

    def T_map_base(self, id: int) -> F64 | None:
        """(4, 4) pose of the keyframe `id` in the map: the back-end's where there is one, else by its odometry; None
        where it has none, or its session's place in the map is not known."""
        self.keyframe(id)
        return self._corrections.T_map_base(id)

    def place(self, id: int, T_map_base: F64) -> None:
        """Set the pose of the keyframe `id` in the map, independent of its odometry."""
        self.keyframe(id)
        self._corrections.place(id, check_rigid(T_map_base, "T_map_base"))
        self._write_corrections()

    def correct(
        self, session: int, stamps: Sequence[int] | npt.NDArray[np.int64], T_map_base: Sequence[F64] | F64
    ) -> int:
        """Take over a back-end's optimised path of `session`, or the stretch of it that has changed: poses (N, 4, 4)
        at `stamps` (N,) [ns]. Returns how many keyframes it gives poses for, interpolated as in `Trajectory`. Others
        keep their pose, and those later than the newest corrected one follow it by odometry. Parts unchanged since the
        session's last path cost almost nothing.

        If no other session has a pose in the map, the path's frame *is* the map's. Otherwise the back-end may have
        started its own frame: the path is aligned once to the session's known pose, at the newest keyframe that
        the first such path covers; until the pose is known the path moves nothing. ValueError for a path without poses,
        with one that is not rigid, or of a session that is not in the map.
        """
        self._check_session(session)
        number = self._corrections.correct(session, stamps, T_map_base)
        self._write_corrections()
        self._write_session(session)
        return number

    @stage("search")
    def add(self, keyframe: Keyframe) -> int:
        """Append a keyframe and return its id. ValueError unless its descriptors are finite and of length D, its
        geometry of the right types, and it is later than its session's last."""
        if not 0 <= keyframe.session <= MAX_UINT32:
            raise ValueError(f"session must be a uint32, not {keyframe.session}")
        last = self.rows.last(keyframe.session)
        if last is not None and keyframe.stamp <= last:
            raise ValueError(f"keyframe {keyframe.stamp} of session {keyframe.session} does not follow {last}")
        keyframe = self._kept(keyframe)
        row = KeyframeRow(*(getattr(keyframe, name) for name in KeyframeRow._fields))
        self._begin(row.session)
        self.exclusion.append(row.session, row.stamp, row.travel)
        id = self.rows.append(record(row))
        if keyframe.is_local_map:
            self.local.add([id], keyframe.descriptor[None])
            if keyframe.scan_descriptor is not None:
                self.local_scan.add([id], keyframe.scan_descriptor[None])
        else:
            self.single.add([id], keyframe.descriptor[None])
        self.store.add(id, keyframe)
        return id

    def _kept(self, keyframe: Keyframe) -> Keyframe:
        """With its descriptors as the map keeps them; ValueError as in `add`."""
        descriptor = quantise(self._checked(keyframe.descriptor))
        scan = keyframe.scan_descriptor
        if not keyframe.is_local_map:
            scan = descriptor
        elif scan is not None:
            scan = quantise(self._checked(scan))
        if keyframe.geometry is not None:
            check_geometry(keyframe.geometry, self._feature_size)
            self._feature_size = keyframe.geometry.features.shape[1]
        return dataclasses.replace(keyframe, descriptor=descriptor, scan_descriptor=scan)

    def _begin(self, session: int) -> None:
        if session not in self.sessions:  # `map` is the first session's odometry frame
            self.sessions[session] = None if self.sessions else np.eye(4)
            self.identities[session] = (uuid4(), "")
            self._write_session(session)

    @stage("search")
    def search(self, query: Keyframe, k: int, exclude_time: float, exclude_distance: float) -> list[Candidate]:
        """Up to `k` keyframes most similar to `query`, best first, ties ordered by id.

        Of the query's own session those younger than `exclude_time` [s] or, with odometry, fewer than
        `exclude_distance` [m] of travel ago are left out inside the search. The similarity is the inner product.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        excluded = self.exclusion.ids(query, exclude_time, exclude_distance)
        descriptor, scan = self._checked(query.descriptor), query.scan_descriptor
        meets = [(self.local if query.is_local_map else self.local_scan, descriptor)]
        if scan is not None:
            meets.append((self.single, self._checked(scan)))
        jobs = [job for index, descriptor in meets for job in index.jobs(descriptor, k, excluded)]
        run = map if len(jobs) < 2 else _POOL.map
        found = itertools.chain.from_iterable(run(lambda job: job.run(), jobs))
        best = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:k]
        return [Candidate(id, *self.rows[id][:2], similarity) for similarity, id in best]

    def save(self, path: PathLike) -> None:
        """Write a sealed copy of the map atomically; on failure MapError, and the old file is untouched."""
        ids = self.ids()
        parts = [(self.store, ids[ids >= self._first])]
        if self._loaded is not None:
            parts.insert(0, (self._loaded, ids[ids < self._first]))

        def fill(connection: sqlite3.Connection) -> None:
            for session in self.sessions:
                tables.write_session(connection, session, self._session(session))
            for store, own in parts:
                store.copy_to(connection, own)
            tables.write_corrections(connection, self._corrections.all(ids))

        write_copy(path, self._make(), fill)

    def _write_session(self, session: int) -> None:
        told = self._session(session)
        self.store.change(lambda connection: tables.write_session(connection, session, told))

    def _write_corrections(self) -> None:
        if news := self._corrections.news():
            self.store.change(lambda connection: tables.write_corrections(connection, news))

    def _session(self, session: int) -> tables.Session:
        return tables.Session(*self.identities[session], self.sessions[session])

    def restore(self, correction: tables.Correction) -> None:
        """Take over a pose of a map file."""
        self._corrections.restore(correction)

    def _check_session(self, session: int) -> None:
        if session not in self.sessions:
            raise ValueError(f"there is no session {session} in the map")

    def _checked(self, descriptor: F32) -> F32:
        """(D,) float32."""
        descriptor = np.ascontiguousarray(descriptor, np.float32)
        if descriptor.shape != (self.dim,) or not np.all(np.isfinite(descriptor)):
            raise ValueError(f"descriptor must be {self.dim} finite numbers, not {descriptor!r}")
        return descriptor

    def _make(self) -> dict[str, str]:
        """How the descriptors were made; a map file must match this to be used."""
        bev = json.dumps(dataclasses.asdict(self.bev), sort_keys=True)
        return {"kind": self.kind, "metric": METRIC, "dim": str(self.dim), "model_hash": self.model_hash, "bev": bev}
