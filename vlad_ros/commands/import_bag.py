# SPDX-License-Identifier: Apache-2.0
"""`vlad import SOURCE BAG`: a rosbag2 from a sequence file or a KITTI odometry folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from vlad_ros.config import EvaluationConfig, ImportConfig
from vlad_ros.options import add_options, from_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source, bag, and how the bag is written."""
    parser.add_argument("source", help="a sequence (.npz), or a folder with velodyne/*.bin as KITTI odometry has it")
    parser.add_argument("bag", help="folder to write; it must not exist")
    add_options(parser, ImportConfig)


def run(args: argparse.Namespace) -> int:
    """Write the bag and say what is in it."""
    from tqdm import tqdm

    from vlad_ros.files import bags

    config = from_options(ImportConfig, args)
    source = Path(args.source)
    scans, count = _kitti(source, config) if source.is_dir() else _sequence(source, config)
    written = bags.write_bag(args.bag, tqdm(scans, total=count, unit="scan", disable=None), config)
    print(f"{args.bag}: {written} scans on {config.points_topic}")
    return 0


def _sequence(path: Path, config: ImportConfig) -> tuple[Iterator, int]:
    from vlad_ros.drive.drift import drifting_odometry
    from vlad_ros.files.bags import sequence_scans
    from vlad_ros.files.sequence import load_sequence

    sequence = load_sequence(path)
    odometry = None
    if config.drift:
        if sequence.poses is None:
            raise ValueError(f"{path}: has no poses that could drift")
        noise = EvaluationConfig()
        odometry = drifting_odometry(sequence.poses, noise.drift_scale, noise.drift_yaw, noise.seed)
    return sequence_scans(sequence, config.rate, odometry), len(sequence)


def _kitti(folder: Path, config: ImportConfig) -> tuple[Iterator, int]:
    from vlad_ros.files.kitti import kitti_scans, scan_files

    if config.drift:
        raise ValueError("--drift is for sequence files; a KITTI folder is imported with its own poses")
    return kitti_scans(folder, config.rate), len(scan_files(folder))
