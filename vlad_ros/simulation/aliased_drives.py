# SPDX-License-Identifier: Apache-2.0
"""Drives through aliased worlds: with no true loop, or with some among many false ones."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from vlad_ros.files.sequence import Sequence
from vlad_ros.simulation.aliased_worlds import make_aliased_world
from vlad_ros.simulation.paths import arc_length
from vlad_ros.simulation.roads import RoadNetwork
from vlad_ros.simulation.routes import CLEARANCE, Route, drive_legs, plan_route, record
from vlad_ros.simulation.sensors import Sensor
from vlad_ros.simulation.world import World
from vlad_ros.types import F64

APART, AGO = 15.0, 40.0  # a drive without loops never comes within 15 m of where it was more than 40 m of travel ago
TRIES = 200


def aliased_drive(
    kind: str,
    seed: int,
    *,
    sensor: Sensor,
    loops: bool,
    spacing: float = 1.6,
    length: float = 200.0,
) -> Sequence:
    """Drive about `length` metres through the world ``make_aliased_world(kind, seed)``; kinds: see there.

    `loops` False: once through, never within APART metres of where it was more than AGO metres of travel ago. True:
    back over the same road in the opposite direction, and a third time in the first one's, each with other parked cars
    and up to 2 m to the side. Scans lie `spacing` metres and 0.1 s apart; poses are T_map_sensor. ValueError for
    unknown kinds, and where the world has no such route.
    """
    world = make_aliased_world(kind, seed, size=max(300.0, 1.4 * length))
    revisits = ("opposite", "same") if loops else ()
    single = len(world.roads) == 1
    if single or loops:
        route = plan_route(world, seed, spacing, revisits, 2.0, length, "line")
    else:
        route = _wander(world, seed, spacing, length)
    name = f"{kind}_{seed}_{'loops' if loops else 'once'}"
    return record(world, route, seed, sensor, spacing, name, len(revisits))


def comes_back(poses: F64) -> bool:
    """Whether the route (S, >= 2) x y [m] comes within APART of where it was more than AGO of travel before."""
    s = arc_length(poses[:, :2])
    return bool(((s[:, None] - s > AGO) & (cdist(poses[:, :2], poses[:, :2]) < APART)).any())


def _wander(world: World, seed: int, spacing: float, length: float) -> Route:
    """A route with turns at random junctions that never comes back to itself."""
    network = RoadNetwork(world)
    for attempt in range(TRIES):
        rng = np.random.default_rng([seed, 2, attempt])
        way = _walk(network, rng, length)
        if way is None:
            continue
        route = drive_legs(world, rng, [(0, way)], spacing, 2.0)
        poses = route.poses
        if not comes_back(poses) and world.is_free(poses[:, :2], CLEARANCE).all():
            return route
    raise ValueError(
        f"this {world.kind} has no route of {length:.0f} m that never comes back to itself; try another seed"
    )


def _walk(network: RoadNetwork, rng: np.random.Generator, length: float) -> F64 | None:
    """A polyline (K, 2) of `length` metres from a random junction; None where it meets itself or a dead end."""
    junctions = [n for n, ways in network.ways.items() if len(ways) > 2]
    nodes, gone = [int(rng.choice(junctions))], 0.0
    straight_on = rng.uniform(0.5, 1.0)  # share of the junctions
    while gone < length:
        here = network.nodes[nodes[-1]]
        onward = [v for v in network.ways[nodes[-1]] if v not in nodes]
        if not onward:
            return None
        if len(nodes) > 1 and rng.random() < straight_on:
            heading = here - network.nodes[nodes[-2]]
            turns = [float(heading @ (d := network.nodes[v] - here) / np.linalg.norm(d)) for v in onward]
            nodes.append(onward[int(np.argmax(turns))])
        else:
            nodes.append(int(rng.choice(onward)))
        gone += network.length(nodes[-2:])
    line = network.polyline(nodes)
    return line[: int(np.searchsorted(arc_length(line), length)) + 1]
