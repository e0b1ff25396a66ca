# SPDX-License-Identifier: Apache-2.0
"""Where odometry broke: one step of it against loops that agree with each other and not with it.

Odometry that has lost itself turns wrongly or leaps, and is sound again behind that. Then the loops behind the break
agree on one offset for the rest of the drive; but so do the wrong loops of an aliased street, which are to be refused.
Three things tell them apart, and a step is given up only where all are so:

- The loops that agree are of more than a street.
- Hardly any that the graph believes leads across the step: beside an aliased street there are others that do.
- The vehicle did not leap. The track before the step and the one behind it, moved to where the loops put it, meet. An
  aliased street lies elsewhere: its track meets the other one nowhere.

The last one also says where it broke. The odometry's own rates would not: on a real drive it turned by 23 degrees from
scan to scan where it broke, and by up to 29 where the vehicle did. A step given up in error costs little: the loops of
its surroundings, let in later, hold what it held.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlad_ros.graph.chain import Chain, strayed
from vlad_ros.graph.consistency import Loop, pair_agrees
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.poses import inverse, log
from vlad_ros.types import F64, Ints

PLACES, STREET = 10, 50.0  # query nodes, and m of travel, of the loops that must agree
ACROSS = 0.25  # believed loops across the step, as a share of those places
METRES, RADIANS = 5.0, 0.3  # of a vehicle's motion in the step, and of wrong steps beside it
MEETING = 3.0  # sigmas within which the tracks meet


class Break(NamedTuple):
    """The step of odometry into `node` is wrong; `T_map_odom` (4, 4) behind it; the loops that say so."""

    node: int
    T_map_odom: F64
    loops: list[Loop]


def witnesses(leader: Loop, loops: Sequence[Loop], chain: Chain, config: PoseGraphConfig) -> list[Loop]:
    """The refused loops that agree with `leader`, in the order of their queries; none unless they are of more than a
    street."""
    part = set(chain.part(leader.j))
    found = [loop for loop in loops if not loop.on and not loop.forbidden and loop.j in part]
    if _is_more_than_a_street(found, chain):
        found = [loop for loop in found if loop is leader or pair_agrees(leader, loop, chain, config)]
        if _is_more_than_a_street(found, chain):
            return sorted(found, key=lambda loop: loop.j)
    return []


def _is_more_than_a_street(loops: Sequence[Loop], chain: Chain) -> bool:
    places = {loop.j for loop in loops}
    travels = [chain.nodes[place].travel for place in places]
    return len(places) >= PLACES and max(travels) - min(travels) >= STREET


def suspects(agreeing: Sequence[Loop], loops: Sequence[Loop], chain: Chain) -> tuple[Ints, list[Loop]]:
    """The steps (K,), by the nodes that they lead to, one of which may be broken by what `witnesses` gave; and the
    believed ones of all `loops` that lead across any of them."""
    first, part = agreeing[0].j, chain.part(agreeing[0].j)
    begin = max(_begin(loop, chain) for loop in agreeing)
    steps: Ints = np.array([step for step in part[1:] if begin < step <= first], np.int64)
    inside = set(part)
    believed = [loop for loop in loops if loop.on and loop.j in inside]
    ends = np.array([(_begin(loop, chain), loop.j) for loop in believed], np.int64).reshape(-1, 2)
    across = np.searchsorted(np.sort(ends[:, 0]), steps) - np.searchsorted(np.sort(ends[:, 1]), steps)
    steps = steps[across <= ACROSS * len({loop.j for loop in agreeing})]
    crossing = np.searchsorted(steps, ends[:, 0], "right") < np.searchsorted(steps, ends[:, 1], "right")
    return steps, [believed[k] for k in np.flatnonzero(crossing)]


def _begin(loop: Loop, chain: Chain) -> int:
    """A loop's match, or the beginning of its drive where that is in another one."""
    drive = chain.nodes[loop.j].drive
    return loop.i if chain.nodes[loop.i].drive == drive else chain.drive(drive)[0] - 1


def find_break(
    agreeing: list[Loop], steps: Ints, poses: F64, way: float, chain: Chain, config: PoseGraphConfig
) -> Break | None:
    """The one of the `steps` at which the tracks meet, by the graph's `poses` (N, 4, 4) without the loops across; None
    where they do not. `way` [m]: travel of the shortest way between the ends of the first of the `agreeing`."""
    first = agreeing[0]
    T_map_odom = poses[first.i] @ first.T @ inverse(chain.nodes[first.j].T_odom_base)
    behind = T_map_odom @ np.stack([chain.nodes[step].T_odom_base for step in steps.tolist()])
    part = chain.part(first.j)
    T = inverse(poses[np.array(part)[np.searchsorted(part, steps) - 1]]) @ behind
    metres, radians = np.linalg.norm(T[:, :3, 3], axis=1), np.linalg.norm(log(T)[:, 3:], axis=1)
    best = int(np.argmin((metres / METRES) ** 2 + (radians / RADIANS) ** 2))
    if metres[best] > MEETING * np.hypot(METRES, strayed(way, config)[0]):
        return None
    return Break(int(steps[best]), T_map_odom, agreeing)
