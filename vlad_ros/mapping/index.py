# SPDX-License-Identifier: Apache-2.0
"""Descriptors of one kind in FAISS: exact where that is fast enough, beyond it by graphs built in the background."""

from __future__ import annotations

import bisect
import math
import threading
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import faiss
import numpy as np

from vlad_ros.types import F32, Ints

BLOCK = 2048  # rows
EXACT = 16384  # rows; up to here all are compared exactly
TAIL = 2048  # of more rows, at least these newest ones are
SEGMENT = 4096  # least rows of a graph
LARGEST = 131072  # most rows of a graph; larger ones find less by the same effort
MERGED = 4  # neighbouring graphs of about one size that are made one
LINKS, BUILD_EFFORT, EFFORT = 32, 80, 192  # of HNSW (Malkov and Yashunin, 2018): M, efConstruction, efSearch
ENERGY = 0.96  # of the descriptors' squares, in the principal axes that a graph keeps
WALKED = 150  # rows that a graph finds by these, to be compared whole
SEEN = 16384  # rows that the axes are found by
FAISS: Any = faiss  # its stubs know no graphs
HALF = faiss.ScalarQuantizer.QT_fp16


class _Piece(NamedTuple):
    """Rows `begin` .. `end` (positions) in a FAISS index of their own."""

    begin: int
    end: int
    index: Any
    is_graph: bool

    @property
    def level(self) -> int:
        """How often graphs of the least size have been made one for it."""
        return int(math.log(max((self.end - self.begin) / SEGMENT, 1.0), MERGED))


class Job(NamedTuple):
    """A part of a search, which may run in any thread."""

    piece: _Piece
    ids: Sequence[int]
    excluded: Ints  # positions
    descriptor: F32
    k: int

    def run(self) -> list[tuple[float, int]]:
        """(similarity, id) of up to `k` best rows; FAISS skips the excluded ones before it keeps anything."""
        size = self.piece.end - self.piece.begin
        k, graph = min(self.k, size), self.piece.is_graph
        selected: dict[str, Any] = {}
        if len(self.excluded):
            allowed = np.ones(size, np.bool_)
            allowed[self.excluded - self.piece.begin] = False
            bits = np.packbits(allowed, bitorder="little")
            selected["sel"] = faiss.IDSelectorBitmap(size, faiss.swig_ptr(bits))  # keeps no reference to `bits`
        if graph:
            walk = FAISS.SearchParametersHNSW(efSearch=max(EFFORT, k), **selected)
            parameters = FAISS.IndexRefineSearchParameters(
                k_factor=max(WALKED / k, 1.0),
                base_index_params=FAISS.SearchParametersPreTransform(index_params=walk),
            )
        else:
            parameters = FAISS.SearchParameters(**selected)
        found = self.piece.index.search(self.descriptor[None], k, params=parameters)
        begin = self.piece.begin
        return [(float(s), self.ids[begin + row]) for s, row in zip(found[0][0], found[1][0], strict=True) if row >= 0]


