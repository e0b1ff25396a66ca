#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What runs the backbone, and how fast: wall and CPU milliseconds of the backbone alone and of the whole network.

    python bench/runtime.py                  # a simulated scan
    python bench/runtime.py --threads 1 --repeat 50

"plain" is the network as it is trained. The others are the values of the parameter `inference`; those that are not
installed are left out. Medians; the cosine is that of the descriptor with the plain network's.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from table import markdown

from vlad_ros.model.describer import Describer
from vlad_ros.model.runtime import resolve_inference
from vlad_ros.simulation.pairs import make_pairs

NAMES = ("plain", "torch", "onnx", "openvino")


def timed(call: Callable[[], object], repeat: int) -> tuple[float, float]:
    """Median wall and CPU milliseconds."""
    for _ in range(3):
        call()
    rows = []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        rows.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall_ms, cpu_ms = 1e3 * np.median(rows, axis=0)
    return float(wall_ms), float(cpu_ms)


def describer(name: str) -> Describer | None:
    """None where the runtime is not installed."""
    if name == "plain":
        plain, _ = Describer.from_pretrained(None, "cpu")
        plain.network.runtime = None
        return plain
    try:
        resolve_inference(name, torch.device("cpu"))
    except ValueError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None
    return Describer.from_pretrained(None, "cpu", inference=name)[0]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=20)
    args = parser.parse_args()
    (pair,) = make_pairs(1, seed=11, maps=True)
    rows: list[dict[str, object]] = []
    for threads in args.threads:
        torch.set_num_threads(threads)  # the runtimes take their number from it
        reference = None
        for name in NAMES:
            one = describer(name)
            if one is None:
                continue
            bev = one.rasterize(pair.query)
            raster, _ = one.network.inputs([bev])
            run = one.network.runtime or one.network.backbone
            with torch.inference_mode():
                backbone = timed(lambda run=run, raster=raster: run(raster), args.repeat)
            whole = timed(lambda one=one, bev=bev: one.describe(bev), args.repeat)
            found = one.describe(bev)
            reference = found if reference is None else reference
            rows.append(
                {
                    "threads": threads,
                    "runtime": name,
                    "backbone [ms]": f"{backbone[0]:.1f}",
                    "its CPU [ms]": f"{backbone[1]:.1f}",
                    "network [ms]": f"{whole[0]:.1f}",
                    "its CPU [ms] ": f"{whole[1]:.1f}",
                    "cosine": f"{float(found @ reference):.6f}",
                }
            )
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
