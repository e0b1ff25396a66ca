# SPDX-License-Identifier: Apache-2.0
"""Stamps and clocks of a bag's drive: missing, wrong once, or of two clocks that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_builder import COUNT, NAN, SECOND, START, STEP, Heard, changed, messages, pose, rotation, stamped, write

from vlad_ros.files.bags import odometry_message

STAMPS = [START + k * STEP for k in range(COUNT)]


def test_nanoseconds_beyond_a_second(tmp_path: Path) -> None:
    """Some drivers carry over late: 9 s and 1.1e9 ns are 10.1 s."""

    def late(topic: str, number: int, message: Any) -> None:
        if topic == "/points":
            time = message.header.stamp
            time.sec, time.nanosec = time.sec - 1, time.nanosec + SECOND

    write(tmp_path / "bag", changed(late))
    heard = Heard(tmp_path / "bag")
    assert [scan.stamp for scan in heard.scans] == STAMPS and heard.posed == COUNT


def test_clouds_without_stamps(tmp_path: Path) -> None:
    write(tmp_path / "bag", changed(lambda topic, _, m: stamped(0)(m) if topic == "/points" else None))
    heard = Heard(tmp_path / "bag")
    assert heard.scans == [] and heard.counters == {"zero_stamp": COUNT}
    assert heard.said == ["zero_stamp: a cloud's stamp is 0 ns; its driver must stamp the clouds"]


@pytest.mark.parametrize(("seconds", "words"), [(-3600, "ends 3600.0 s before"), (7200, "ends 7200.0 s after")])
def test_odometry_of_another_clock(tmp_path: Path, seconds: int, words: str) -> None:
    """No scan has a pose; by how much the clocks differ is said once, at the end."""

    def shift(topic: str, number: int, message: Any) -> None:
        if topic == "/odom":
            message.header.stamp.sec += seconds

    write(tmp_path / "bag", changed(shift))
    heard = Heard(tmp_path / "bag")
    assert len(heard.scans) == COUNT and heard.posed == 0 and len(heard.said) == 1
    assert f"/odom {words} the scans" in heard.said[0] and words in heard.why["no_odometry"]


def test_odometry_without_one_pose(tmp_path: Path) -> None:
    write(tmp_path / "bag", changed(lambda topic, _, m: rotation(w=NAN)(m) if topic == "/odom" else None))
    heard = Heard(tmp_path / "bag")
    assert heard.posed == 0 and heard.counters == {"bad_odometry": COUNT}
    assert heard.why["no_odometry"] == "no message on /odom is a usable pose"


def test_two_publishers_of_odometry(tmp_path: Path) -> None:
    """With frames of their own, each between the other's: the cloud's counts."""
    content = []
    for topic, time, message in messages():
        content.append((topic, time, message))
        if topic == "/odom":
            other = odometry_message(time + 1000, pose(0), "odom", "base_footprint")
            content.append((topic, time, other))
    write(tmp_path / "bag", content)
    heard = Heard(tmp_path / "bag")
    assert heard.posed == COUNT and heard.counters == {}
    for k, scan in enumerate(heard.scans):
        np.testing.assert_allclose(scan.T_odom_base, pose(k), atol=1e-9)


@pytest.mark.parametrize("seconds", [3600, 30, -3600])
@pytest.mark.parametrize("topic", ["/points", "/odom"])
def test_one_wrong_stamp(tmp_path: Path, seconds: int, topic: str) -> None:
    """It costs its message: a cloud is gone, a pose is interpolated over."""

    def shift(name: str, number: int, message: Any) -> None:
        if (name, number) == (topic, 5):
            message.header.stamp.sec += seconds

    write(tmp_path / "bag", changed(shift))
    heard = Heard(tmp_path / "bag")
    if topic == "/points":
        assert [scan.stamp for scan in heard.scans] == STAMPS[:5] + STAMPS[6:] and heard.counters == {"wrong_stamp": 1}
    else:
        assert [scan.stamp for scan in heard.scans] == STAMPS and heard.counters == {"wrong_odometry_stamp": 1}
    assert heard.posed == len(heard.scans) and len(heard.said) == 1
