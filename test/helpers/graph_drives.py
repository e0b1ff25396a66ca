# SPDX-License-Identifier: Apache-2.0
"""Drives with drifting odometry and loops of known truth, for the pose graph; wrong loops, odometry that breaks."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.drive.travel import path_length
from vlad_ros.poses import exp, from_xyz_rpy, inverse
from vlad_ros.types import F64

BLOCKS = np.array([[0, 0], [120, 0], [120, 80], [0, 80], [0, 0]], np.float64)
NEIGHBOUR = np.array([[0, 0], [0, -90], [120, -90], [120, 0], [0, 0]], np.float64)
FAULTS = {  # of odometry that loses itself: what it adds to a step, and for how many steps
    "turn": (from_xyz_rpy((0.0, 0.0, 0.0, 0.0, 0.0, math.radians(115.0) / 5)), 5),
    "leap": (from_xyz_rpy((50.0, 0.0, 0.0, 0.0, 0.0, 0.0)), 1),
}
SIGMAS = np.array([0.06, 0.06, 0.06, 0.004, 0.004, 0.004])  # m, rad


@dataclasses.dataclass(frozen=True, eq=False)
class Edge:
    """A loop between two rows of a drive: T_i_j (4, 4), its covariance (6, 6), and whether it is wrong."""

    i: int
    j: int
    T: F64
    covariance: F64
    wrong: bool = False


def town(seed: int) -> F64:
    """True poses (S, 4, 4), 1 m apart: around two neighbouring blocks, again, and once in the other direction."""
    return along([BLOCKS, NEIGHBOUR, BLOCKS, NEIGHBOUR[::-1]], seed)


def block(seed: int) -> F64:
    """True poses (S, 4, 4), 1 m apart: around a block, and half of it again."""
    return along([BLOCKS, BLOCKS[:3]], seed)


def along(rounds: list[F64], seed: int) -> F64:
    """True poses (S, 4, 4), 1 m apart, along corners (K, 2), each round a little aside."""
    rng = np.random.default_rng(seed)
    corners = np.concatenate([round + rng.uniform(-0.7, 0.7, 2) for round in rounds])
    away = np.cumsum(np.r_[0.0, np.linalg.norm(np.diff(corners, axis=0), axis=1)])
    at = np.arange(0.0, away[-1], 1.0)
    xy = np.column_stack([smooth(np.interp(at, away, corners[:, k])) for k in (0, 1)])
    ahead = np.gradient(xy, axis=0)
    yaw, z = np.arctan2(ahead[:, 1], ahead[:, 0]), 0.5 * np.sin(xy[:, 0] / 40)
    return np.stack([from_xyz_rpy((*at, height, 0.0, 0.0, turn)) for at, height, turn in zip(xy, z, yaw, strict=True)])


def smooth(line: F64) -> F64:
    """The mean of 9 m, so that corners are round as vehicles drive them."""
    return np.convolve(np.pad(line, 4, mode="edge"), np.full(9, 1 / 9), mode="valid")


def odometry(poses: F64, seed: int, scale: float = 0.01, yaw: float = 0.5) -> F64:
    """T_odom_base (S, 4, 4), the first one the identity."""
    drifted = drifting_odometry(poses, scale, yaw, seed)
    return inverse(drifted[0]) @ drifted


def loops(poses: F64, seed: int, spacing: int = 2) -> list[Edge]:
    """A right edge for each `spacing`-th pose at a place seen 50 m of travel before, off as its covariance says."""
    rng, travel, xy = np.random.default_rng(seed), path_length(poses), poses[:, :2, 3]
    edges = []
    for j in range(0, len(poses), spacing):
        earlier = np.flatnonzero(travel < travel[j] - 50.0)
        if not len(earlier):
            continue
        away = np.linalg.norm(xy[earlier] - xy[j], axis=1)
        if away.min() < 3.0:
            i = int(earlier[np.argmin(away)])
            T = exp(-SIGMAS * rng.normal(size=6)) @ inverse(poses[i]) @ poses[j]
            edges.append(Edge(i, j, T, np.diag(SIGMAS**2)))
    return edges


def corrupted(edges: list[Edge], poses: F64, seed: int, share: float = 0.1, first: bool = False) -> list[Edge]:
    """`share` of the edges replaced by wrong ones: half anywhere, half with one wrong offset along 20 m and more of an
    aliased street (`first`: the street of the very first loops)."""
    rng, number = np.random.default_rng(seed), round(share * len(edges))
    out, travel = list(edges), path_length(poses)
    street = number // 2
    begin = 0 if first else int(rng.integers(0, len(edges) - street))
    offset = from_xyz_rpy((float(rng.choice([-1, 1]) * rng.uniform(8.0, 25.0)), rng.uniform(-3, 3), 0.0, 0.0, 0.0, 0.0))
    for k in range(begin, begin + street):
        out[k] = dataclasses.replace(edges[k], T=offset @ edges[k].T, wrong=True)
    others = np.setdiff1d(np.arange(len(edges)), np.arange(begin, begin + street))
    for k in rng.choice(others, number - street, replace=False):
        j = edges[k].j
        i = int(rng.choice(np.flatnonzero(travel < travel[j] - 50.0)))
        T = from_xyz_rpy(
            (*rng.uniform(-4, 4, 2), 0.0, 0.0, 0.0, float(rng.uniform(-0.3, 0.3) + math.pi * rng.integers(2)))
        )
        out[k] = dataclasses.replace(edges[k], i=i, T=T, wrong=True)
    return out


def broken(odo: F64, at: int, fault: str) -> F64:
    """The odometry with one of the `FAULTS`, the first step of it into the row `at`."""
    out, (more, steps) = odo.copy(), FAULTS[fault]
    for k in range(at, len(odo)):
        out[k] = out[k - 1] @ inverse(odo[k - 1]) @ odo[k] @ (more if k < at + steps else np.eye(4))
    return out


def misled(edges: list[Edge], odo: F64, at: int, number: int = 3) -> list[Edge]:
    """The first loops from the row `at` on replaced by what the broken odometry says, which makes them believed."""
    out, rng = list(edges), np.random.default_rng(at)
    for k in [k for k, edge in enumerate(edges) if edge.j >= at][:number]:
        i, j = edges[k].i, edges[k].j
        off = from_xyz_rpy((*rng.normal(0.0, 0.1, 3), 0.0, 0.0, 0.0))
        out[k] = dataclasses.replace(edges[k], T=off @ inverse(odo[i]) @ odo[j], wrong=True)
    return out


def rmse(estimate: F64, poses: F64) -> float:
    """Absolute trajectory error [m] after a rigid alignment of the positions."""
    p, q = estimate[:, :3, 3] - estimate[:, :3, 3].mean(0), poses[:, :3, 3] - poses[:, :3, 3].mean(0)
    u, _, vt = np.linalg.svd(q.T @ p)
    R = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return float(np.sqrt(np.mean(np.sum((p @ R.T - q) ** 2, axis=1))))
