# SPDX-License-Identifier: Apache-2.0
"""Drives with ground truth: along a road or around a block, and back over the same road in both directions."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from vlad_ros.files.sequence import Sequence
from vlad_ros.poses import wrap
from vlad_ros.simulation.paths import arc_length, locate, resample
from vlad_ros.simulation.roads import RoadNetwork, both_ways, inside
from vlad_ros.simulation.sensors import Sensor, cast, draw_tilt, sensor_pose
from vlad_ros.simulation.world import World
from vlad_ros.simulation.worlds import make_world, visit
from vlad_ros.types import F64

RATE = 10.0  # scans per second
TURN = np.radians(8.0)  # largest turn on the spot between two scans
CLEARANCE = 0.4  # m from everything static
TRIES = 30
REVISITS = ("same", "opposite", "crossing", "none")
SHAPES = ("loop", "line")


@dataclass(frozen=True, eq=False)
class Route:
    """poses (S, 3) x y yaw [m, rad] in the world; leg (S,) int: 0 the first pass, k the k-th revisit, -1 the
    connections between them."""

    poses: F64
    leg: np.ndarray


def make_drive(
    kind: str,
    world_seed: int,
    *,
    sensor: Sensor,
    seed: int = 0,
    spacing: float = 1.0,
    revisits: Seq[str] = ("opposite", "same"),
    lateral_offset: float = 2.0,
    length: float = 250.0,
    shape: str = "loop",
    distorted: bool = False,
) -> Sequence:
    """Drive through the world ``make_world(kind, world_seed)``: one pass over about `length` metres, then `revisits`.

    "same" and "opposite" drive the first pass again or backwards, "crossing" crosses it on another road, "none" goes
    on over new roads. Each leg keeps its own side of the road, up to `lateral_offset` metres from the first's, as
    far as the road is wide, and meets other parked cars. shape "loop": around blocks, so that the first pass ends
    where it began; "line": along one road, with a turn on the spot before the way back. Scans lie `spacing` metres
    and 0.1 s apart. `distorted`: scans keep the distortion by the vehicle's motion during a sweep. Poses are
    T_map_sensor, height and tilt included, stamps start at 1 s. ValueError where the world has no such route.
    """
    world = make_world(kind, world_seed, size=max(300.0, 1.4 * length))
    route = plan_route(world, seed, spacing, revisits, lateral_offset, length, shape)
    return record(world, route, seed, sensor, spacing, f"{kind}_{world_seed}_{seed}", len(revisits), distorted)


def record(
    world: World,
    route: Route,
    seed: int,
    sensor: Sensor,
    spacing: float,
    name: str,
    revisits: int = 0,
    distorted: bool = False,
) -> Sequence:
    """The scans along a route with `revisits` revisits, see `make_drive`."""
    rng = np.random.default_rng([seed, 1])
    mood = rng.integers(1 << 31, size=revisits + 2)
    cleared = route.poses[:: max(1, round(1.0 / spacing)), :2]
    scans, poses = [], np.zeros((len(route.poses), 4, 4))
    for i, (x, y, yaw) in enumerate(tqdm(route.poses, unit="scan", desc="drive", leave=False)):
        now = visit(world, int(mood[route.leg[i]]), i / RATE, cleared, here=np.array([[x, y]]))
        tilt = draw_tilt(sensor, rng)
        pose = (float(x), float(y), float(yaw))
        poses[i] = sensor_pose(world, sensor, pose, tilt)
        scans.append(cast(now, sensor, pose, rng, tilt, _motion(route.poses, i) if distorted else None))
    return Sequence(name, scans, poses, 1.0 + np.arange(len(scans)) / RATE)


def _motion(poses: F64, i: int) -> tuple[float, float, float]:
    """The motion during the sweep of scan `i`, from its neighbours."""
    a, b = max(i - 1, 0), min(i + 1, len(poses) - 1)
    step = (poses[b] - poses[a]) / max(b - a, 1)
    turned = wrap(poses[b, 2] - poses[a, 2])
    return float(step[0]), float(step[1]), float(turned / max(b - a, 1))


def plan_route(
    world: World,
    seed: int,
    spacing: float,
    revisits: Seq[str],
    lateral_offset: float,
    length: float,
    shape: str = "loop",
) -> Route:
    """The poses of a drive, see `make_drive`; at least CLEARANCE from everything static."""
    for name in revisits:
        if name not in REVISITS:
            raise ValueError(f"revisits must be of {', '.join(REVISITS)}, not {name!r}")
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, not {shape!r}")
    if spacing <= 0 or length < 20 * spacing:
        raise ValueError(f"spacing must be positive and length at least 20 of it, not {spacing} and {length}")
    for attempt in range(TRIES):
        rng = np.random.default_rng([seed, attempt])
        legs = _plan_legs(world, rng, revisits, length, shape)
        if legs is None:
            continue
        route = drive_legs(world, rng, legs, spacing, lateral_offset)
        if world.is_free(route.poses[:, :2], CLEARANCE).all():
            return route
    raise ValueError(f"this {world.kind} has no {shape} of about {length:.0f} m with revisits {', '.join(revisits)}")


def _plan_legs(
    world: World, rng: np.random.Generator, revisits: Seq[str], length: float, shape: str
) -> list[tuple[int, F64]] | None:
    """Numbers and polylines of the legs, connections included; None where this random draw has no such route."""
    found = _loop(world, rng, length, "crossing" in revisits) if shape == "loop" else _line(world, rng, length)
    if found is None:
        return None
    network, base = found
    legs = [(0, base)]
    used = both_ways(base)
    for k, name in enumerate(revisits, start=1):
        here = legs[-1][1][-1]
        nodes = _revisit(network, base, name, here, used, rng, length)
        if nodes is None:
            return None
        if nodes[0] != here:
            way = network.shortest(here, nodes[0], used)
            if way is None:
                return None
            legs.append((-1, way))
            used |= both_ways(way)
        legs.append((k, nodes))
        used |= both_ways(nodes)
    return [(number, network.polyline(nodes)) for number, nodes in legs]


def _loop(world: World, rng: np.random.Generator, length: float, crossed: bool) -> tuple[RoadNetwork, list[int]] | None:
    """Of many random loops without a repeated junction, the one nearest to the wanted length.

    `crossed`: one that another road crosses, so not a single block.
    """
    network = RoadNetwork(world)
    junctions = [n for n, ways in network.ways.items() if len(ways) > 2]
    best: list[int] | None = None
    for _ in range(40):
        if len(junctions) < 4:
            return None
        u, v = rng.choice(junctions, 2, replace=False)
        out = network.shortest(int(u), int(v), set())
        if out is None:
            continue
        back = network.shortest(int(v), int(u), both_ways(out), forbidden=True)
        if back is None or set(out[1:-1]) & set(back[1:-1]):
            continue
        loop = out + back[1:]
        if crossed and _crossing(network, loop, rng) is None:
            continue
        if best is None or abs(network.length(loop) - length) < abs(network.length(best) - length):
            best = loop
    if best is None or not 0.5 * length < network.length(best) < 2.0 * length:
        return None
    return network, best


def _line(world: World, rng: np.random.Generator, length: float) -> tuple[RoadNetwork, list[int]] | None:
    """A stretch of one road, of the wanted length."""
    road = int(rng.integers(len(world.roads)))
    whole = inside(world.roads[road], world.size)
    end = arc_length(whole)[-1] if len(whole) > 1 else 0.0
    if end < length:
        return None
    start = rng.uniform(0, end - length)
    network = RoadNetwork(world, {road: [start, start + length]})
    chain = network.chains[road]
    ends = [int(np.argmin([np.linalg.norm(network.nodes[n] - p) for n in chain])) for p in _ends(whole, start, length)]
    nodes = chain[ends[0] : ends[1] + 1]
    return (network, nodes) if len(nodes) > 1 else None


def _ends(road: F64, start: float, length: float) -> F64:
    return locate(road, np.array([start, start + length]))[:, :2]


def _revisit(
    network: RoadNetwork,
    base: list[int],
    name: str,
    here: int,
    used: set[tuple[int, int]],
    rng: np.random.Generator,
    length: float,
) -> list[int] | None:
    """The nodes of a revisit's leg; None where there is none."""
    if name == "same":
        return base
    if name == "opposite":
        return base[::-1]
    if name == "crossing":
        return _crossing(network, base, rng)
    nodes = [here]
    while network.length(nodes) < 0.5 * length:
        onward = [v for v in network.ways[nodes[-1]] if (nodes[-1], v) not in used | both_ways(nodes)]
        if not onward:
            break
        nodes.append(int(rng.choice(onward)))
    return nodes if len(nodes) > 1 else None


