# SPDX-License-Identifier: Apache-2.0
"""Speed is no jump and lost scans are none; a teleport is one: on drives that vehicles make."""

from __future__ import annotations

import numpy as np
import pytest

from vlad_ros.drive.jumps import Continuity, breaks
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.stamps import SECOND

SPEEDS = (0.0, 0.5, 2.0, 8.0, 20.0, 40.0, 60.0)  # m/s
RATES = (5, 10, 20)  # Hz
LOST = (0.0, 0.1, 0.3)
NOISE = 0.02  # m


def ride(speed: float, seed: int, seconds: float = 40.0, step: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Poses (N, 4, 4), `step` [s] apart, of a vehicle that speeds up (3 m/s^2), brakes (8 m/s^2) and turns (6 m/s^2
    sideways, 1 rad/s) at speeds up to `speed`, and their times [s]."""
    rng = np.random.default_rng(seed)
    v, heading, turning, target, wanted = speed * rng.random(), 0.0, 0.0, speed, 0.0
    xy, poses = np.zeros(2), []
    for i in range(round(seconds / step)):
        if i % round(4.0 / step) == 0:
            target = speed * rng.choice([0.0, rng.random(), 1.0])
            wanted = rng.uniform(-1, 1) * min(1.0, 6.0 / max(v, 1.0))
        v += np.clip(target - v, -8.0 * step, 3.0 * step)
        turning = np.clip(turning + np.clip(wanted - turning, -step, step), -6.0 / max(v, 1.0), 6.0 / max(v, 1.0))
        heading += turning * step
        xy = xy + v * step * np.array([np.cos(heading), np.sin(heading)])
        poses.append(from_xyz_rpy((*xy, 0.0, 0.0, 0.0, heading)))
    return np.stack(poses), step * np.arange(len(poses))


def scans(poses: np.ndarray, times: np.ndarray, rate: int, lost: float, rng: np.random.Generator) -> tuple:
    """Stamps [ns] and noisy poses of those scans of the ride that are not lost."""
    every = round(1.0 / rate / (times[1] - times[0]))
    kept = np.arange(0, len(times), every)
    kept = kept[rng.random(len(kept)) >= lost]
    noisy = poses[kept].copy()
    noisy[:, :3, 3] += rng.normal(0.0, NOISE, (len(kept), 3))
    return np.round(times[kept] * SECOND).astype(np.int64), noisy


@pytest.mark.parametrize("speed", SPEEDS)
def test_no_motion_of_a_vehicle_is_a_jump(speed: float) -> None:
    rng = np.random.default_rng(0)
    for seed in range(2):
        poses, times = ride(speed, seed)
        for rate in RATES:
            for lost in LOST:
                stamps, noisy = scans(poses, times, rate, lost, rng)
                assert not breaks(stamps, noisy).any(), (rate, lost, seed)


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_teleport_of_three_metres_is_found_at_once(speed: float) -> None:
    """At a steady speed, between scans at most 0.4 s apart; of a standing vehicle whatever was lost."""
    rng = np.random.default_rng(1)
    for rate in RATES:
        for lost in LOST:
            times = np.arange(0, 20, 0.01)
            poses = np.stack([from_xyz_rpy((speed * t, 0, 0, 0, 0, 0)) for t in times])
            stamps, noisy = scans(poses, times, rate, lost, rng)
            for _ in range(20):
                at = rng.integers(4, len(stamps) - 2)
                if speed and stamps[at] - stamps[at - 1] > 0.4001 * SECOND:
                    continue
                away = rng.normal(size=3)
                jumped = noisy.copy()
                jumped[at:, :3, 3] += 3.0 * away / np.linalg.norm(away)
                found = breaks(stamps, jumped)
                assert found[at] and found.sum() == 1, (rate, lost, at)


@pytest.mark.parametrize("step", (1.0, 1.5, 2.0))
@pytest.mark.parametrize("rate", RATES)
def test_a_stop_and_a_start_within_one_step_are_no_jumps(step: float, rate: int) -> None:
    """Simulated drives turn on the spot between equal steps of their path."""
    steps = np.array([step] * 6 + [0.0] * 6 + [step, 0.0, step] + [0.0, 0.0] + [step] * 6)
    poses = np.stack([from_xyz_rpy((x, 0, 0, 0, 0, 0)) for x in np.cumsum(steps)])
    assert not breaks(np.arange(len(poses)) * (SECOND // rate), poses).any()


def test_one_by_one_as_all_at_once() -> None:
    rng = np.random.default_rng(2)
    poses, times = ride(20.0, 5)
    stamps, noisy = scans(poses, times, 10, 0.1, rng)
    noisy[100:, :3, 3] += 5.0
    noisy[200:] = from_xyz_rpy((0, 0, 0, 0, 0, 2.5)) @ noisy[200:]
    together, one = breaks(stamps, noisy), Continuity()
    assert [one.breaks_at(int(s), T) for s, T in zip(stamps, noisy, strict=True)] == together.tolist()
    assert np.flatnonzero(together).tolist() == [100, 200]


def test_the_first_step_is_judged_by_speed_alone() -> None:
    poses = np.stack([np.eye(4), from_xyz_rpy((6.0, 0, 0, 0, 0, 0))])
    assert not breaks(np.array([0, SECOND // 10]), poses).any()  # 60 m/s
    assert breaks(np.array([0, SECOND // 20]), poses).tolist() == [False, True]
