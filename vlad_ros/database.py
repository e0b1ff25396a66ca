# SPDX-License-Identifier: Apache-2.0
"""Every place seen so far: FAISS inner-product search over keyframes, the recent ones excluded inside the search."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import faiss
import numpy as np

from vlad_ros.config import BevConfig
from vlad_ros.map_file import MapError, read_map, write_map
from vlad_ros.odometry import check_rigid
from vlad_ros.types import F32, F64, Candidate, Keyframe

__all__ = ["KeyframeDatabase", "KeyframeRow", "MapError"]

Kind = Literal["points", "bev"]
METRIC = "inner_product"
SECOND = 1e9  # ns
MAX_UINT32 = 2**32 - 1
THREADS = min(4, len(os.sched_getaffinity(0)))  # more do not help: memory is what the search waits for
BLOCK = 2048  # rows
_POOL = ThreadPoolExecutor(THREADS, "search")


class KeyframeRow(NamedTuple):
    """What the database knows of a keyframe besides its descriptors; the fields are those of `Keyframe`."""

    session: int
    stamp: int
    is_local_map: bool
    partial: bool
    T_odom_base: F64 | None
    travel: float | None


class _Descriptors:
    """Descriptors of one kind, in the order of their keyframes' ids.

    They lie in FAISS indexes of `BLOCK` rows: one that grew for ever would copy all it has from time to time (a
    second at 65,536 rows), and FAISS searches for a single query in a single thread, so that blocks share the cores.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.ids: list[int] = []
        self._blocks: list[faiss.IndexFlatIP] = []

    def add(self, ids: list[int], descriptors: F32) -> None:
        """Append `descriptors` (N, D)."""
        while len(descriptors):
            if len(self.ids) == BLOCK * len(self._blocks):
                self._blocks.append(faiss.IndexFlatIP(self.dim))
            room = BLOCK * len(self._blocks) - len(self.ids)
            self._blocks[-1].add(descriptors[:room])
            self.ids += ids[:room]
            ids, descriptors = ids[room:], descriptors[room:]

    def arrays(self) -> list[F32]:
        """The indexes' own memory, (N, D) in pieces."""
        flat = [faiss.rev_swig_ptr(block.get_xb(), block.ntotal * self.dim) for block in self._blocks]
        return [piece.reshape(-1, self.dim) for piece in flat] or [np.empty((0, self.dim), np.float32)]

    def pieces(self, excluded: range) -> list[range]:
        """The rows whose ids are not `excluded`, cut where the blocks end."""
        begin, end = (bisect.bisect_left(self.ids, id) for id in (excluded.start, excluded.stop))
        pieces = []
        for start in range(0, len(self.ids), BLOCK):
            stop = min(start + BLOCK, len(self.ids))
            pieces += [range(start, min(begin, stop)), range(max(end, start), stop)]
        return [piece for piece in pieces if piece]

    def search(self, descriptor: F32, k: int, piece: range) -> list[tuple[float, int]]:
        """(similarity, id) of the `k` best within `piece`. FAISS skips the other rows before it compares anything."""
        at, offset = divmod(piece.start, BLOCK)
        selector = faiss.IDSelectorRange(offset, offset + len(piece))
        parameters = faiss.SearchParameters()
        parameters.sel = selector
        found = self._blocks[at].search(descriptor[None], min(k, len(piece)), params=parameters)
        first = piece.start - offset
        return [(float(s), self.ids[first + row]) for s, row in zip(found[0][0], found[1][0], strict=True)]


