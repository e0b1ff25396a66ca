# SPDX-License-Identifier: Apache-2.0
"""Clouds that are lost on the way are told from jitter, from several sensors on one topic and from uneven rates."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from vlad_ros.ros.statistics import sensor_period

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("lost", [0.3, 0.5, 0.7])
def test_scans_lost_at_random_show_the_sensors_own_step(lost: float) -> None:
    rng = np.random.default_rng(0)
    kept = np.flatnonzero(rng.random(1000) >= lost)[:100]
    steps = np.diff(0.1 * kept + rng.normal(0, 0.001, len(kept)))
    assert sensor_period(steps) == pytest.approx(0.1, rel=0.05)


def irregular(kind: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    return {
        "regular": np.full(99, 0.1),
        "jitter": 0.1 + rng.uniform(-0.04, 0.04, 99),
        "two sensors": np.tile([0.02, 0.08], 50)[:99],
        "three sensors": np.tile([0.02, 0.04, 0.04], 33),
        "two rates": np.r_[np.full(50, 0.05), np.full(49, 0.1)],
        "bursts": np.tile([0.0001, 0.0001, 0.0001, 0.3997], 25)[:99],
    }[kind]


@pytest.mark.parametrize("kind", ["regular", "jitter", "two sensors", "three sensors", "two rates", "bursts"])
def test_what_is_irregular_is_not_lost(kind: str) -> None:
    steps = irregular(kind)
    assert sensor_period(steps) == pytest.approx(steps.mean())
