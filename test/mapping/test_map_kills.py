# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at random instants of drives: what is lost was added in the last second."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from campaign import rounds, seed
from map_driver import row
from map_rows import equal, extend, load

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
TOGETHER = 10  # drives at once
LOST = 1.0  # s


def killed(folder: Path, number: int, count: int) -> list[Path]:
    """The maps of `count` drives."""
    path = f"{HELPERS}{os.pathsep}{HELPERS.parents[1]}"
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HELPERS / "map_driver.py"), str(folder / "x.map"), str(number), str(count)]
    subprocess.run(command, env=env, check=True)
    return [folder / f"x.map.{i}" for i in range(count)]


def check(path: Path) -> tuple[int, float]:
    """The number of keyframes lost, and how long ago [s] the oldest of them had been added."""
    *told, (_, end) = [line.split() for line in Path(f"{path}.told").read_text().splitlines()]
    added = {int(id): float(end) - float(at) for id, at in told}
    if not path.exists():
        assert not added
        return 0, 0.0
    database = load(path)
    number = len(database)
    assert database.faults == [] and database.ids().tolist() == list(range(number))
    for id in range(number):
        one, other = database.whole(id), row(id)
        assert equal(one.descriptor, other.descriptor) and equal(one.geometry, other.geometry) and one.stamp == id
    database.close()
    lost = [age for id, age in added.items() if id >= number]
    return len(lost), max(lost, default=0.0)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_killed_drive_loses_at_most_its_last_second(tmp_path: Path) -> None:
    first, count, worst, lost, whole = seed(), rounds(1000), 0.0, 0, 0
    for begin in range(0, count, TOGETHER):
        (tmp_path / str(begin)).mkdir()
        for path in killed(tmp_path / str(begin), 1000 * first + begin, min(TOGETHER, count - begin)):
            number, age = check(path)
            worst, lost, whole = max(worst, age), lost + number, whole + (not number)
            grown = extend(path)  # and it goes on
            grown.add(row(50 * (len(grown) // 50 + 1)))
            grown.close()
            assert len(load(path)) == len(grown)
    print(f"{count} kills: {lost} keyframes lost, the oldest {worst:.3f} s old; nothing lost by {whole}")
    assert worst <= LOST
