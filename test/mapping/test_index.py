# SPDX-License-Identifier: Apache-2.0
"""The index against numpy: ids with holes, excluded and removed ones, growing by one and by thousands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlad_ros.mapping import index as module
from vlad_ros.mapping.index import DescriptorIndex
from vlad_ros.mapping.rows import CHUNK, ROW, Poses, Rows
from vlad_ros.poses import from_xyz_rpy

DIM = 8


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def search(index: DescriptorIndex, query: np.ndarray, k: int, excluded: np.ndarray) -> list[tuple[float, int]]:
    found = [pair for job in index.jobs(query, k, excluded) for pair in job.run()]
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))[:k]


def check(index: DescriptorIndex, ids: np.ndarray, rows: np.ndarray, gone: np.ndarray, query: np.ndarray, k: int,
          within: float) -> None:  # fmt: skip
    allowed = ~np.isin(ids, gone)
    exact = rows[allowed].astype(np.float64) @ query
    best = np.sort(exact)[::-1][:k]
    found = search(index, query, k, gone)
    assert len(found) == min(k, int(allowed.sum())) and len({id for _, id in found}) == len(found)
    similarity = dict(zip(ids[allowed].tolist(), exact.tolist(), strict=True))
    assert all(abs(similarity[id] - told) <= within for told, id in found)  # KeyError: an excluded one
    assert np.allclose([told for told, _ in found], best, atol=within)  # ties in any order


@given(seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_search_equals_numpy(seed: int, data: st.DataObject) -> None:
    rng, index = np.random.default_rng(seed), DescriptorIndex(DIM)
    ids, rows, removed, within = np.empty(0, np.int64), np.empty((0, DIM), np.float32), set[int](), 1e-5
    for _ in range(data.draw(st.integers(1, 5))):
        count = data.draw(st.sampled_from([1, 2, 7, 500, module.BLOCK, module.BLOCK + 1]))
        step = rng.integers(1, data.draw(st.sampled_from([2, 2, 50])), count)  # holes, or none
        new, more = np.cumsum(step) + (ids[-1] if len(ids) else -1), unit(rng, count)
        if data.draw(st.booleans()) and len(rows):
            more[rng.random(count) < 0.3] = rows[0]  # equal ones
        if data.draw(st.sampled_from([True, True, False])):
            index.add(new.tolist(), more)
        else:
            index.fill(new, more)
            index.tend()
            within = 1e-3
        ids, rows = np.concatenate([ids, new]), np.concatenate([rows, more])
        for id in rng.choice(ids, data.draw(st.integers(0, 3))).tolist():
            index.remove(id)
            removed.add(id)
    share = data.draw(st.sampled_from([0.0, 0.01, 0.5, 0.999, 1.0]))
    some = np.concatenate([ids[rng.random(len(ids)) < share], rng.integers(0, 10**6, 3)])  # and strangers
    gone = np.unique(np.concatenate([some, np.array(sorted(removed), np.int64)]))
    for k in (1, 10, len(ids) + 5):
        check(index, ids, rows, gone, unit(rng, 1)[0], k, within)
    found = search(index, rows[0], len(ids), np.unique(some))
    assert not removed & {id for _, id in found}


@pytest.mark.parametrize(("spread", "axes"), [(1.0, DIM), (1.5, 5)])
def test_beyond_the_exact_range_what_is_excluded_stays_so(
    monkeypatch: pytest.MonkeyPatch, spread: float, axes: int
) -> None:
    """Graphs of a smaller map, and one made of several; every similarity told is right, and hardly one is missed,
    whether the descriptors need all their axes or only some."""

    def made(count: int) -> np.ndarray:
        rows = unit(rng, count) * spread ** -np.arange(DIM, dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    for name, value in {"BLOCK": 64, "EXACT": 256, "TAIL": 128, "SEGMENT": 128, "LARGEST": 1024, "MERGED": 3}.items():
        monkeypatch.setattr(module, name, value)
    rng, index = np.random.default_rng(4), DescriptorIndex(DIM)
    ids, rows = np.cumsum(rng.integers(1, 4, 3000)), made(3000)
    for at in range(0, 3000, 50):
        index.add(ids[at : at + 50].tolist(), rows[at : at + 50])
        if at < 1500:  # graph after graph, and made one
            index.settle()
    index.settle()
    graphs = [piece for piece in index._pieces if piece.is_graph]
    assert graphs[0].level > 0
    assert len(module.principal_axes(rows)) == axes
    assert [piece.begin for piece in index._pieces[1:]] == [piece.end for piece in index._pieces[:-1]]
    hits = total = 0
    for _ in range(100):
        query, gone = made(1)[0], np.sort(rng.choice(ids, 300, replace=False))
        exact = np.where(np.isin(ids, gone), -np.inf, rows.astype(np.float64) @ query)
        found = search(index, query, 10, gone)
        true = dict(zip(ids.tolist(), exact.tolist(), strict=True))
        assert len(found) == 10 and all(abs(true[id] - told) < 1e-3 for told, id in found)
        hits += len({id for _, id in found} & set(ids[np.argsort(-exact)[:10]].tolist()))
        total += 10
    assert hits / total >= 0.99


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_rows_equal_a_dictionary(data: st.DataObject) -> None:
    rows, poses, known, present = Rows(), Poses(), dict[int, tuple[int, int]](), set[int]()
    stamp, id = 0, -1
    for _ in range(data.draw(st.integers(1, 8))):
        count = data.draw(st.integers(1, 5))
        ids = [id := id + data.draw(st.sampled_from([1, 1, 2, CHUNK - 1, CHUNK, 5 * CHUNK])) for _ in range(count)]
        records = np.zeros(count, ROW)
        for at, one in enumerate(ids):
            stamp += 1
            records[at]["session"], records[at]["stamp"] = data.draw(st.integers(0, 2)), stamp
            known[one] = int(records[at]["session"]), stamp
        rows.extend(np.array(ids), records)
        present |= set(ids)
        poses.set(ids[0], from_xyz_rpy((id, 0, 0, 0, 0, 0)))
        assert poses.get(ids[0])[0, 3] == id and poses.get(ids[0] + 1) is None
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(present)))
            rows.remove(gone)
            present.remove(gone)
    assert rows.next_id == id + 1 and len(rows) == len(present) and rows.present().tolist() == sorted(present)
    for one in [*known, -1, id + 1, 10**9]:
        assert rows.has(one) == (one in known) and rows.is_present(one) == (one in present)
    told = np.array(sorted(known))
    assert rows.column("stamp", told).tolist() == [known[one][1] for one in told.tolist()]
    for session in range(3):
        own = [one for one in sorted(present) if known[one][0] == session]
        assert list(rows.ids.get(session, [])) == own
        assert rows.last(session) == max((known[one][1] for one in own), default=None)
        low, high = data.draw(st.integers(-1, stamp + 1)), data.draw(st.integers(-1, stamp + 1))
        assert rows.between(session, low, high).tolist() == [one for one in own if low <= known[one][1] <= high]
    rows.reserve(id + 100)
    assert rows.append(np.zeros(1, ROW)) == id + 100
