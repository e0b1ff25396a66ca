# SPDX-License-Identifier: Apache-2.0
"""Training data: places, each seen by several visits with other sensors, headings, cars and seasons.

``python -m vlad_ros.simulation.views OUT.npz --spread near --worlds 80 --places 40 --views 4 --seed 20``
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence as Seq
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vlad_ros.atomic import replacing
from vlad_ros.simulation.paths import arc_length, locate
from vlad_ros.simulation.sensors import Sensor, cast, random_fan, random_sensor
from vlad_ros.simulation.world import World
from vlad_ros.simulation.worlds import make_world, visit
from vlad_ros.types import F32

SCALE = 0.005  # m per step of the stored integers
VOXEL = 0.25  # m
MIX = {
    "street": 0.36,
    "campus": 0.15,
    "park": 0.13,
    "riverside": 0.12,
    "indoor": 0.1,
    "plaza": 0.08,
    "carpark": 0.06,
}
FAN_SHARE = 0.15
MIN_POINTS = 500
MIN_STRUCTURE = 250  # points higher than 0.8 m above the ground, on average over the views of a place
TRIES = 10  # per wanted place


@dataclass(frozen=True, eq=False)
class Views:
    """xyz int16 (sum_n, 3), times SCALE [m] in the sensor frame; view i is ``xyz[offsets[i]:offsets[i + 1]]``.

    offsets int64 (V + 1); pose float32 (V, 3) x y yaw in the view's world; place and world int32 (V,): number of the
    place that a view shows, and of the world that the place is in.
    """

    xyz: np.ndarray
    offsets: np.ndarray
    pose: F32
    place: np.ndarray
    world: np.ndarray

    def __len__(self) -> int:
        return len(self.place)

    def points(self, i: int) -> F32:
        """View `i` (N, 3) float32 [m]."""
        return self.xyz[self.offsets[i] : self.offsets[i + 1]].astype(np.float32) * np.float32(SCALE)


def save_views(path: str | os.PathLike[str], views: Views) -> None:
    """Write one .npz, atomically."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{field.name: getattr(views, field.name) for field in fields(Views)})


def load_views(path: str | os.PathLike[str]) -> Views:
    """Read a file of views; ValueError names it when a field is missing. Nothing is unpickled."""
    with np.load(path, allow_pickle=False) as data:
        missing = [field.name for field in fields(Views) if field.name not in data.files]
        if missing:
            raise ValueError(f"{path}: not a file of views, {', '.join(missing)} missing")
        return Views(**{field.name: data[field.name] for field in fields(Views)})


@dataclass(frozen=True)
class _Place:
    x: float
    y: float
    yaw: float  # of the road
    fan: bool
    heading: float  # common to the views of a fan


def make_views(
    spread: str = "near",
    worlds: int = 80,
    places: int = 40,
    views: int = 4,
    seed: int = 20,
    kinds: dict[str, float] | None = None,
    jobs: int = 1,
) -> Views:
    """Make `views` views of each of `places` places in each of `worlds` worlds; the same for the same seed.

    spread "near": within 3.5 m of the place (1.5 m under a roof); "far": along 18 m of its road (8 m), 1.2 m (standard
    deviation) to the sides. `kinds` maps kinds of worlds to their shares (default MIX). A world has fewer places
    where too few of those tried show any structure. ValueError for another spread or kind.
    """
    if spread not in ("near", "far"):
        raise ValueError(f"spread must be near or far, not {spread!r}")
    mix = MIX if kinds is None else kinds
    shares = np.array(list(mix.values())) / sum(mix.values())
    drawn = np.random.default_rng([seed, 0]).choice(list(mix), size=worlds, p=shares)
    tasks = [(str(kind), spread, places, views, seed, w) for w, kind in enumerate(drawn)]
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            found = list(tqdm(pool.map(_world_views, tasks), total=worlds, unit="world", desc="views"))
    else:
        found = [_world_views(task) for task in tqdm(tasks, unit="world", desc="views")]
    return _join(found, views)


