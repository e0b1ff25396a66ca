# SPDX-License-Identifier: Apache-2.0
"""The keyframe database by its size: on disk, opening, memory, searching, recall, adding.

    python bench/search.py [--keyframes 1000 10000 100000 1000000] [--queries 200] [--csv docs/maps.csv]
    python bench/search.py --draw docs/maps.png     # of docs/maps.csv, and docs/maps_30a5116.csv (search_before.py)

The keyframes are those of two real drives (`VLAD_DATA`), described once: every fourth is kept back to ask with. A map
of many is made of copies of the drives at other places: the principal components of the descriptors change their signs
at random, which keeps the cosines between neighbours and revisits as they are, and how descriptors are spread.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from table import print_table, read_csv
from tqdm import tqdm

from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.files.sequence import load_sequence
from vlad_ros.mapping import tables
from vlad_ros.mapping.codec import pack_geometry
from vlad_ros.mapping.connection import write_copy
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.types import F32, Geometry, Keyframe

DRIVES = ("loop_mid360", "kitti00_hdl64")
SCANS = 400  # of each drive
QUERY = 4  # one of so many keyframes is kept back
SESSION = 20_000  # keyframes of a session
SPACING = 5  # keyframes from one with a single scan's descriptor to the next
DIM = 512
NEW = 2**31  # the session of queries, and of what is added
MAKE = {"model_hash": "0" * 64, "bev": BevConfig()}
CONFIG = RecognizerConfig()
COUNT = CONFIG.top_k

PANELS = {  # a column of the table: its title, and what was aimed at by the number of keyframes
    "resident_MB": ("resident memory [MB]", {1e5: 600, 1e6: 3000}),
    "open_s": ("opening [s]", {1e5: 5, 1e6: 60}),
    "file_kB_each": ("file, kB a keyframe", {1e5: 16, 1e6: 16}),
    "search_p50_ms": ("search, p50 [ms]", {1e5: 1, 1e6: 5}),
    "recall": ("recall of the true ten", {1e5: 0.99, 1e6: 0.99}),
    "add_max_ms": ("slowest add [ms]", {1e5: 50, 1e6: 50}),
}

BETWEEN = {"file_kB_each": (0, 50), "recall": (0.9, 1.005)}  # of the axes that are not logarithmic


@dataclasses.dataclass
class Drives:
    """Descriptors (K, D) and packed geometries of real keyframes, the geometries themselves, and queries (Q, D)."""

    kept: F32
    packed: list[bytes]
    geometries: list[Geometry]
    asked: F32

    def __post_init__(self) -> None:
        self.mean = self.kept.mean(0)
        self.axes = np.linalg.svd(self.kept - self.mean, full_matrices=True)[2]

    def copy(self, rows: F32, number: int) -> F32:
        """The descriptors (N, D) of the same drive at another place; copy 0 is the drive itself."""
        signs = np.random.default_rng(number).choice([-1.0, 1.0], DIM) if number else np.ones(DIM)
        moved = self.mean + ((rows - self.mean) @ self.axes.T * signs) @ self.axes
        return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)


def real_drives() -> Drives:
    """Drive them, once."""
    rows: list[Keyframe] = []
    for name in DRIVES:
        sequence = load_sequence(Path(os.environ["VLAD_DATA"]) / f"{name}.npz")
        assert sequence.poses is not None
        recognizer = PlaceRecognizer.from_pretrained(None, "cpu", CONFIG)
        found = []
        for i in tqdm(range(min(SCANS, len(sequence.scans))), desc=name, disable=None):
            found += recognizer.step(sequence.scans[i], sequence.stamps_ns()[i], None, sequence.poses[i])
        rows += [described.keyframe for described in found + recognizer.finish()]
    asked = [row for i, row in enumerate(rows) if i % QUERY == 0]
    kept = [row for i, row in enumerate(rows) if i % QUERY]
    geometries = [row.geometry for row in kept if row.geometry is not None]
    descriptors = (np.stack([row.descriptor for row in some]) for some in (kept, asked))
    return Drives(next(descriptors), [pack_geometry(each) for each in geometries], geometries, next(descriptors))


def keyframes(drives: Drives, count: int, first: int = 0) -> Iterator[tuple[Keyframe, bytes]]:
    """`count` keyframes from the `first` on, one metre and a second apart, with their packed geometry."""
    size = len(drives.kept)
    for copy in range(first // size, (first + count - 1) // size + 1):
        rows = drives.copy(drives.kept, copy)
        for i in range(max(first, copy * size), min(first + count, (copy + 1) * size)):
            row, at = rows[i % size], i % SESSION
            scan = row if at % SPACING == 0 else None
            T = np.eye(4)
            T[0, 3] = at
            yield (
                Keyframe(i // SESSION, at * 10**9, row, scan, True, False, T, float(at)),
                drives.packed[i % len(drives.packed)],
            )


def write(drives: Drives, count: int, path: Path) -> None:
    """A map file of `count` keyframes."""

    def fill(connection: object) -> None:
        for id, (keyframe, packed) in enumerate(tqdm(keyframes(drives, count), total=count, disable=None)):
            tables.write_keyframe(connection, id, keyframe, packed)  # type: ignore[arg-type]

    make = KeyframeDatabase(DIM, **MAKE).store.make
    write_copy(path, make, fill)


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def queries(drives: Drives, number: int, count: int) -> list[Keyframe]:
    """Keyframes of a new session that come back to places of the map."""
    rng = np.random.default_rng(1)
    copies = rng.integers(0, max(count // len(drives.kept), 1), number)
    rows = [drives.copy(drives.asked[rng.integers(len(drives.asked))][None], int(copy))[0] for copy in copies]
    return [Keyframe(NEW, 0, row, row, True, False, None, None) for row in rows]


def search(database: KeyframeDatabase, asked: list[Keyframe]) -> tuple[list[list[int]], np.ndarray]:
    """The ids found and the time [ms] of each query."""
    found, times = [], []
    for query in asked:
        begin = time.perf_counter()
        candidates = database.search(query, COUNT, CONFIG.exclude_time, CONFIG.exclude_distance)
        times.append(1e3 * (time.perf_counter() - begin))
        found.append([candidate.id for candidate in candidates])
    return found, np.array(times)


def exact(drives: Drives, count: int, asked: list[Keyframe]) -> list[set[int]]:
    """The true best of each query, by comparing all in float32."""
    wanted = np.stack([query.descriptor for query in asked])
    best = np.full((len(asked), COUNT), -np.inf, np.float32)
    ids = np.full((len(asked), COUNT), -1)
    size = len(drives.kept)
    for copy in range((count - 1) // size + 1):
        rows = drives.copy(drives.kept, copy)[: count - copy * size]
        both = np.concatenate([best, wanted @ rows.T], axis=1)
        names = np.concatenate(
            [ids, np.broadcast_to(copy * size + np.arange(len(rows)), (len(asked), len(rows)))], axis=1
        )
        order = np.argsort(-both, axis=1, kind="stable")[:, :COUNT]
        best, ids = np.take_along_axis(both, order, 1), np.take_along_axis(names, order, 1)
    return [set(row[row >= 0].tolist()) for row in ids]


def measure(drives: Drives, count: int, path: Path, number: int) -> dict[str, float]:
    """One row of the table, in a process of its own."""
    asked = queries(drives, number, count)
    before, begin = resident(), time.perf_counter()
    database = KeyframeDatabase.extend(path, dim=DIM, **MAKE)
    opened = time.perf_counter() - begin
    indexes = (database.local, database.local_scan)
    _, while_building = search(database, asked) if not all(index.is_settled for index in indexes) else ([], np.zeros(1))
    for index in indexes:
        index.settle()
    ready = time.perf_counter() - begin
    search(database, asked[:5])
    found, times = search(database, asked)
    memory = resident() - before
    true = exact(drives, count, asked)
    recall = np.mean([len(set(ids) & best) / max(len(best), 1) for ids, best in zip(found, true, strict=True)])
    added = list(adding(drives, database, count, min(20_000, max(count // 10, 100))))
    database.close()
    return {
        "keyframes": count,
        "file_kB_each": path.stat().st_size / (count + len(added)) / 1e3,
        "open_s": opened,
        "graphs_s": ready,
        "resident_MB": memory / 1e6,
        "first_p50_ms": float(np.percentile(while_building, 50)),
        "search_p50_ms": float(np.percentile(times, 50)),
        "search_p99_ms": float(np.percentile(times, 99)),
        "recall": float(recall),
        "add_p50_ms": float(np.percentile(added, 50)),
        "add_max_ms": max(added),
    }


def adding(drives: Drives, database: KeyframeDatabase, first: int, count: int) -> Iterator[float]:
    """Milliseconds of each `add`, 100 a second, while graphs and file are written behind."""
    for (keyframe, _), at in zip(keyframes(drives, count, first), range(count), strict=True):
        whole = dataclasses.replace(
            keyframe, session=NEW, stamp=at * 10**9, geometry=drives.geometries[at % len(drives.geometries)]
        )
        begin = time.perf_counter()
        database.add(whole)
        took = time.perf_counter() - begin
        yield 1e3 * took
        time.sleep(max(0.01 - took, 0.0))


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, float]]:
    """The table, row by row."""
    drives = real_drives()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for count in arguments.keyframes:
            path = Path(folder) / f"{count}.map"
            write(drives, count, path)
            with multiprocessing.get_context("spawn").Pool(1) as alone:  # where no other row has left memory behind
                yield alone.apply(measure, (drives, count, path, arguments.queries))
            path.unlink()


def draw(path: Path) -> None:
    """Both tables that lie beside `path`, by size; dashed what was aimed at, for 100,000 and 1,000,000 keyframes."""
    from matplotlib.figure import Figure

    from vlad_ros.plots.style import BLUE, GREY, ORANGE, save

    tables = {
        "now": (read_csv(path.with_suffix(".csv")), BLUE),
        "30a5116": (read_csv(path.with_name(f"{path.stem}_30a5116.csv")), ORANGE),
    }
    figure = Figure(figsize=(11.0, 6.0), layout="constrained")
    for axes, (name, (label, aims)) in zip(figure.subplots(2, 3, sharex=True).flat, PANELS.items(), strict=True):
        for map, (rows, colour) in tables.items():
            if name in rows[0]:
                axes.plot([r["keyframes"] for r in rows], [r[name] for r in rows], "o-", color=colour, label=map)
        for size, aim in aims.items():
            axes.plot([size / 2, size * 2], [aim, aim], color=GREY, ls="--")
        axes.set(title=label, xscale="log")
        if name in BETWEEN:
            axes.set_ylim(*BETWEEN[name])
        else:
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.supxlabel("keyframes (dashed: what was aimed at)")
    save(figure, path)


def main() -> None:
    """Print the table; keep it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyframes", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--csv", type=Path, help="write the table here too")
    parser.add_argument("--folder", type=Path, help="where the maps are made (17 GB for a million)")
    parser.add_argument("--draw", type=Path, help="only this picture, of the tables beside it")
    arguments = parser.parse_args()
    if arguments.draw:
        draw(arguments.draw)
        return
    print_table(rows(arguments), 13, arguments.csv)


if __name__ == "__main__":
    main()