class DescriptorIndex:
    """Descriptors (N, D) of one kind, in the order of their keyframes' ids.

    New ones go to flat indexes of `BLOCK` rows: one that grows in place would copy all its data from time to time, and
    FAISS runs a single query in a single thread. Of more than `EXACT` rows the older ones are moved, by a thread
    of its own, into HNSW graphs, which are never changed but only made one when there are many. A graph is walked in
    the descriptors' principal axes, a fifth of their numbers; the best rows found so are compared whole, in float16.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.ids: array[int] = array("q")
        self._pieces: list[_Piece] = []
        self._removed: Ints = np.empty(0, np.int64)  # positions, ascending
        self._changing = threading.Lock()
        self._builder: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ids: Sequence[int], descriptors: F32) -> None:
        """Append `descriptors` (N, D), N small; `ids` are above all earlier ones."""
        while len(ids):
            with self._changing:
                last = self._pieces[-1] if self._pieces else None
                if last is None or last.is_graph or last.end - last.begin >= BLOCK:
                    exact = len(self.ids) < EXACT
                    index = faiss.IndexFlatIP(self.dim) if exact else _half(self.dim)
                    last = _Piece(len(self.ids), len(self.ids), index, False)
                    self._pieces.append(last)
                room = BLOCK - (last.end - last.begin)
                last.index.add(np.ascontiguousarray(descriptors[:room], np.float32))
                self.ids.extend(ids[:room])
                self._pieces[-1] = last._replace(end=len(self.ids))
            ids, descriptors = ids[room:], descriptors[room:]
        self.tend()

    def fill(self, ids: Ints, descriptors: F32) -> None:
        """Append many rows (N, D) of a map of many at once, in float16; `tend` after the last of them."""
        for at in range(0, len(ids), BLOCK):
            some = np.ascontiguousarray(descriptors[at : at + BLOCK], np.float32)
            index = _half(self.dim)
            index.add(some)
            with self._changing:
                begin = len(self.ids)
                self.ids.extend(ids[at : at + BLOCK].tolist())
                self._pieces.append(_Piece(begin, len(self.ids), index, False))

    def remove(self, id: int) -> None:
        """Never find `id` again, if it is here. Its numbers stay until the map is opened anew."""
        if (at := self._position(id)) is not None:
            self._removed = np.insert(self._removed, np.searchsorted(self._removed, at), at)

    def settle(self) -> None:
        """Wait until no graph is being built."""
        while (builder := self._builder) is not None:
            builder.join()

    @property
    def is_settled(self) -> bool:
        """Whether no graph is being built."""
        return self._builder is None

    def jobs(self, descriptor: F32, k: int, excluded: Ints) -> list[Job]:
        """The parts of a search for `descriptor` (D,), of all rows but those of the ids `excluded` (ascending)."""
        with self._changing:
            pieces = list(self._pieces)
        known = np.array([at for id in excluded.tolist() if (at := self._position(id)) is not None], np.int64)
        positions = np.union1d(known, self._removed)
        jobs = []
        for piece in pieces:
            own = positions[np.searchsorted(positions, piece.begin) : np.searchsorted(positions, piece.end)]
            if len(own) < piece.end - piece.begin:
                jobs.append(Job(piece, self.ids, own, descriptor, k))
        return jobs

    def _position(self, id: int) -> int | None:
        at = bisect.bisect_left(self.ids, id)
        return at if at < len(self.ids) and self.ids[at] == id else None

    # -- graphs -------------------------------------------------------------------------------------------------------

    def tend(self) -> None:
        """Have graphs built where there are rows enough."""
        with self._changing:
            if self._builder is None and self._next():
                self._builder = threading.Thread(target=self._build, name="vlad_index", daemon=True)
                self._builder.start()

    def _next(self) -> list[_Piece]:
        """The neighbouring pieces that are to become one graph; empty if there is nothing to do."""
        graphs = [piece for piece in self._pieces if piece.is_graph]
        for some in (graphs[at : at + MERGED] for at in range(len(graphs) - MERGED + 1)):
            if len({piece.level for piece in some}) == 1 and some[-1].end - some[0].begin <= LARGEST:
                return some
        flat = [piece for piece in self._pieces if not piece.is_graph]
        rows, chosen = sum(piece.end - piece.begin for piece in flat) - TAIL, list[_Piece]()
        if len(self.ids) <= EXACT or rows < SEGMENT:
            return []
        while flat and rows >= flat[0].end - flat[0].begin and sum(p.end - p.begin for p in chosen) < LARGEST:
            rows -= flat[0].end - flat[0].begin
            chosen.append(flat.pop(0))
        return chosen

    def _build(self) -> None:
        faiss.omp_set_num_threads(1)  # of this thread: the others belong to the drive
        while True:
            with self._changing:
                chosen = self._next()
                if not chosen:
                    self._builder = None
                    return
            graph = self._graph(chosen)
            with self._changing:
                at = self._pieces.index(chosen[0])
                self._pieces[at : at + len(chosen)] = [graph]

    def _graph(self, pieces: list[_Piece]) -> _Piece:
        rows = _half(self.dim)
        for piece in pieces:
            stored = FAISS.downcast_index(piece.index.refine_index) if piece.is_graph else piece.index
            for at in range(0, piece.end - piece.begin, BLOCK):
                rows.add(stored.reconstruct_n(at, min(BLOCK, piece.end - piece.begin - at)))
        some = rows.reconstruct_batch(np.linspace(0, rows.ntotal - 1, min(SEEN, rows.ntotal)).astype(np.int64))
        axes = principal_axes(some)
        transform = FAISS.LinearTransform(self.dim, len(axes), False)
        FAISS.copy_array_to_vector(axes.ravel(), transform.A)
        transform.is_trained = True
        graph = FAISS.IndexHNSWSQ(len(axes), HALF, LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = BUILD_EFFORT
        graph.train(np.zeros((1, len(axes)), np.float32))
        walked = FAISS.IndexPreTransform(transform, graph)
        for at in range(0, rows.ntotal, BLOCK):
            walked.add(rows.reconstruct_n(at, min(BLOCK, rows.ntotal - at)))
        return _Piece(pieces[0].begin, pieces[-1].end, FAISS.IndexRefine(walked, rows), True)


def _half(dim: int) -> Any:
    index = faiss.IndexScalarQuantizer(dim, HALF, faiss.METRIC_INNER_PRODUCT)
    index.train(np.zeros((1, dim), np.float32))  # learns nothing, but FAISS asks for it
    return index


def principal_axes(rows: F32) -> F32:
    """(d, D) orthonormal, d <= D: those that keep `ENERGY` of the squares of `rows` (N, D), and nearly their inner
    products; the mean is not taken off, for it belongs to them."""
    values, vectors = np.linalg.eigh(rows.T @ rows)  # ascending
    share = np.cumsum(values[::-1]) / max(values.sum(), np.finfo(np.float32).tiny)
    kept = int(np.searchsorted(share, ENERGY)) + 1
    return np.ascontiguousarray(vectors[:, ::-1][:, :kept].T, np.float32)
