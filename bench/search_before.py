# SPDX-License-Identifier: Apache-2.0
"""The map of commit 30a5116 by its size, which lay whole in memory, beside that of bench/search.py.

    git worktree add ../old 30a5116
    python bench/search_before.py ../old [--keyframes 1000 10000 100000] [--csv docs/maps_30a5116.csv]

The same descriptors and queries as in bench/search.py; geometry as that commit keeps it, of the same drives. `save_s`:
how long a save stops the worker. A map is written whole there, so that nothing can be added to one that was not loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from search import DRIVES, SCANS, SESSION, queries, real_drives
from table import print_table

# What runs in the old checkout: its modules have other names.
INSIDE = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.database import KeyframeDatabase
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.sequence import load_sequence
from vlad_ros.types import Keyframe

folder, drives, task = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[5]
scans, session = int(sys.argv[3]), int(sys.argv[4])
config, make = RecognizerConfig(), {"model_hash": "0" * 64, "bev": BevConfig()}
rows, asked, path = np.load(folder / "rows.npy", mmap_mode="r"), np.load(folder / "asked.npy"), folder / "old.map"
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def keyframe(i, row, geometry):
    row = np.array(row)
    return Keyframe(i // session, i * 10**9, row, row, True, False, np.eye(4), float(i % session), geometry=geometry)

if task == "write":
    geometries = []
    for name in drives:
        sequence = load_sequence(Path(os.environ["VLAD_DATA"]) / f"{name}.npz")
        place, found = PlaceRecognizer.from_pretrained(None, "cpu", config), []
        for i in range(min(scans, len(sequence.scans))):
            found += place.step(sequence.scans[i], sequence.stamps_ns()[i], None, sequence.poses[i])
        geometries += [one.keyframe.geometry for one in found + place.finish() if one.keyframe.geometry is not None]
    database, added = KeyframeDatabase(rows.shape[1], **make), []
    for i in range(len(rows)):
        new = keyframe(i, rows[i], geometries[i % len(geometries)])
        begin = time.perf_counter()
        database.add(new)
        added.append(1e3 * (time.perf_counter() - begin))
    begin = time.perf_counter()
    database.save(path)
    told = {"save_s": time.perf_counter() - begin, "add_p50_ms": np.median(added), "add_max_ms": max(added)}
else:
    before, begin = resident(), time.perf_counter()
    database = KeyframeDatabase.load(path, dim=rows.shape[1], **make)
    told, times = {"open_s": time.perf_counter() - begin}, []
    for row in asked:
        new = keyframe(10**7, row, None)
        begin = time.perf_counter()
        database.search(new, config.top_k, config.exclude_time, config.exclude_distance)
        times.append(1e3 * (time.perf_counter() - begin))
    told |= {"resident_MB": (resident() - before) / 1e6, "file_kB_each": path.stat().st_size / len(rows) / 1e3}
    told |= {"search_p50_ms": np.percentile(times, 50), "search_p99_ms": np.percentile(times, 99)}
print(json.dumps({name: float(value) for name, value in told.items()}))
"""
COLUMNS = (
    "file_kB_each",
    "open_s",
    "save_s",
    "resident_MB",
    "search_p50_ms",
    "search_p99_ms",
    "add_p50_ms",
    "add_max_ms",
)


def inside(tree: Path, folder: Path, task: str) -> dict[str, float]:
    """What the old checkout tells of a task, in a process of its own."""
    command = [sys.executable, "-c", INSIDE, str(folder), ",".join(DRIVES), str(SCANS), str(SESSION), task]
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    told = subprocess.run(command, cwd=tree, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(told.splitlines()[-1]))


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, float]]:
    """The table, row by row."""
    drives = real_drives()
    for count in arguments.keyframes:
        with tempfile.TemporaryDirectory() as name:
            folder, size = Path(name), len(drives.kept)
            copies = [drives.copy(drives.kept, copy) for copy in range((count - 1) // size + 1)]
            np.save(folder / "rows.npy", np.concatenate(copies)[:count])
            asked = queries(drives, arguments.queries, count)
            np.save(folder / "asked.npy", np.stack([query.descriptor for query in asked]))
            told = inside(arguments.tree, folder, "write") | inside(arguments.tree, folder, "use")
        yield {"keyframes": float(count)} | {name: told[name] for name in COLUMNS}


def main() -> None:
    """Print the table; keep it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, help="a checkout of 30a5116")
    parser.add_argument("--keyframes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--csv", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    print_table(rows(arguments), 13, arguments.csv)


if __name__ == "__main__":
    main()
