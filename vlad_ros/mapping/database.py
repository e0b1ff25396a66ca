# SPDX-License-Identifier: Apache-2.0
"""All keyframes so far: FAISS inner-product search that excludes the recent ones inside the search."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from vlad_ros.config import BevConfig
from vlad_ros.mapping.corrections import Corrections, ids_of
from vlad_ros.mapping.exclusion import Exclusion
from vlad_ros.mapping.index import FlatIndex
from vlad_ros.mapping.map_arrays import (
    Columns,
    KeyframeRow,
    check_geometry,
    pack_geometries,
    pack_rows,
    pack_transforms,
    unpack_geometries,
    unpack_rows,
    unpack_transforms,
)
from vlad_ros.mapping.map_file import MapError, read_map, refuse_mismatch, write_map
from vlad_ros.poses import check_rigid
from vlad_ros.settings import from_mapping
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64, Candidate, Geometry, Keyframe

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
    the latter by single scans'; a query without one, with all by single scans'. So three flat indexes hold the
    descriptors (of local maps; of the single scans of some of the same keyframes; of keyframes with nothing but a
    single scan), a query searches two of them, and every keyframe appears at most once, with one similarity. A local
    map's keyframe without its single scan's descriptor does not meet those that have nothing else.

    `dim`: length D of the descriptors. `model_hash` and `bev` say which network made them, `kind` whether from clouds
    ("points") or from external rasters ("bev"): a map file made differently is refused.
    """

    def __init__(self, dim: int, *, model_hash: str, bev: BevConfig, kind: Kind = "points") -> None:
        self.dim, self.model_hash, self.bev, self.kind = dim, model_hash, bev, kind
        self.sessions: dict[int, F64 | None] = {}  # session -> T_map_odom, None where unknown
        self._rows: list[KeyframeRow] = []
        self._geometries: list[Geometry | None] = []
        self._feature_size: int | None = None  # of the geometries' features
        self._corrections = Corrections(self._rows, self.sessions)
        self.exclusion = Exclusion()
        self._local, self._local_scan, self._single = (FlatIndex(dim) for _ in range(3))

    def __len__(self) -> int:
        return len(self._rows)

    def keyframe(self, id: int) -> KeyframeRow:
        """Session, stamp, pose and travel of the keyframe `id`; ValueError when there is none."""
        if not 0 <= id < len(self):
            raise ValueError(f"there is no keyframe {id} among {len(self)}")
        return self._rows[id]

    @property
    def has_single_scans(self) -> bool:
        """Whether a tenth of the keyframes have no local map: to meet these, queries need single scans' descriptors."""
        return len(self) > 0 and len(self._single) >= SINGLE_SCANS * len(self)

    def ids(self, session: int) -> range:
        """The ids of a session's keyframes; empty if there is no such session."""
        return ids_of(self._rows, session)

    def geometry(self, id: int) -> Geometry | None:
        """The geometry of the keyframe `id` for loop verification; ValueError when there is no such keyframe."""
        self.keyframe(id)
        return self._geometries[id]

    def whole(self, id: int) -> Keyframe:
        """The keyframe `id` as it was added, with its descriptors and its geometry."""
        row = self.keyframe(id)
        descriptor = (self._local if row.is_local_map else self._single).row(id)
        assert descriptor is not None  # each keyframe is in one of the two
        scan = self._local_scan.row(id) if row.is_local_map else descriptor
        return Keyframe(descriptor=descriptor, scan_descriptor=scan, geometry=self._geometries[id], **row._asdict())

    def next_session(self) -> int:
        """The first session id above all those in use."""
        return max(self.sessions, default=-1) + 1

    def set_T_map_odom(self, session: int, T_map_odom: F64 | None) -> None:
        """Set the pose of a session's odometry frame in the map; None: unknown."""
        if session not in self.sessions:
            raise ValueError(f"there is no session {session} in the map")
        self.sessions[session] = None if T_map_odom is None else check_rigid(T_map_odom, "T_map_odom")
        self._corrections.forget_frame(session)

    def corrected(self, id: int) -> F64 | None:
        """T_map_base (4, 4) of the keyframe `id` as optimised by a back-end; None if it was not."""
        return self._corrections.corrected.get(id)

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
        if session not in self.sessions:
            raise ValueError(f"there is no session {session} in the map")
        return self._corrections.correct(session, stamps, T_map_base)

    @stage("search")
    def add(self, keyframe: Keyframe) -> int:
        """Append a keyframe and return its id. ValueError unless its descriptors are finite and of length D, its
        geometry of the right types, and it follows the last keyframe: in a later session, or in the same one later."""
        key = (keyframe.session, keyframe.stamp)
        if not 0 <= keyframe.session <= MAX_UINT32:
            raise ValueError(f"session must be a uint32, not {keyframe.session}")
        if self._rows and key <= self._rows[-1][:2]:
            raise ValueError(f"keyframe (session, stamp) {key} does not follow {self._rows[-1][:2]}")
        descriptor = self._checked(keyframe.descriptor)
        scan = None if keyframe.scan_descriptor is None else self._checked(keyframe.scan_descriptor)
        geometry = keyframe.geometry
        if geometry is not None:
            check_geometry(geometry, self._feature_size)
            self._feature_size = geometry.features.shape[1]
        id = len(self)
        if keyframe.is_local_map:
            self._local.add([id], descriptor)
            if scan is not None:
                self._local_scan.add([id], scan)
        else:
            self._single.add([id], descriptor)
        self._append(KeyframeRow(*(getattr(keyframe, name) for name in KeyframeRow._fields)))
        self._geometries.append(geometry)
        return id

    @stage("search")
    def search(self, query: Keyframe, k: int, exclude_time: float, exclude_distance: float) -> list[Candidate]:
        """Up to `k` keyframes most similar to `query`, best first, ties ordered by id.

        Of the query's own session those younger than `exclude_time` [s] or, with odometry, fewer than
        `exclude_distance` [m] of travel ago are left out inside the search. The similarity is the inner product.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        excluded = self.exclusion.ids(query, self.ids(query.session), exclude_time, exclude_distance)
        descriptor, scan = self._checked(query.descriptor)[0], query.scan_descriptor
        meets = [(self._local if query.is_local_map else self._local_scan, descriptor)]
        if scan is not None:
            meets.append((self._single, self._checked(scan)[0]))
        jobs = [(rows.search, descriptor, k, piece) for rows, descriptor in meets for piece in rows.pieces(excluded)]
        run = map if len(jobs) < 2 else _POOL.map
        found = itertools.chain.from_iterable(run(lambda job: job[0](*job[1:]), jobs))
        best = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:k]
        return [Candidate(id, self._rows[id].session, self._rows[id].stamp, similarity) for similarity, id in best]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map file atomically; on failure MapError, and the old file is untouched."""
        arrays: Columns = {
            "local_descriptors": list(self._local.arrays()),
            "local_scan_descriptors": self._padded(),
            "single_scan_descriptors": list(self._single.arrays()),
            "T_map_base": pack_transforms(map(self._corrections.told, range(len(self)))),
            "session_ids": np.array(list(self.sessions), np.uint32),
            "session_T_map_odom": pack_transforms(self.sessions.values()),
            **pack_rows(self._rows),
            **pack_geometries(self._geometries),
        }
        write_map(path, arrays, self._make())

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, dim: int, model_hash: str, bev: BevConfig, kind: Kind = "points"
    ) -> KeyframeDatabase:
        """A new database from a map file. MapError says why the file cannot be used: missing, damaged, of another
        version, or made with another network, raster, metric or kind of input."""
        arrays, metadata = read_map(path)
        refuse_mismatch(path, metadata, cls(dim, model_hash=model_hash, bev=bev, kind=kind)._make())
        return cls._unpacked(arrays, metadata)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> KeyframeDatabase:
        """The database of a map file made by any network; MapError when it is missing or damaged, or of another
        version."""
        return cls._unpacked(*read_map(path))

    @classmethod
    def _unpacked(cls, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> KeyframeDatabase:
        """Unpack what `save` has packed; removes what it copies from `arrays`, to limit peak memory."""
        bev = from_mapping(BevConfig, json.loads(metadata["bev"]))
        kind = cast(Kind, metadata["kind"])
        database = cls(int(metadata["dim"]), model_hash=metadata["model_hash"], bev=bev, kind=kind)
        rows = unpack_rows(arrays)
        local = [id for id, row in enumerate(rows) if row.is_local_map]
        single = [id for id, row in enumerate(rows) if not row.is_local_map]
        database._local.add(local, arrays.pop("local_descriptors"))
        scans = arrays.pop("local_scan_descriptors")
        present = np.flatnonzero(scans.any(axis=1))  # zeros: there is none
        database._local_scan.add([local[row] for row in present], scans[present])
        database._single.add(single, arrays.pop("single_scan_descriptors"))
        anchors = unpack_transforms(arrays["session_T_map_odom"])
        database.sessions.update(zip(arrays["session_ids"].tolist(), anchors, strict=True))
        for row in rows:
            database._append(row)
        for id, T_map_base in enumerate(unpack_transforms(arrays["T_map_base"])):
            if T_map_base is not None:
                database._corrections.place(id, T_map_base)
        database._geometries = unpack_geometries(arrays)
        kept = [geometry for geometry in database._geometries if geometry is not None]
        database._feature_size = kept[0].features.shape[1] if kept else None
        return database

    def _padded(self) -> F32:
        """(L, D) the single scans' descriptors of all keyframes with local maps, zeros where there is none."""
        padded = np.zeros((len(self._local), self.dim), np.float32)
        at = np.searchsorted(self._local.ids, self._local_scan.ids)
        padded[at] = np.concatenate(self._local_scan.arrays())
        return padded

    def _append(self, row: KeyframeRow) -> None:
        self.exclusion.append(row.session, row.stamp, row.travel)
        if row.session not in self.sessions:  # `map` is the first session's odometry frame
            self.sessions[row.session] = None if self.sessions else np.eye(4)
        self._rows.append(row)

    def _checked(self, descriptor: F32) -> F32:
        """(1, D) float32."""
        descriptor = np.ascontiguousarray(descriptor, np.float32)
        if descriptor.shape != (self.dim,) or not np.all(np.isfinite(descriptor)):
            raise ValueError(f"descriptor must be {self.dim} finite numbers, not {descriptor!r}")
        return descriptor[None]

    def _make(self) -> dict[str, str]:
        """How the descriptors were made; a map file must match this to be used."""
        bev = json.dumps(dataclasses.asdict(self.bev), sort_keys=True)
        return {"kind": self.kind, "metric": METRIC, "dim": str(self.dim), "model_hash": self.model_hash, "bev": bev}
