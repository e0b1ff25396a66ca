# SPDX-License-Identifier: Apache-2.0
"""What of a map is in memory: rows, poses, and descriptors to search in."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import faiss
import numpy as np

from vlad_ros.mapping.corrections import Corrections
from vlad_ros.mapping.exclusion import Exclusion
from vlad_ros.mapping.index import DescriptorIndex
from vlad_ros.mapping.places import Places
from vlad_ros.mapping.rows import KeyframeRow, Rows, record
from vlad_ros.mapping.tables import MAX_ID
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64, Candidate, Ints, Keyframe

SINGLE_SCANS = 0.1  # share; fewer keyframes without a local map are those of gaps in the odometry
THREADS = min(4, len(os.sched_getaffinity(0)))  # more do not help: the search is limited by memory bandwidth
# FAISS would fork threads of its own for a single query, and wait for a busy core.
_POOL = ThreadPoolExecutor(THREADS, "search", lambda: faiss.omp_set_num_threads(1))


class MapContents:
    """Keyframes by id without their geometry; descriptors are `dim` numbers long.

    Only like descriptors are compared: a keyframe with a local map has two, its local map's and its single scan's, one
    without has only the latter. A query with a local map is compared with the former by local maps' descriptors, with
    the latter by single scans'; a query without one, with all by single scans'. So three indexes hold the descriptors
    (of local maps; of the single scans of some of the same keyframes; of keyframes with nothing but a single scan), a
    query searches two of them, and every keyframe appears at most once, with one similarity. A local map's keyframe
    without its single scan's descriptor does not meet those that have nothing else.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.sessions: dict[int, F64 | None] = {}  # session -> T_map_odom, None where unknown
        self.identities: dict[int, tuple[UUID, str]] = {}  # session -> its UUID and name
        self.faults: list[str] = []  # a sentence for each damage found in the file so far
        self.rows = Rows()
        self.exclusion = Exclusion(self.rows)
        self.corrections = Corrections(self.rows, self.sessions)
        self.places = Places()
        self.local, self.local_scan, self.single = (DescriptorIndex(dim) for _ in range(3))

    def __len__(self) -> int:
        return len(self.rows)

    def keyframe(self, id: int) -> KeyframeRow:
        """Session, stamp, pose and travel of the keyframe `id`, also where it was removed since the map was opened;
        ValueError when there is none."""
        if not self.rows.has(id):
            raise ValueError(f"there is no keyframe {id} among {len(self)}")
        return self.rows[id]

    def ids(self, session: int | None = None) -> Ints:
        """The ids (N,) of a session's keyframes (None: of all), ascending; empty if there is no such session."""
        return self.rows.present() if session is None else np.array(self.rows.ids.get(session, ()), np.int64)

    def next_session(self) -> int:
        """The first session id above all those in use; where there is none, the first free one."""
        above = max(self.sessions, default=-1) + 1
        return above if above <= MAX_ID else next(free for free in itertools.count() if free not in self.sessions)

    @property
    def has_single_scans(self) -> bool:
        """Whether a tenth of the keyframes have no local map: to meet these, queries need single scans' descriptors."""
        return len(self) > 0 and len(self.single) >= SINGLE_SCANS * len(self)

    def corrected(self, id: int) -> F64 | None:
        """T_map_base (4, 4) of the keyframe `id` as optimised by a back-end; None if it was not."""
        return self.corrections.corrected(id)

    def number_corrected(self, session: int) -> int:
        """The number of a session's keyframes that a back-end has optimised."""
        return self.corrections.numbers[session]

    def T_map_base(self, id: int) -> F64 | None:
        """(4, 4) pose of the keyframe `id` in the map: the back-end's where there is one, else by its odometry; None
        where it has none, or its session's place in the map is not known."""
        self.keyframe(id)
        return self.corrections.T_map_base(id)

    @stage("search")
    def search(self, query: Keyframe, k: int, exclude_time: float, exclude_distance: float) -> list[Candidate]:
        """Up to `k` keyframes most similar to `query`, best first, ties ordered by id.

        Of the query's own session those younger than `exclude_time` [s] or, with odometry, fewer than
        `exclude_distance` [m] of travel ago are left out inside the search. The similarity is the inner product.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        excluded = self.exclusion.ids(query, exclude_time, exclude_distance)
        descriptor, scan = self.checked(query.descriptor), query.scan_descriptor
        meets = [(self.local if query.is_local_map else self.local_scan, descriptor)]
        if scan is not None:
            meets.append((self.single, self.checked(scan)))
        jobs = [job for index, descriptor in meets for job in index.jobs(descriptor, k, excluded)]
        found = itertools.chain.from_iterable(_POOL.map(lambda job: job.run(), jobs))
        best = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:k]
        return [Candidate(id, *self.rows[id][:2], similarity) for similarity, id in best]

    def checked(self, descriptor: F32) -> F32:
        """(D,) float32; ValueError unless it is finite and of the map's length."""
        descriptor = np.ascontiguousarray(descriptor, np.float32)
        if descriptor.shape != (self.dim,) or not np.all(np.isfinite(descriptor)):
            raise ValueError(f"descriptor must be {self.dim} finite numbers, not {descriptor!r}")
        return descriptor

    def drop(self, id: int) -> None:
        """Remove a keyframe."""
        session, at = self.rows.remove(id)
        self.exclusion.remove(session, at)
        self.corrections.remove(session, id)
        for index in (self.local, self.local_scan, self.single):
            index.remove(id)

    def take(self, keyframe: Keyframe) -> int:
        """Append a keyframe, later than its session's last; returns its id."""
        row = KeyframeRow(*(getattr(keyframe, name) for name in KeyframeRow._fields))
        self.exclusion.append(row.session, row.stamp, row.travel)
        id = self.rows.append(record(row))
        if keyframe.is_local_map:
            self.local.add([id], keyframe.descriptor[None])
            if keyframe.scan_descriptor is not None:
                self.local_scan.add([id], keyframe.scan_descriptor[None])
        else:
            self.single.add([id], keyframe.descriptor[None])
        return id
