# SPDX-License-Identifier: Apache-2.0
"""Descriptors of one kind in FAISS, searched exactly, with a range of rows left out inside the search."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import faiss
import numpy as np

from vlad_ros.types import F32

BLOCK = 2048  # rows


class FlatIndex:
    """Descriptors of one kind, in the order of their keyframes' ids.

    They are stored in FAISS indexes of `BLOCK` rows: a single growing index would copy all its data from time to time
    (1 s at 65,536 rows), and FAISS runs a single query in a single thread, so blocks spread it over the cores.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.ids: list[int] = []
        self._blocks: list[faiss.IndexFlatIP] = []

    def add(self, ids: Sequence[int], descriptors: F32) -> None:
        """Append `descriptors` (N, D)."""
        while len(descriptors):
            if len(self.ids) == BLOCK * len(self._blocks):
                self._blocks.append(faiss.IndexFlatIP(self.dim))
            room = BLOCK * len(self._blocks) - len(self.ids)
            self._blocks[-1].add(descriptors[:room])
            self.ids += ids[:room]
            ids, descriptors = ids[room:], descriptors[room:]

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, id: int) -> F32 | None:
        """The descriptor (D,) of the keyframe `id`, a copy; None if it has none of this kind."""
        found = bisect.bisect_left(self.ids, id)
        if found == len(self.ids) or self.ids[found] != id:
            return None
        at, row = divmod(found, BLOCK)
        return np.asarray(self._blocks[at].reconstruct(row), np.float32)

    def arrays(self) -> list[F32]:
        """The indexes' own memory, (N, D) in pieces."""
        flat = [faiss.rev_swig_ptr(block.get_xb(), block.ntotal * self.dim) for block in self._blocks]
        return [piece.reshape(-1, self.dim) for piece in flat] or [np.empty((0, self.dim), np.float32)]

    def pieces(self, excluded: range) -> list[range]:
        """The rows whose ids are not `excluded`, split at block boundaries."""
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