def _join(found: list[list[tuple[np.ndarray, tuple[float, float, float]]]], views: int) -> Views:
    """Number the worlds and places and put all views into one array."""
    everything = [view for world in found for view in world]
    counts = [len(world) for world in found]
    return Views(
        xyz=np.concatenate([xyz for xyz, _ in everything] or [np.zeros((0, 3), np.int16)]),
        offsets=np.cumsum([0] + [len(xyz) for xyz, _ in everything]),
        pose=np.array([pose for _, pose in everything], np.float32).reshape(-1, 3),
        place=np.repeat(np.arange(len(everything) // views, dtype=np.int32), views),
        world=np.repeat(np.arange(len(found), dtype=np.int32), counts),
    )


def _world_views(task: tuple[str, str, int, int, int, int]) -> list[tuple[np.ndarray, tuple[float, float, float]]]:
    """The views of one world, place by place."""
    kind, spread, places, views, seed, number = task
    rng = np.random.default_rng([seed, 1, number])
    world = make_world(kind, int(rng.integers(1 << 31)))
    out: list[tuple[np.ndarray, tuple[float, float, float]]] = []
    for _ in range(TRIES * places):
        if len(out) == places * views:
            break
        place = _find_place(world, rng)
        if place is not None:
            out += _place_views(world, place, spread, views, rng)
    return out


def _find_place(world: World, rng: np.random.Generator) -> _Place | None:
    """A place on a road, or now and then anywhere free; None when the draw was no good."""
    road = world.roads[rng.integers(len(world.roads))]
    x, y, yaw = locate(road, np.array([rng.uniform(0, arc_length(road)[-1])]))[0]
    if rng.random() < (0.1 if world.kind in ("street", "carpark") else 0.3):
        x, y = rng.uniform(0.1, 0.9, 2) * world.size
        yaw = rng.uniform(-np.pi, np.pi)
    edge = 0.1 * world.size
    if not (edge < x < world.size - edge and edge < y < world.size - edge):
        return None
    if not world.is_free(np.array([[x, y]]), 1.0)[0]:
        return None
    return _Place(x, y, yaw, rng.random() < FAN_SHARE, rng.uniform(-np.pi, np.pi))


def _place_views(
    world: World, place: _Place, spread: str, views: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, tuple[float, float, float]]]:
    """All views of a place, or none where one of them has too few points."""
    out: list[tuple[np.ndarray, tuple[float, float, float]]] = []
    structure = 0
    for _ in range(views):
        x, y = _viewpoint(world, place, spread, rng)
        sensor, yaw = _look(world, place, rng)
        now = visit(world, int(rng.integers(1 << 31)), clear=np.array([[x, y]]))
        points = cast(now, replace(sensor, voxel=VOXEL), (x, y, yaw), rng)
        if len(points) < MIN_POINTS:
            return []
        structure += int((points[:, 2] > 0.8 - sensor.height).sum())
        out.append((np.round(points[:, :3] / SCALE).astype(np.int16), (x, y, yaw)))
    return out if structure >= MIN_STRUCTURE * views else []


def _viewpoint(world: World, place: _Place, spread: str, rng: np.random.Generator) -> tuple[float, float]:
    """Where one view is taken from: a free position in the spread around the place, or the place itself."""
    roofed = world.kind in ("indoor", "carpark")
    for _ in range(5):
        if spread == "near":
            r, a = (1.5 if roofed else 3.5) * rng.random(), rng.uniform(-np.pi, np.pi)
            along, left = r * np.cos(a), r * np.sin(a)
        else:
            along, left = rng.uniform(-1, 1) * (4.0 if roofed else 9.0), rng.normal(0.0, 1.2)
        c, s = math.cos(place.yaw), math.sin(place.yaw)
        x, y = place.x + along * c - left * s, place.y + along * s + left * c
        if world.is_free(np.array([[x, y]]), 0.5)[0]:
            return x, y
    return place.x, place.y


def _look(world: World, place: _Place, rng: np.random.Generator) -> tuple[Sensor, float]:
    """Sensor and heading of one view: half the time along the road, either way, else anywhere."""
    indoor = world.kind in ("indoor", "carpark")
    if place.fan:
        return random_fan(rng, indoor), place.heading + rng.uniform(-0.25, 0.25)
    if rng.random() < 0.5:
        yaw = place.yaw + math.pi * int(rng.integers(0, 2)) + rng.normal(0, 0.05)
    else:
        yaw = rng.uniform(-np.pi, np.pi)
    return random_sensor(rng, indoor), yaw


def main(arguments: Seq[str] | None = None) -> None:
    """Make a file of views."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the .npz to write")
    parser.add_argument("--spread", choices=("near", "far"), default="near", help="how views lie around their place")
    parser.add_argument("--worlds", type=int, default=80)
    parser.add_argument("--places", type=int, default=40, help="per world")
    parser.add_argument("--views", type=int, default=4, help="per place")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="processes; the result is the same")
    args = parser.parse_args(arguments)
    began = time.monotonic()
    made = make_views(args.spread, args.worlds, args.places, args.views, args.seed, jobs=args.jobs)
    save_views(args.out, made)
    rate = len(made) / (time.monotonic() - began)
    points = np.diff(made.offsets).mean() if len(made) else 0.0
    print(
        f"{args.out}: {len(made)} views of {len(made) // args.views} places, {points:.0f} points per view, "
        f"{rate:.0f} views per second"
    )


if __name__ == "__main__":
    main()