def _crossing(network: RoadNetwork, base: list[int], rng: np.random.Generator) -> list[int] | None:
    """A way over one of the first pass's junctions, on a road that is not part of it."""
    edges = both_ways(base)
    found = []
    for chain in network.chains:
        for k in range(1, len(chain) - 1):
            piece = chain[k - 1 : k + 2]
            if piece[1] in base and not both_ways(piece) & edges:
                found.append(piece)
    return found[rng.integers(len(found))] if found else None


def drive_legs(
    world: World, rng: np.random.Generator, legs: list[tuple[int, F64]], spacing: float, lateral_offset: float
) -> Route:
    """Poses every `spacing` metres along the legs, each on its own side, with rounded corners."""
    rounding = min(3.0, world.half_width)  # m
    room = max(0.0, world.half_width - CLEARANCE - 0.2 - 0.4 * rounding)
    first = -rng.uniform(0.0, 0.5) * min(lateral_offset, room)
    lines, numbers = [], []
    for number, line in legs:
        offset = first if number == 0 else first + rng.uniform(-1, 1) * lateral_offset
        side = float(np.clip(offset, -room, room))
        smooth = _smooth(resample(line, 0.5), rounding / 0.5)
        shifted = locate(smooth, arc_length(smooth), side)[:, :2]
        lines.append(shifted)
        numbers += [number] * len(shifted)
    path = _smooth(np.concatenate(lines), 2.0)
    s = np.arange(0.0, arc_length(path)[-1], spacing)
    leg = np.array(numbers)[np.searchsorted(arc_length(path), s, side="right") - 1]
    return _turn_gently(locate(path, s), leg)


def _smooth(line: F64, sigma: float) -> F64:
    """Gaussian smoothing that keeps both ends: there the line is continued by its point reflection."""
    n = min(len(line) - 1, int(4 * sigma) + 1)
    extended = np.concatenate([2 * line[0] - line[n:0:-1], line, 2 * line[-1] - line[-2 : -n - 2 : -1]])
    return np.asarray(gaussian_filter1d(extended, sigma, axis=0)[n : n + len(line)])


def _turn_gently(poses: F64, leg: np.ndarray) -> Route:
    """Insert turns on the spot where the heading would change by more than TURN between two scans."""
    out, legs = [poses[0]], [leg[0]]
    for pose, number in zip(poses[1:], leg[1:], strict=True):
        turn = wrap(pose[2] - out[-1][2])
        steps = int(np.ceil(abs(turn) / TURN))
        for _ in range(1, steps):
            out.append(np.array([out[-1][0], out[-1][1], out[-1][2] + turn / steps]))
            legs.append(number)
        out.append(pose)
        legs.append(number)
    return Route(np.array(out), np.array(legs))
