# SPDX-License-Identifier: Apache-2.0
"""What the node measures on the steady clock, which is moved by hand."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
pytestmark = pytest.mark.ros

from vlad_ros.ros import statistics  # noqa: E402


class Steady:
    """In place of `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Steady:
    clock = Steady()
    monkeypatch.setattr(statistics, "time", clock)
    return clock


def test_silence_grows_with_the_seconds_without_a_cloud(steady: Steady) -> None:
    counted = statistics.Statistics()
    for second in range(1, 8):
        steady.now += 1.0
        assert counted.silent_for() == pytest.approx(second)
    counted.heard(1)
    assert counted.silent_for() == 0.0


def test_a_node_that_stood_still_has_heard_no_silence(steady: Steady) -> None:
    counted = statistics.Statistics()
    counted.heard(1)
    steady.now += 1.0
    assert counted.silent_for() == pytest.approx(1.0)
    steady.now += 6.0
    assert counted.silent_for() == pytest.approx(1.0 + statistics.LOOK) and 1.0 + statistics.LOOK < statistics.SILENCE
    steady.now += 6.0
    counted.heard(2)  # before the first look after it
    assert counted.silent_for() == 0.0
    for _ in range(5):
        steady.now += 1.0
        silent = counted.silent_for()
    assert silent == pytest.approx(5.0), "and silence after it is silence"
