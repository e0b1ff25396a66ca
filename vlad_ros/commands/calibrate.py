# SPDX-License-Identifier: Apache-2.0
"""`vlad calibrate WEIGHTS`: fit the probability of a loop, given its evidence, on simulated drives."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vlad calibrate`."""
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="the .safetensors file to read")
    parser.add_argument("-o", "--out", type=Path, help="the file to write (default: WEIGHTS itself, atomically)")
    parser.add_argument("--drives", type=int, default=0, help="use only the first N drives (default: all)")
    parser.add_argument("--jobs", type=int, default=0, help="processes (default: one per core)")


def run(args: argparse.Namespace) -> int:
    """Run the drives, fit, check, write, and print the reliability. ValueError names a file that cannot be used."""
    calibrate_weights(args.weights, args.out or args.weights, args.drives, args.jobs)
    return 0


def calibrate_weights(weights: Path, out: Path, count: int = 0, jobs: int = 0) -> None:
    """Calibrate the weights at `weights` on the first `count` drives (0: all), and write them to `out`."""
    import itertools
    import os

    from vlad_ros.evaluation.drives import calibration_drives
    from vlad_ros.model.weights import load_weights, save_weights
    from vlad_ros.training.calibrate import calibrate, collect

    network, metadata = load_weights(weights)
    drives = itertools.islice(calibration_drives(), count or None)
    loops = collect(weights, drives, jobs or len(os.sched_getaffinity(0)))
    calibration = calibrate(loops)
    save_weights(out, network, calibration, metadata.info)
    print(f"{out}: calibrated on {(loops.drive.max() + 1)} simulated drives, {len(loops.right)} loops")
    print(f"expected calibration error {calibration.error:.3f} on {calibration.loops} loops of drives not fitted on")
    print("  predicted  right  loops")
    for bin in calibration.reliability:
        print(f"  {bin.said:<9.3f}  {bin.true:.3f}  {bin.count}")
