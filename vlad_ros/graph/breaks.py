# SPDX-License-Identifier: Apache-2.0
"""Where odometry broke: one step of it against loops that agree with each other and not with it.

Odometry that has lost itself turns wrongly or leaps, and is sound again behind that. Then the loops behind the break
agree on one offset for the rest of the drive; but so do the wrong loops of an aliased street, which are to be refused.
Three things tell them apart, and a step is given up only where all are so:

- The loops that agree are of more than a street.
- Hardly any that the graph believes speaks for the step: beside an aliased street there are others that do.
- The vehicle did not leap. The track before the step and the one behind it, moved to where the loops put it, meet. An
  aliased street lies elsewhere: its track meets the other one nowhere.

The last one also says where it broke. The odometry's own rates would not: on a real drive it turned by 23 degrees from
scan to scan where it broke, and by up to 29 where the vehicle did. A step given up in error costs little: the loops of
its surroundings, let in later, hold what it held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from vlad_ros.graph.chain import Chain, strayed
from vlad_ros.graph.consistency import Loop, pair_agrees
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.poses import inverse, log
from vlad_ros.types import F64

PLACES, STREET = 10, 50.0  # query nodes, and m of travel, of the loops that must agree
SPOKEN = 0.25  # share of those places that may speak for the odometry
METRES, RADIANS = 5.0, 0.3  # of a vehicle's motion in the step, and of wrong steps beside it
MEETING = 3.0  # sigmas within which the tracks meet


class Break(NamedTuple):
    """The step of odometry into `node` is wrong; `T_map_odom` (4, 4) behind it; the loops that say so."""

    node: int
    T_map_odom: F64
    loops: list[Loop]


def find_break(
    leader: Loop, loops: Sequence[Loop], against: int, poses: F64, chain: Chain, config: PoseGraphConfig, way: float
) -> Break | None:
    """The break that the refused loops among `loops` speak for which agree with `leader`; None unless they suffice.
    `against`: places whose loops were refused for it; `poses` (N, 4, 4): the graph's; `way` [m]: travel of the way that
    contradicts."""
    part = chain.part(leader.j)
    refused = [loop for loop in loops if not loop.on and not loop.forbidden and loop.j in part]
    if not _is_more_than_a_street(refused, chain):
        return None
    agreeing = [loop for loop in refused if loop is leader or pair_agrees(leader, loop, chain, config)]
    if not _is_more_than_a_street(agreeing, chain):
        return None
    first = min(agreeing, key=lambda loop: loop.j)
    before = max(loop.i if chain.nodes[loop.i].drive == chain.nodes[first.j].drive else -1 for loop in agreeing)
    steps = np.arange(max(part.start, before) + 1, first.j + 1)
    steps = steps[_spoken_for(steps, loops, chain, part) + against <= SPOKEN * len({loop.j for loop in agreeing})]
    if not len(steps):
        return None
    T_map_odom = poses[first.i] @ first.T @ inverse(chain.nodes[first.j].T_odom_base)
    behind = T_map_odom @ np.stack([chain.nodes[step].T_odom_base for step in steps.tolist()])
    T = inverse(poses[steps - 1]) @ behind
    metres, radians = np.linalg.norm(T[:, :3, 3], axis=1), np.linalg.norm(log(T)[:, 3:], axis=1)
    best = int(np.argmin((metres / METRES) ** 2 + (radians / RADIANS) ** 2))
    if metres[best] > MEETING * np.hypot(METRES, strayed(way, config)[0]):
        return None
    return Break(int(steps[best]), T_map_odom, agreeing)


def _is_more_than_a_street(loops: Iterable[Loop], chain: Chain) -> bool:
    places = {loop.j for loop in loops}
    travels = [chain.nodes[place].travel for place in places]
    return len(places) >= PLACES and max(travels) - min(travels) >= STREET


def _spoken_for(steps: np.ndarray, loops: Sequence[Loop], chain: Chain, part: range) -> np.ndarray:
    """How many believed loops lead across each of the steps (K,)."""
    drive = chain.nodes[part.start].drive
    across = [
        (loop.i if chain.nodes[loop.i].drive == drive else -1, loop.j) for loop in loops if loop.on and loop.j in part
    ]
    ends = np.sort(np.array(across, np.int64).reshape(-1, 2), axis=1)
    begun, ended = np.sort(ends[:, 0]), np.sort(ends[:, 1])
    return np.searchsorted(begun, steps) - np.searchsorted(ended, steps)
