#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A fleet by its size, on `milvus-lite server` over 127.0.0.1: rows in, questions, memory, disk.

    python bench/fleet_rows.py [--rows 10000 100000] [--queries 50] [--payload 2000] [--csv FILE]

Descriptors are random unit vectors of 512 numbers around a thousand places, so that a search has something to find;
payloads are random bytes. Milvus Lite is the embedded engine, in Python, and searches by scanning: its figures are
not a cluster's. `--rows 1000000` takes the memory that the table's growth shows.
"""

from __future__ import annotations

import argparse
import functools
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
from table import markdown, write_csv
from tqdm import tqdm

from vlad_ros.config import BevConfig
from vlad_ros.fleet.client import FleetClient
from vlad_ros.fleet.names import FleetError, Key
from vlad_ros.fleet.packed import SIZES, Packed
from vlad_ros.mapping.codec import pack_descriptor, pack_pose
from vlad_ros.mapping.database import KeyframeDatabase

DIM, PLACES, NEAR = 512, 1000, 0.5
SESSION = 10_000  # keyframes of a drive
CANDIDATES, MOST = 10, 256  # of a question; rows of one call
MAKE = KeyframeDatabase(DIM, model_hash="0" * 64, bev=BevConfig()).store.make


def keyframes(count: int, payload: int) -> Iterator[Packed]:
    """Keyframes of robots that each drive SESSION of them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((PLACES, DIM))
    for number in range(count):
        row = centres[rng.integers(PLACES)] + NEAR * rng.standard_normal(DIM)
        descriptor = pack_descriptor((row / np.linalg.norm(row)).astype(np.float32))
        key = Key(f"robot{number // SESSION}", UUID(int=number // SESSION), number % SESSION)
        body = SIZES.pack(0, payload) + rng.bytes(payload)
        yield Packed(key, True, False, float(number % SESSION), pack_pose(np.eye(4)), None, descriptor, body)


def quantiles(seconds: list[float]) -> str:
    """p50 / p99 in milliseconds."""
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1e3
    return f"{p50:.1f} / {p99:.1f}"


def measure(folder: Path, sizes: list[int], queries: int, payload: int) -> list[dict[str, object]]:
    """A row of the table for each size, of one fleet that grows."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite.cmdline", "server", "--data-dir", str(folder)]
    server = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        client, rows, count = FleetClient(f"http://127.0.0.1:{port}", MAKE), [], 0
        answered(client)
        source = keyframes(max(sizes), payload)
        for size in sorted(sizes):
            began = time.perf_counter()
            with tqdm(total=size - count, unit="row", leave=False, disable=None) as bar:
                for at in range(count, size, MOST):
                    batch = [next(source) for _ in range(min(MOST, size - at))]
                    patiently(functools.partial(client.put, batch))
                    bar.update(len(batch))
            taken, new, count = time.perf_counter() - began, size - count, size
            rows.append(asked(client, size, queries) | {"rows in, 1/s": round(new / taken)} | held(server.pid, folder))
            print(f"{size} rows asked", file=sys.stderr)
        return rows
    finally:
        server.terminate()
        server.wait()


def patiently(do: Callable[[], object]) -> None:
    """As a vehicle does, again and again: the engine stands still where it tidies up, or makes its index."""
    for _ in range(100):
        try:
            do()
            return
        except FleetError as error:
            tqdm.write(f"tried again: {error}", file=sys.stderr)
    raise RuntimeError("the server answers nothing any more")


def answered(client: FleetClient) -> None:
    """Until the server listens."""
    for _ in range(600):
        try:
            client.count()
            return
        except FleetError:
            time.sleep(0.1)
    raise RuntimeError("the server does not start")


def asked(client: FleetClient, size: int, queries: int) -> dict[str, object]:
    """What questions cost: the search, and fetching the candidates with their payloads."""
    rng = np.random.default_rng(1)
    searches, fetches = [], []
    asked = (row / np.linalg.norm(row) for row in rng.standard_normal((queries, DIM)).astype(np.float32))
    patiently(lambda: client.search(np.eye(DIM, dtype=np.float32)[0], True, "other", CANDIDATES))
    for descriptor in asked:
        began = time.perf_counter()
        hits = client.search(descriptor, True, "other", CANDIDATES)
        searches.append(time.perf_counter() - began)
        began = time.perf_counter()
        assert len(client.fetch([hit.key for hit in hits])) == len(hits)
        fetches.append(time.perf_counter() - began)
    found = {"rows": size, "search p50 / p99 [ms]": quantiles(searches)}
    return found | {f"{CANDIDATES} payloads p50 / p99 [ms]": quantiles(fetches)}


def held(pid: int, folder: Path) -> dict[str, object]:
    """The server's memory and disk."""
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"resident [MB]": round(resident / 1e6), "disk [MB]": round(disk / 1e6)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--payload", type=int, default=2000, help="bytes of geometry; real ones have ten times more")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), args.rows, args.queries, args.payload)
    print(markdown(rows))
    if args.csv:
        write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
