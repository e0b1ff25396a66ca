# SPDX-License-Identifier: Apache-2.0
"""All keyframes so far: FAISS inner-product search that excludes the recent ones inside the search."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from vlad_ros.config import BevConfig
from vlad_ros.mapping import batches, loading, tables
from vlad_ros.mapping.codec import round_descriptor
from vlad_ros.mapping.connection import refuse_mismatch, write_copy
from vlad_ros.mapping.contents import MapContents
from vlad_ros.mapping.geometry_check import check_geometry
from vlad_ros.mapping.lock import MapError
from vlad_ros.mapping.rows import KeyframeRow
from vlad_ros.mapping.store import MapStore
from vlad_ros.poses import check_rigid
from vlad_ros.settings import from_mapping
from vlad_ros.stopwatch import stage
from vlad_ros.types import F64, Geometry, Keyframe, PathLike

__all__ = ["KeyframeDatabase", "KeyframeRow", "MapError"]

Kind = Literal["points", "bev"]
METRIC = "inner_product"
MAX_UINT32 = 2**32 - 1
MAX_DIM = 65535


class KeyframeDatabase(MapContents):
    """Keyframes by id, which is the row in insertion order; `MapContents` tells how they are compared.

    Geometry is on disk: in the map file that the database `extend`s, else in an unnamed temporary one; keyframes of a
    file that was only `load`ed stay there. `dim`: length D of the descriptors. `model_hash` and `bev` say which network
    made them, `kind` whether from clouds ("points") or from external rasters ("bev"): a map made differently is
    refused.
    """

    def __init__(self, dim: int, *, model_hash: str, bev: BevConfig, kind: Kind = "points") -> None:
        super().__init__(dim)
        self.model_hash, self.bev, self.kind = model_hash, bev, kind
        self._feature_size: int | None = None  # of the geometries' features
        self._loaded: MapStore | None = None  # a file that is only read
        self._first = 0  # the first id that is not in it
        self.on_corrected: Callable[[list[tables.Correction]], None] = lambda news: None  # poses that were set
        self.store = MapStore(None, self._make())

    @classmethod
    def load(
        cls, path: PathLike, *, dim: int, model_hash: str, bev: BevConfig, kind: Kind = "points"
    ) -> KeyframeDatabase:
        """A new database from a map file, which is never written. MapError says why the file cannot be used: missing,
        damaged, of another version, or made with another network, raster, metric or kind of input."""
        database = cls(dim, model_hash=model_hash, bev=bev, kind=kind)
        store = MapStore.read(path)
        try:
            refuse_mismatch(path, store.make, database._make())
        except MapError:
            store.close()
            raise
        return database._over(store)

    @classmethod
    def open(cls, path: PathLike) -> KeyframeDatabase:
        """As `load`, of a map made by any network."""
        store = MapStore.read(path)
        try:
            return cls(**made(store.make))._over(store)
        except MapError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            store.close()
            raise MapError(f"the map {os.fspath(path)} is damaged: its make is impossible: {error}") from error

    @classmethod
    def extend(
        cls, path: PathLike, *, dim: int, model_hash: str, bev: BevConfig, kind: Kind = "points"
    ) -> KeyframeDatabase:
        """The database of a map file that grows with it; the file is created where there is none. MapError as in
        `load`. The caller holds its `MapLock`, and closes the database."""
        database = cls(dim, model_hash=model_hash, bev=bev, kind=kind)
        database.store = MapStore.grow(path, database._make())
        database.store.geometries.faults = database.faults
        loading.take_in(database, database.store)
        database._feature_size = database.store.geometries.feature_size
        return database

    def _over(self, store: MapStore) -> KeyframeDatabase:
        self._loaded = store
        store.geometries.faults = self.faults
        loading.take_in(self, store)
        self._feature_size = store.geometries.feature_size
        self._first = self.rows.next_id
        return self

    def close(self, force: bool = False) -> None:
        """Write what is left to the map file, and let go of it. MapError when that cannot be done, unless `force`."""
        self.store.close(force)
        if self._loaded is not None:
            self._loaded.close()

    def geometry(self, id: int) -> Geometry | None:
        """The geometry of the keyframe `id` for loop verification, None where it has none; ValueError when there is no
        such keyframe."""
        self.keyframe(id)
        return self._store_of(id).geometry(id, self.rows.owes_geometry(id))

    def geometry_bytes(self) -> int:
        """Bytes of the geometries that are on disk, compressed."""
        total = 0
        for store in filter(None, (self._loaded, self.store)):
            with store.reading() as connection:
                total += 0 if connection is None else tables.geometry_bytes(connection)
        return total

    def _store_of(self, id: int) -> MapStore:
        return self._loaded if self._loaded is not None and id < self._first else self.store

    def whole(self, id: int) -> Keyframe:
        """The keyframe `id` as it was added, with its descriptors and its geometry."""
        row, store = self.keyframe(id), self._store_of(id)
        geometry = self.geometry(id)
        if (waiting := store.waiting(id)) is not None:
            return waiting
        with store.reading() as connection:
            found = None if connection is None else batches.read_descriptors(connection, id, self.dim)
        if found is None:
            raise MapError(f"the descriptors of keyframe {id} in {store.path or 'the map'} can no longer be read")
        descriptor, scan = found
        scan = scan if row.is_local_map else descriptor
        return Keyframe(descriptor=descriptor, scan_descriptor=scan, geometry=geometry, **row._asdict())

    def set_T_map_odom(self, session: int, T_map_odom: F64 | None) -> None:
        """Set the pose of a session's odometry frame in the map; None: unknown."""
        self._check_session(session)
        self.sessions[session] = None if T_map_odom is None else check_rigid(T_map_odom, "T_map_odom")
        self.corrections.forget_frame(session)
        self._write_session(session)

    def adopt_session(self, session: int, other: KeyframeDatabase, number: int) -> None:
        """Have the `session` of `other` as it is there, without its keyframes, as the session `number`."""
        self.introduce(number, other._session(session))

    def name_session(self, session: int, name: str) -> None:
        """Call a session `name`; its UUID stays."""
        self._check_session(session)
        self.introduce(session, self._session(session)._replace(name=name))

    def introduce(self, session: int, told: tables.Session) -> None:
        """Give a session this UUID, name and pose, before its first keyframe or after."""
        self.sessions[session], self.identities[session] = told.T_map_odom, (told.uuid, told.name)
        self._write_session(session)

    def place(self, id: int, T_map_base: F64) -> None:
        """Set the pose of the keyframe `id` in the map, independent of its odometry."""
        self.keyframe(id)
        self.corrections.place(id, check_rigid(T_map_base, "T_map_base"))
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
        number = self.corrections.correct(session, stamps, T_map_base)
        self._write_corrections()
        self._write_session(session)
        return number

    @stage("search")
    def add(self, keyframe: Keyframe) -> int:
        """Append a keyframe and return its id. ValueError, and nothing changes, unless its descriptors are finite and
        of length D, its geometry of the right types, its pose rigid, and it is later than its session's last."""
        keyframe = self._kept(keyframe)
        last = self.rows.last(keyframe.session)
        if last is not None and keyframe.stamp <= last:
            raise ValueError(f"keyframe {keyframe.stamp} of session {keyframe.session} does not follow {last}")
        if keyframe.geometry is not None:
            self._feature_size = keyframe.geometry.features.shape[1]
        self._begin(keyframe.session)
        id = self.take(keyframe)
        self.store.add(id, keyframe)
        return id

    def _kept(self, keyframe: Keyframe) -> Keyframe:
        """Checked as it will be when it is read again, and without a second copy of a descriptor; ValueError as in
        `add`."""
        session, stamp, T, travel = int(keyframe.session), int(keyframe.stamp), keyframe.T_odom_base, keyframe.travel
        if not 0 <= session <= MAX_UINT32 or self.rows.next_id > MAX_UINT32:
            raise ValueError(f"session and id must be uint32, not {session} and {self.rows.next_id}")
        if abs(stamp) >= 2**62 or not (travel is None or np.isfinite(travel)):
            raise ValueError(f"stamp {stamp} or travel {travel} is no time or way of a drive")
        T = None if T is None else check_rigid(T)
        descriptor, scan = round_descriptor(self.checked(keyframe.descriptor)), keyframe.scan_descriptor
        if not keyframe.is_local_map:
            scan = descriptor
        elif scan is not None:
            scan = round_descriptor(self.checked(scan))
        if keyframe.geometry is not None:
            check_geometry(keyframe.geometry, self._feature_size)
        return dataclasses.replace(
            keyframe, session=session, stamp=stamp, T_odom_base=T, descriptor=descriptor, scan_descriptor=scan
        )

    def _begin(self, session: int) -> None:
        if session not in self.sessions:  # `map` is the first session's odometry frame
            self.sessions[session] = None if self.sessions else np.eye(4)
            self.identities[session] = (uuid4(), "")
            self._write_session(session)

    def join_place(self, id: int, match_id: int) -> None:
        """The new keyframe `id` was found at the place of `match_id`."""
        place = self.places.join(id, match_id)
        self.store.change(lambda connection: tables.write_place(connection, id, place))

    def thin_place(self, id: int, most: int) -> int:
        """Remove the oldest keyframes at the place of `id` until `most` are left, but never a session's last, nor those
        of a file that was only loaded; returns how many were removed."""
        present = [other for other in self.places.members(id) if self.rows.is_present(other)]
        free = [other for other in present if other >= self._first and other != self._last_of(other)]
        removed = free[: max(len(present) - most, 0)]
        for other in removed:
            self.drop(other)
            self.store.change(functools.partial(tables.remove, id=other))
        return len(removed)

    def _last_of(self, id: int) -> int:
        """The id of the newest keyframe of a keyframe's session."""
        return self.rows.ids[self.rows[id].session][-1]

    def save(self, path: PathLike) -> None:
        """Write a sealed copy of the map atomically; on failure MapError, and the old file is untouched. The file that
        the database extends is brought up to date instead."""
        if self.store.path == Path(os.path.realpath(path)):
            self.store.checkpoint()
            return
        ids = self.ids()
        parts = [(self.store, ids[ids >= self._first])]
        if self._loaded is not None:
            parts.insert(0, (self._loaded, ids[ids < self._first]))

        def fill(connection: sqlite3.Connection) -> None:
            for session in self.sessions:
                tables.write_session(connection, session, self._session(session))
            for store, own in parts:
                store.copy_to(connection, own)
            tables.write_corrections(connection, self.corrections.all(ids))

        write_copy(path, self._make(), fill)

    def _write_session(self, session: int) -> None:
        told = self._session(session)
        self.store.change(lambda connection: tables.write_session(connection, session, told))

    def _write_corrections(self) -> None:
        if news := self.corrections.news():
            self.store.change(lambda connection: tables.write_corrections(connection, news))
            self.on_corrected(news)

    def _session(self, session: int) -> tables.Session:
        return tables.Session(*self.identities[session], self.sessions[session])

    def _check_session(self, session: int) -> None:
        if session not in self.sessions:
            raise ValueError(f"there is no session {session} in the map")

    def _make(self) -> dict[str, str]:
        """How the descriptors were made; a map file must match this to be used."""
        bev = json.dumps(dataclasses.asdict(self.bev), sort_keys=True)
        return {"kind": self.kind, "metric": METRIC, "dim": str(self.dim), "model_hash": self.model_hash, "bev": bev}


def made(make: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of a database of this make; KeyError, TypeError, ValueError or RecursionError if there is none."""
    dim, kind = int(make["dim"]), make["kind"]
    if not 0 < dim <= MAX_DIM or dim % 2 or kind not in get_args(Kind):
        raise ValueError(f"dim {dim}, kind {kind!r}")
    bev = json.loads(make["bev"])
    if not isinstance(bev, dict):
        raise ValueError(f"bev {bev!r:.99}")
    bev = from_mapping(BevConfig, bev)
    return {"dim": dim, "model_hash": make["model_hash"], "bev": bev, "kind": kind}
