# SPDX-License-Identifier: Apache-2.0
"""Maps merged by the shipped weights: simulated days with different sensors, and the halves of a real drive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_data import data_file

from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.files.sequence import load_sequence
from vlad_ros.maps.inputs import open_maps
from vlad_ros.maps.merge import Merged, merge
from vlad_ros.model.weights import read_metadata
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import inverse
from vlad_ros.simulation.days import make_day, overlapping
from vlad_ros.simulation.routes import plan_route
from vlad_ros.simulation.sensors import spinning
from vlad_ros.simulation.worlds import make_world
from vlad_ros.stamps import SECOND
from vlad_ros.types import F32, F64

pytestmark = pytest.mark.proof
BESIDE = 8.0  # m


def make_map(scans: list[F32], odometry: F64, path: Path) -> Path:
    recognizer = PlaceRecognizer.from_pretrained(None, "cpu", RecognizerConfig(verification_budget=60.0))
    for number, (scan, T) in enumerate(zip(scans, odometry, strict=True)):
        recognizer.step(scan, (1 + number) * SECOND, None, T)
    recognizer.finish()
    recognizer.save_map(path)
    return path


def merged_of(days: list[tuple[list[F32], F64]], folder: Path) -> Merged:
    paths = [make_map(*day, folder / f"{number}.map") for number, day in enumerate(days)]
    return merge(open_maps(paths), read_metadata(None).calibrated(None))


def errors(merged: Merged, truth: list[F64]) -> F64:
    """How far [m] keyframes of the second session are from where they truly are, seen from the first's beside them."""
    database, out = merged.database, []
    told, true = ([], []), ([], [])
    for session in (0, 1):
        for id in database.ids(session).tolist():
            told[session].append(database.T_map_base(id))
            true[session].append(truth[session][database.keyframe(id).stamp // SECOND - 1])
    first = np.array([T[:2, 3] for T in true[0]])
    for T, T_true in zip(told[1], true[1], strict=True):
        apart = np.linalg.norm(first - T_true[:2, 3], axis=1)
        near = int(np.argmin(apart))
        if apart[near] < BESIDE:
            off = inverse(inverse(true[0][near]) @ T_true) @ inverse(told[0][near]) @ T
            out.append(np.linalg.norm(off[:3, 3]))
    return np.array(out)


@pytest.mark.parametrize(("share", "back"), [(0.2, False), (0.2, True), (0.5, True), (1.0, False)])
def test_days_that_share_a_part_of_their_way(share, back, tmp_path):
    world = make_world("street", 5, size=420.0)
    way = plan_route(world, 5, 1.0, (), 0.0, 250.0, "line").poses
    one, other = (part[:140] if share == 1.0 else part for part in overlapping(way, share))
    days = [
        make_day(world, one, spinning(32), 1, aside=0.7),
        make_day(world, other, spinning(16), 3 if back else 2, back=back, aside=0.7 if back else -0.7),
    ]
    merged = merged_of([(day.drive.scans, day.odometry) for day in days], tmp_path)
    assert merged.apart == [], merged.meetings[1].refusal
    off = errors(merged, [day.drive.poses for day in days])
    assert len(off) > 10 and np.median(off) < 0.3 and off.max() < 1.0


def test_ways_that_share_nothing(tmp_path):
    world = make_world("street", 5, size=420.0)
    way = plan_route(world, 5, 1.0, (), 0.0, 250.0, "line").poses
    days = [make_day(world, part, spinning(32), day) for day, part in ((1, way[:100]), (2, way[150:]))]
    merged = merged_of([(day.drive.scans, day.odometry) for day in days], tmp_path)
    assert merged.apart == [1] and merged.database.sessions[1] is None


def test_the_halves_of_a_real_drive(tmp_path):
    drive = load_sequence(data_file("loop_mid360.npz"))
    poses, middle = drive.poses_to("cut"), len(drive) // 2
    truth = [poses[:middle], poses[middle:]]
    odometry = [inverse(half[0]) @ drifting_odometry(half, 0.01, 0.5, seed) for seed, half in enumerate(truth)]
    merged = merged_of(list(zip((drive.scans[:middle], drive.scans[middle:]), odometry, strict=True)), tmp_path)
    assert merged.apart == [], merged.meetings[1].refusal
    off = errors(merged, truth)
    assert len(off) > 50 and np.median(off) < 0.5
