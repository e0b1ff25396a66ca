# SPDX-License-Identifier: Apache-2.0
"""Search, add, save and load of the keyframe database by its size, and other FAISS indexes for comparison.

    python bench/search.py [--keyframes 1 1000 10000 100000] [--queries 200] [--csv search.csv]

Every keyframe has a local map, so that both descriptors are kept; the query has one too. The last rows of a session
are excluded, as in a drive.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from table import write_csv

from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.mapping.database import THREADS, KeyframeDatabase
from vlad_ros.types import F32, Keyframe

DIM = 2048
MAKE = {"model_hash": "0" * 64, "bev": BevConfig()}
CONFIG = RecognizerConfig()


def unit_rows(count: int, seed: int) -> F32:
    """(count, DIM) unit vectors."""
    rows = np.random.default_rng(seed).standard_normal((count, DIM), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def milliseconds(work: Callable[[int], object], count: int) -> np.ndarray:
    """Wall-clock time of each call, after five to warm up."""
    times = []
    for i in range(-5, count):
        begin = time.perf_counter()
        work(max(i, 0))
        times.append(1e3 * (time.perf_counter() - begin))
    return np.array(times[5:])


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def keyframe(i: int, descriptors: F32) -> Keyframe:
    """The keyframe of second i, one metre after the last."""
    row = descriptors[i % len(descriptors)]
    return Keyframe(0, i * 10**9, row, row, True, False, np.eye(4), float(i))


def measure(count: int, queries: int) -> dict[str, float]:
    """One row of the table."""
    descriptors = unit_rows(min(count, 5000), 0)
    before = resident()
    database = KeyframeDatabase(DIM, **MAKE)
    added = []
    for i in range(count):
        begin = time.perf_counter()
        database.add(keyframe(i, descriptors))
        added.append(1e3 * (time.perf_counter() - begin))
    memory = resident() - before
    asked = unit_rows(queries, 1)

    def search(i: int) -> object:
        query = keyframe(count, asked[i : i + 1])
        return database.search(query, CONFIG.top_k, CONFIG.exclude_time, CONFIG.exclude_distance)

    searched = milliseconds(search, queries)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.map"
        begin = time.perf_counter()
        database.save(path)
        saved = time.perf_counter() - begin
        begin = time.perf_counter()
        KeyframeDatabase.load(path, dim=DIM, **MAKE)
        loaded = time.perf_counter() - begin
    return {
        "keyframes": count,
        "search_p50_ms": float(np.percentile(searched, 50)),
        "search_p99_ms": float(np.percentile(searched, 99)),
        "add_p50_ms": float(np.percentile(added, 50)),
        "add_max_ms": max(added),
        "kilobytes_per_keyframe": memory / count / 1e3,
        "save_s": saved,
        "load_s": loaded,
    }


def alternatives(count: int, queries: int) -> dict[str, np.ndarray]:
    """Times [ms] of one query among `count` rows with other FAISS indexes than the database's."""
    rows, asked = unit_rows(count, 0), unit_rows(queries, 1)
    flat = faiss.IndexFlatIP(DIM)
    half = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    shards = faiss.IndexShards(DIM, True, True)
    parts = [faiss.IndexFlatIP(DIM) for _ in range(THREADS)]
    for part in parts:
        shards.add_shard(part)
    half.train(rows)
    indexes = {"IndexFlatIP": flat, f"IndexShards of {THREADS}": shards, "IndexScalarQuantizer fp16": half}
    for index in indexes.values():
        index.add(rows)
    times = {
        name: milliseconds(lambda i, index=index: index.search(asked[i : i + 1], CONFIG.top_k), queries)
        for name, index in indexes.items()
    }
    threshold, faiss.cvar.distance_compute_blas_threshold = faiss.cvar.distance_compute_blas_threshold, 1
    times["IndexFlatIP by BLAS"] = milliseconds(lambda i: flat.search(asked[i : i + 1], CONFIG.top_k), queries)
    faiss.cvar.distance_compute_blas_threshold = threshold
    return times


def main() -> None:
    """Print the tables; keep the first as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyframes", type=int, nargs="+", default=[1, 1000, 10_000, 100_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--csv", type=Path, help="write the first table here too")
    arguments = parser.parse_args()
    print(f"{THREADS} threads, {DIM} numbers a descriptor, two descriptors a keyframe, faiss {faiss.__version__}")
    table = []
    for count in arguments.keyframes:
        table.append(measure(count, arguments.queries))
        if len(table) == 1:
            print(" ".join(f"{name:>22}" for name in table[0]))
        print(" ".join(f"{value:22.4g}" for value in table[-1].values()), flush=True)
    if arguments.csv:
        write_csv(arguments.csv, table)
    for name, times in alternatives(10_000, arguments.queries).items():
        print(f"10,000 rows, {name:26} p50 {np.percentile(times, 50):6.2f}  p99 {np.percentile(times, 99):6.2f} ms")


if __name__ == "__main__":
    main()
