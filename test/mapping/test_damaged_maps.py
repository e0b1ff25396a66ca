# SPDX-License-Identifier: Apache-2.0
"""10,000 damaged map files, each opened in a process of bounded memory and time (test/helpers/map_probe.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from campaign import rounds, seed

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
PROCESSES = 2
KINDS = ["version 2 forged", "log ", "schema forged", "keyframes forged", "zero", "flip", "swap", "refused", "named"]


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_damaged_maps_are_told_and_never_believed(tmp_path: Path) -> None:
    first, count = 1000 * seed(), max(50, rounds(10_000) // PROCESSES)
    probes = []
    for i in range(PROCESSES):
        (tmp_path / str(i)).mkdir()
        command = [sys.executable, str(HELPERS / "map_probe.py"), str(tmp_path / str(i)), str(first + i), str(count)]
        path = f"{HELPERS}{os.pathsep}{HELPERS.parents[1]}"
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        probes.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    told = [probe.communicate()[0] for probe in probes]
    print("\n".join(told))
    assert [probe.returncode for probe in probes] == [0] * PROCESSES, told
    assert all(kind in "".join(told) for kind in KINDS)  # the damages were what they are meant to be
