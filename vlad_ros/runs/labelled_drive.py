# SPDX-License-Identifier: Apache-2.0
"""A drive for fine-tuning, with its odometry in place of true poses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vlad_ros.cloud.thin import voxel_thin
from vlad_ros.config import EvaluationConfig, FinetuneConfig, RunConfig
from vlad_ros.files.sequence import Sequence
from vlad_ros.runs.sources import open_source
from vlad_ros.simulation.views import SCALE, VOXEL
from vlad_ros.stamps import SECOND
from vlad_ros.types import F32, F64


def read_drive(path: str | os.PathLike[str], config: FinetuneConfig, source: RunConfig) -> Sequence:
    """The scans of a bag or a sequence with odometry, one per `spacing` of travel, thinned, with odometry as poses.

    ValueError if there is no odometry, or the drive is too short.
    """
    opened = open_source(path, source, EvaluationConfig())
    scans: list[F32] = []
    poses: list[F64] = []
    stamps: list[float] = []
    for scan in tqdm(opened.scans, total=opened.count, desc="read", unit="scan", leave=False):
        T = scan.T_odom_base
        if T is None or (poses and float(np.linalg.norm(T[:3, 3] - poses[-1][:3, 3])) < config.spacing):
            continue
        thin = voxel_thin(scan.points, VOXEL)
        reach = np.abs(thin[:, :3]).max(axis=1, initial=0.0) < SCALE * np.iinfo(np.int16).max
        scans.append(thin[reach])
        poses.append(T)
        stamps.append(scan.stamp / SECOND)
    if not poses:
        raise ValueError(f"{path}: none of the scans has odometry, which fine-tuning takes its labels from")
    return Sequence(Path(path).stem, scans, np.array(poses), np.array(stamps))
