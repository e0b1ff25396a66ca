# SPDX-License-Identifier: Apache-2.0
"""Relocalisation in a simulated street, seen again from the other direction."""

from __future__ import annotations

import numpy as np
import pytest

from vlad_ros.calibration import FEATURES, Calibration, Logistic
from vlad_ros.config import RecognizerConfig
from vlad_ros.loops.relocalisation import Relocaliser
from vlad_ros.model.describer import Describer
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import from_xyz_rpy, inverse, rotation_angle
from vlad_ros.simulation.routes import make_drive
from vlad_ros.simulation.sensors import spinning

ZEROS, ONES = (0.0,) * len(FEATURES), (1.0,) * len(FEATURES)
ON_INLIERS = Logistic(  # probability 0.9 from 27 inliers on: no test of the shipped calibration
    -8.0 * np.log(21.0), tuple(8.0 * (name == "inliers") for name in FEATURES), centre=ZEROS, scale=ONES, typical=ONES
)
BY_INLIERS = Calibration(ON_INLIERS, ON_INLIERS)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """The recogniser's parts, the map of the way out, and the scans and true poses of the way back."""
    sensor = spinning(32, 450)
    drive = make_drive(
        "street", 3, sensor=sensor, seed=3, spacing=1.6, revisits=("opposite",), length=36.0, shape="line"
    )
    turned = [rotation_angle(inverse(drive.poses[0]) @ T) for T in drive.poses]
    out = [i for i, angle in enumerate(turned) if angle < 0.1]
    back = [i for i, angle in enumerate(turned) if angle > 3.0]
    describer, _ = Describer.from_pretrained(None, "cpu")
    config = RecognizerConfig(keyframe_rate=100.0, verification_budget=60.0, top_k=3)
    path = tmp_path_factory.mktemp("map") / "street.map"
    maker = PlaceRecognizer(describer, BY_INLIERS, config)
    for i in out:  # the odometry is true, so the map lies in the simulated world
        maker.step(drive.scans[i], drive.stamps_ns()[i], T_odom_base=drive.poses[i])
    maker.finish()
    maker.save_map(path)
    recognizer = PlaceRecognizer(describer, BY_INLIERS, config)
    return recognizer, path, drive, back


@pytest.mark.parametrize("odometry", [False, True])
def test_a_vehicle_finds_itself_on_the_way_back(mapped, odometry):
    recognizer, path, drive, back = mapped
    recognizer.load_map(path)
    T_map_odom = from_xyz_rpy((200.0, -50.0, 3.0, 0.0, 0.0, 1.0))
    described = []
    for i in back[::2]:
        T_odom_base = inverse(T_map_odom) @ drive.poses[i] if odometry else None
        described += recognizer.step(drive.scans[i], drive.stamps_ns()[i], None, T_odom_base, True)
    described += recognizer.finish()
    relocaliser, told = Relocaliser(), []
    for one in described:
        finding = relocaliser.observe(one.keyframe_id, one.closures, recognizer.database)
        assert not finding.carried
        if finding.pose is not None:
            true = drive.poses[drive.stamps_ns().index(finding.pose.stamp)]
            told.append(inverse(true) @ finding.pose.T_map_base)
    assert len(described) == len(back[::2])
    assert len(told) >= len(described) // 2
    assert max(np.linalg.norm(error[:3, 3]) for error in told) < 0.5
    assert max(rotation_angle(error) for error in told) < np.radians(3.0)
    found = recognizer.database.sessions[recognizer.session]
    if odometry:
        error = inverse(drive.poses[back[10]]) @ found @ inverse(T_map_odom) @ drive.poses[back[10]]
        assert np.linalg.norm(error[:3, 3]) < 0.5
    else:
        assert found is None
