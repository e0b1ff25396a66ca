# SPDX-License-Identifier: Apache-2.0
"""Processes that write maps, to be killed: python map_driver.py WHAT PATH SEED CHILDREN.

Each of CHILDREN forks (imports cost once) works on PATH.<number>. `drive` adds 20 keyframes a second and prints, once
`add` has returned: child, id, time.monotonic(). The parent kills a child at a random instant and prints "killed".
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from map_rows import extend, geometry, keyframe

from vlad_ros.mapping.lock import MapLock
from vlad_ros.types import Keyframe

PERIOD = 0.05  # s
LONGEST = 2.5  # s until a child is killed


def row(id: int) -> Keyframe:
    """The keyframe that each drive has as its `id`-th."""
    rng = np.random.default_rng(id)
    one = keyframe(rng, id // 50, id, id % 3 == 0, float(id))
    return dataclasses.replace(one, geometry=geometry(rng, 30, 300)) if id % 4 else one


def drive(path: Path, told: int) -> None:
    """Add keyframes for ever."""
    with MapLock(path):
        database = extend(path)
        for id in range(10**6):
            database.add(row(id))
            os.write(told, f"{id} {time.monotonic()}\n".encode())
            if id % 7 == 3:
                database.place(id - 1, np.eye(4))
            time.sleep(PERIOD)


def main(path: Path, seed: int, children: int) -> None:
    rng, alive = np.random.default_rng(seed), {}
    for number in range(children):
        name = path.with_name(f"{path.name}.{number}")
        told = os.open(name.with_name(name.name + ".told"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        child = os.fork()
        if not child:
            try:
                drive(name, told)
            finally:
                os._exit(3)
        alive[child] = time.monotonic() + float(rng.uniform(0.0, LONGEST)), told
    while alive:
        child = min(alive, key=lambda child: alive[child][0])
        due, told = alive.pop(child)
        time.sleep(max(0.0, due - time.monotonic()))
        os.kill(child, signal.SIGKILL)
        os.write(told, f"killed {time.monotonic()}\n".encode())
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it ended before it was killed"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
