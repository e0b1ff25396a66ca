# SPDX-License-Identifier: Apache-2.0
"""The latency table: its columns are all of the way from bytes to edges, and add up to it."""

from __future__ import annotations

import ast
import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIRST, LAST = "receive", "rest"  # the columns that are to add up, and those between them


@pytest.mark.ros
@pytest.mark.slow
def test_the_stages_and_the_rest_add_up_to_the_whole_and_little_is_in_none(tmp_path: Path) -> None:
    out = tmp_path / "latency.csv"
    argv = [sys.executable, "bench/latency.py", "--scans", "6", "--points", "3000", "--keyframes", "200"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*argv, "--csv", str(out)], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    with open(out, newline="") as file:
        rows = {row["view"]: row for row in csv.DictReader(file)}
    for view, row in rows.items():
        names = list(row)
        stages = names[names.index(FIRST) : names.index(LAST) + 1]
        p50 = {name: ast.literal_eval(row[name])[0] for name in (*stages, "whole")}
        assert sum(p50[name] for name in stages) == pytest.approx(p50["whole"], rel=0.15)  # medians add up only nearly
        assert 0.0 <= p50["rest"] <= 0.1 * p50["whole"]
        for name in ("decode", "network", "geometry", "search", "verify", "accept", "publish"):
            assert p50[name] > 0.0, name
        assert (p50["local map"] > 0.0) == (p50["deskew"] > 0.0) == (view == "local map")
        assert float(row["verified"]) >= 1.0


def test_what_is_in_no_stage_is_in_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.syspath_prepend(ROOT / "bench")
    from latency import columns

    cells = columns([{"decode": 1.0, "unheard of": 2.0}, {"decode": 3.0}], np.array([10.0, 4.0]))
    assert cells["decode"][0] == 2.0 and cells["unheard of"][0] == 1.0 and cells["network"] == [0.0, 0.0]
    assert cells["rest"][0] == pytest.approx(4.0)  # 7 and 1
    assert cells["sum"] == pytest.approx(cells["whole"][0]) == pytest.approx(7.0)
