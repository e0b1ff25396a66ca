# SPDX-License-Identifier: Apache-2.0
"""docs/integration.md: what stands there for Swarm-SLAM, against the interface of its place recognition."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from circuit import circuit

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "integration.md").read_text()
(PROGRAM,) = (block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "cslam" in block)
LAP = 34  # scans

pytestmark = pytest.mark.usefixtures("one_thread")


class NearestNeighbors:
    """A stand-in for `cslam.nns_matching.NearestNeighborsMatching`: vectors (D,) by any key, found by cosine."""

    def __init__(self) -> None:
        self.vectors: list[np.ndarray] = []
        self.items: list[int] = []

    def add_item(self, vector: np.ndarray, item: int) -> None:
        assert vector.ndim == 1
        self.vectors.append(vector.astype(np.float32))
        self.items.append(item)

    def search(self, query: np.ndarray, k: int) -> tuple[list[int], np.ndarray]:
        if not self.items:
            return [], np.empty(0)
        stored = np.array(self.vectors)
        cosines = stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)
        best = np.argsort(-cosines)[:k]
        return [self.items[n] for n in best], cosines[best]

    def search_best(self, query: np.ndarray) -> tuple[Any, Any]:
        items, cosines = self.search(query, 1)
        return (items[0], cosines[0]) if items else (None, None)


class ScanContextOnly(NearestNeighbors):
    """What stands there before: it takes vectors of 20 x 60."""

    def add_item(self, vector: np.ndarray, item: int) -> None:
        super().add_item(vector.reshape(20, 60).ravel(), item)


def test_it_is_ten_lines_at_most() -> None:
    assert len([line for line in PROGRAM.splitlines() if line.strip()]) <= 10


def test_keyframes_of_two_robots_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("cslam"), ModuleType("cslam.nns_matching")
    module.NearestNeighborsMatching = NearestNeighbors  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cslam", package)
    monkeypatch.setitem(sys.modules, "cslam.nns_matching", module)
    scope: dict[str, Any] = {}
    exec(PROGRAM, scope)
    matching = SimpleNamespace(local_nnsm=ScanContextOnly(), other_robots_nnsm={1: ScanContextOnly()})
    detection = SimpleNamespace(global_descriptor=None, lcm=matching)
    scope["use_vlad"](detection)
    drive = circuit()
    for k in range(0, LAP, 6):  # ours, and a lap later those of the other robot, as messages carry them
        ours = detection.global_descriptor.compute_embedding(drive.scans[k][:, :3])
        matching.local_nnsm.add_item(ours, k)
        other = detection.global_descriptor.compute_embedding(drive.scans[k + LAP][::2, :3])
        matching.other_robots_nnsm[1].add_item(np.asarray(other.tolist()), k)
        assert ours.shape == (512,) and matching.other_robots_nnsm[1].search_best(ours)[0] == k
    for k in range(0, LAP, 6):
        kept = matching.local_nnsm.vectors[matching.local_nnsm.items.index(k)]
        found, cosine = matching.other_robots_nnsm[1].search_best(kept)
        assert found == k and 0.0 < cosine <= 1.0 + 1e-6
        others = matching.other_robots_nnsm[1].search(kept, 6)
        assert others[0][0] == k and others[1][0] > others[1][1]