class KeyframeDatabase:
    """Keyframes by id, the row in insertion order.

    Like is compared with like: a keyframe with a local map has two descriptors, its local map's and its single scan's,
    one without has the latter only. A query with a local map meets the former by the local maps' descriptors and the
    latter by the single scans'; a query without one meets all by the single scans'. So three flat indexes hold the
    descriptors (of local maps; of the single scans of the same keyframes; of keyframes with nothing but a single
    scan), a query searches two of them, and every keyframe appears once, with one similarity.

    `dim`: length D of the descriptors. `model_hash` and `bev` say which network made them, `kind` whether from clouds
    ("points") or from rasters given from outside ("bev"): a map file of another make is refused.
    """

    def __init__(self, dim: int, *, model_hash: str, bev: BevConfig, kind: Kind = "points") -> None:
        self.dim, self.model_hash, self.bev, self.kind = dim, model_hash, bev, kind
        self.sessions: dict[int, F64 | None] = {}  # session -> T_map_odom, None where unknown
        self._rows: list[KeyframeRow] = []
        self._reach: list[float] = []  # travel [m]; a keyframe without odometry lies where the last one with it was
        self._local, self._local_scan, self._single = (_Descriptors(dim) for _ in range(3))

    def __len__(self) -> int:
        return len(self._rows)

    def keyframe(self, id: int) -> KeyframeRow:
        """Session, stamp, pose and travel of the keyframe `id`; ValueError when there is none."""
        if not 0 <= id < len(self):
            raise ValueError(f"there is no keyframe {id} among {len(self)}")
        return self._rows[id]

    def next_session(self) -> int:
        """The first session id above all those in use."""
        return max(self.sessions, default=-1) + 1

    def set_T_map_odom(self, session: int, T_map_odom: F64 | None) -> None:
        """Say where a session's odometry frame lies in the map, or (None) that it is unknown."""
        if session not in self.sessions:
            raise ValueError(f"there is no session {session} in the map")
        self.sessions[session] = None if T_map_odom is None else check_rigid(T_map_odom, "T_map_odom")

    def add(self, keyframe: Keyframe) -> int:
        """Append a keyframe and return its id. ValueError unless its descriptors are finite and of length D, and it
        follows the last keyframe: in a later session, or in the same one with a later stamp."""
        key = (keyframe.session, keyframe.stamp)
        if not 0 <= keyframe.session <= MAX_UINT32:
            raise ValueError(f"session must be a uint32, not {keyframe.session}")
        if self._rows and key <= self._rows[-1][:2]:
            raise ValueError(f"keyframe (session, stamp) {key} does not follow {self._rows[-1][:2]}")
        scan, local = self._checked(keyframe.scan_descriptor), self._checked(keyframe.descriptor)
        id = len(self)
        if keyframe.is_local_map:
            self._local.add([id], local)
            self._local_scan.add([id], scan)
        else:
            self._single.add([id], scan)
        self._append(KeyframeRow(*(getattr(keyframe, name) for name in KeyframeRow._fields)))
        return id

    def search(self, query: Keyframe, k: int, exclude_time: float, exclude_distance: float) -> list[Candidate]:
        """The `k` keyframes most similar to `query`, best first, equal ones by id; fewer where there are fewer.

        Of the query's own session those younger than `exclude_time` [s] or, with odometry, fewer than
        `exclude_distance` [m] of travel ago are left out inside the search. The similarity is the inner product.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        excluded = self._excluded(query, exclude_time, exclude_distance)
        scan = self._checked(query.scan_descriptor)[0]
        if query.is_local_map:
            meets = ((self._local, self._checked(query.descriptor)[0]), (self._single, scan))
        else:
            meets = ((self._local_scan, scan), (self._single, scan))
        jobs = [(rows.search, descriptor, k, piece) for rows, descriptor in meets for piece in rows.pieces(excluded)]
        run = map if len(jobs) < 2 else _POOL.map
        found = itertools.chain.from_iterable(run(lambda job: job[0](*job[1:]), jobs))
        best = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:k]
        return [Candidate(id, self._rows[id].session, self._rows[id].stamp, similarity) for similarity, id in best]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map file, atomically; MapError, and the old file untouched, when that cannot be done."""
        unknown = np.full((4, 4), np.nan)
        poses = [unknown if row.T_odom_base is None else row.T_odom_base for row in self._rows]
        anchors = [unknown if T is None else T for T in self.sessions.values()]
        arrays: dict[str, np.ndarray | list[F32]] = {
            "local_descriptors": self._local.arrays(),
            "local_scan_descriptors": self._local_scan.arrays(),
            "single_scan_descriptors": self._single.arrays(),
            "sessions": np.array([row.session for row in self._rows], np.uint32),
            "stamps": np.array([row.stamp for row in self._rows], np.int64),
            "is_local_map": np.array([row.is_local_map for row in self._rows], np.uint8),
            "partial": np.array([row.partial for row in self._rows], np.uint8),
            "T_odom_base": np.array(poses, np.float64).reshape(-1, 4, 4),  # NaN where unknown, as all that follow
            "travel": np.array([np.nan if row.travel is None else row.travel for row in self._rows], np.float64),
            "session_ids": np.array(list(self.sessions), np.uint32),
            "session_T_map_odom": np.array(anchors, np.float64).reshape(-1, 4, 4),
        }
        write_map(path, arrays, self._make())

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, dim: int, model_hash: str, bev: BevConfig, kind: Kind = "points"
    ) -> KeyframeDatabase:
        """A new database from a map file. MapError says why the file cannot be used: missing, damaged, of another
        version, or made with another network, raster, metric or kind of input."""
        database = cls(dim, model_hash=model_hash, bev=bev, kind=kind)
        arrays, metadata = read_map(path)
        database._refuse_mismatch(path, metadata)
        is_local = arrays["is_local_map"].astype(bool)
        local, single = np.flatnonzero(is_local).tolist(), np.flatnonzero(~is_local).tolist()
        database._local.add(local, arrays["local_descriptors"])
        database._local_scan.add(local, arrays["local_scan_descriptors"])
        database._single.add(single, arrays["single_scan_descriptors"])
        columns = (
            arrays["sessions"].tolist(),
            arrays["stamps"].tolist(),
            is_local.tolist(),
            arrays["partial"].astype(bool).tolist(),
            [None if np.isnan(T[0, 0]) else T for T in arrays["T_odom_base"]],
            [None if np.isnan(metres) else metres for metres in arrays["travel"].tolist()],
        )
        for values in zip(*columns, strict=True):
            database._append(KeyframeRow(*values))
        for session, T in zip(arrays["session_ids"].tolist(), arrays["session_T_map_odom"], strict=True):
            database.sessions[session] = None if np.isnan(T[0, 0]) else T
        return database

    def _append(self, row: KeyframeRow) -> None:
        same = bool(self._rows) and self._rows[-1].session == row.session
        before = self._reach[-1] if same else -np.inf
        self._reach.append(before if row.travel is None else max(row.travel, before))
        if row.session not in self.sessions:  # `map` is the first session's odometry frame
            self.sessions[row.session] = None if self.sessions else np.eye(4)
        self._rows.append(row)

    def _checked(self, descriptor: F32) -> F32:
        """(1, D) float32."""
        descriptor = np.ascontiguousarray(descriptor, np.float32)
        if descriptor.shape != (self.dim,) or not np.all(np.isfinite(descriptor)):
            raise ValueError(f"descriptor must be {self.dim} finite numbers, not {descriptor!r}")
        return descriptor[None]

    def _excluded(self, query: Keyframe, exclude_time: float, exclude_distance: float) -> range:
        """The ids too recent to be candidates: within a session both stamp and travel only grow, so whatever is too
        young or too near by travel is the end of the session from some keyframe on."""
        start = bisect.bisect_left(self._rows, query.session, key=lambda row: row.session)
        stop = bisect.bisect_right(self._rows, query.session, key=lambda row: row.session)
        oldest = query.stamp - round(exclude_time * SECOND)
        first = bisect.bisect_right(self._rows, oldest, start, stop, key=lambda row: row.stamp)
        if query.travel is not None:
            first = min(first, bisect.bisect_right(self._reach, query.travel - exclude_distance, start, stop))
        return range(first, stop)

    def _make(self) -> dict[str, str]:
        """How the descriptors were made: what a map file must agree in with those that it is to be compared with."""
        bev = json.dumps(dataclasses.asdict(self.bev), sort_keys=True)
        return {"kind": self.kind, "metric": METRIC, "dim": str(self.dim), "model_hash": self.model_hash, "bev": bev}

    def _refuse_mismatch(self, path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
        said = {
            "kind": "holds keyframes made from {theirs}, not from {ours}",
            "metric": "compares by {theirs}, not by {ours}",
            "dim": "holds descriptors of length {theirs}; this network makes {ours}",
            "model_hash": "was made with other weights ({theirs:.12}...; these are {ours:.12}...)",
            "bev": "was made with another BEV configuration ({theirs}; these weights have {ours})",
        }
        for name, ours in self._make().items():
            theirs = metadata.get(name, "nothing")
            if theirs != ours:
                raise MapError(f"the map {os.fspath(path)} " + said[name].format(theirs=theirs, ours=ours))
