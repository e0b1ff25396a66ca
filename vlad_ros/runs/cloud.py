# SPDX-License-Identifier: Apache-2.0
"""The cloud of a run: the whole scans of its keyframes, at poses that its loops have corrected."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from vlad_ros.cloud.growing import GrowingCloud
from vlad_ros.drive.scan import crop
from vlad_ros.files.ply import write_ply
from vlad_ros.graph.smoother import find_gtsam
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.runs.growing_graph import growing_graph
from vlad_ros.runs.sources import PlayedScan
from vlad_ros.runs.tables import Run
from vlad_ros.types import F64

VOXEL = 0.1  # m


def poses_of(run: Run) -> tuple[F64, str]:
    """T_map_base (N, 4, 4) of the keyframes, NaN where there is none, and where they come from, in words: odometry,
    corrected by the accepted loops where gtsam is installed. ValueError for a run without odometry."""
    odometry = run.keyframes.T_odom_base
    if not np.isfinite(odometry).any():
        raise ValueError(f"{run.path}: without odometry there are no poses to join a cloud at")
    try:
        find_gtsam()
    except ValueError as error:
        first = run.keyframes.session == run.keyframes.session[0]  # the others' frames are not known
        return np.where(first[:, None, None], odometry, np.nan), f"by odometry alone: {error}"
    *_, (graph, nodes) = growing_graph(run)
    poses = np.full_like(odometry, np.nan)
    poses[nodes] = graph.poses()
    believed = sum(loop.on for loop in graph.beliefs.loops)
    return poses, f"by odometry and {believed} loops"


def save_cloud(run: Run, scans: Iterator[PlayedScan], recognizer: PlaceRecognizer, path: str | os.PathLike[str]) -> str:
    """Join the keyframes' `scans`, of the same drive played once more and cropped as `recognizer` does, in a PLY file,
    the first point in each voxel; what was done. ValueError where there is nothing to join, OSError if it cannot be
    written."""
    poses, words = poses_of(run)
    cloud, keyframe, joined = GrowingCloud(VOXEL), 0, 0
    for scan in scans:
        if keyframe < len(poses) and scan.stamp == run.keyframes.stamp[keyframe]:
            if np.isfinite(poses[keyframe, 0, 0]):
                points = crop(scan.points, recognizer.config, recognizer.describer.bev, scan.cropped)
                cloud.add(points, poses[keyframe])
                joined += 1
            keyframe += 1
    if cloud.origin is None:
        raise ValueError(f"{run.path}: no keyframe has a pose to join a cloud at")
    points = cloud.points()
    write_ply(path, points, cloud.origin)
    return f"{len(points)} points of {joined} scans, placed {words}: {os.fspath(path)}"
