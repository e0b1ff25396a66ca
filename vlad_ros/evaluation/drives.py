# SPDX-License-Identifier: Apache-2.0
"""Simulated drives to calibrate acceptance on, and held-out ones, through other worlds, to evaluate it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from vlad_ros.files.sequence import Sequence
from vlad_ros.simulation.aliased_drives import aliased_drive
from vlad_ros.simulation.aliased_worlds import ALIASED
from vlad_ros.simulation.routes import make_drive
from vlad_ros.simulation.sensors import Sensor, dome, fan, spinning, wide

SPACING = 1.6  # m between scans
BOTH = ("opposite", "same")
TRIES = 20  # worlds, until one has the route
ONCE, BACK = 160.0, 60.0  # m of a drive through an aliased world: without loops, and per pass (of three) with loops


@dataclass(frozen=True)
class DrivePlan:
    """One drive through a world of `make_world`: its kind, sensor, revisits and route, see `make_drive`."""

    kind: str
    sensor: Sensor
    revisits: tuple[str, ...]
    length: float
    shape: str = "line"

    def drive(self, world: int) -> Sequence:
        """The drive through this world; ValueError where it has no such route."""
        return make_drive(
            self.kind,
            world,
            sensor=self.sensor,
            seed=world,
            spacing=SPACING,
            revisits=self.revisits,
            length=self.length,
            shape=self.shape,
        )


# A fan sees nothing again in the opposite direction. 450 columns are half the usual: a sparse sensor.
PLANS = (
    DrivePlan("street", spinning(64), BOTH, 70.0),
    DrivePlan("street", spinning(16, 450), ("opposite",), 120.0, "loop"),
    DrivePlan("street", fan(), ("same",), 60.0),
    DrivePlan("campus", spinning(32), BOTH, 70.0),
    DrivePlan("campus", spinning(32, 450), (), 200.0),
    DrivePlan("park", dome(), BOTH, 70.0),
    DrivePlan("plaza", spinning(32, 450), BOTH, 70.0),
    DrivePlan("riverside", spinning(64), BOTH, 70.0),
    DrivePlan("riverside", wide(), (), 200.0),
    DrivePlan("indoor", dome(), BOTH, 50.0),
    DrivePlan("carpark", spinning(16), BOTH, 50.0),
)
ALIASED_SENSORS = (spinning(32), spinning(16, 450), dome(), spinning(64), spinning(32, 450))


def calibration_drives(seed: int = 0) -> Iterator[Sequence]:
    """16 drives of 120..300 m, made one by one: the PLANS, and one through each kind of aliased world, with or without
    loops; another seed: other worlds. They share no world with `judging_drives`."""
    return _drives(2 * seed)


def judging_drives(seed: int = 0) -> Iterator[Sequence]:
    """16 drives like `calibration_drives`, through worlds that those use with no seed."""
    return _drives(2 * seed + 1)


def aliased_drives(seed: int = 0, loops: bool = False) -> Iterator[Sequence]:
    """One held-out drive through each kind of aliased world, through worlds that `calibration_drives` do not use."""
    for number, kind in enumerate(ALIASED):
        yield _aliased(kind, 2 * seed + 1, number, loops)


def _drives(series: int) -> Iterator[Sequence]:
    for number, plan in enumerate(PLANS):
        yield _first(plan.drive, series, number)
    for number, kind in enumerate(ALIASED):
        yield _aliased(kind, series, number, bool((series // 2 + number) % 2))


def _aliased(kind: str, series: int, number: int, loops: bool) -> Sequence:
    sensor = ALIASED_SENSORS[(series // 2 + number) % len(ALIASED_SENSORS)]
    make = partial(aliased_drive, kind, sensor=sensor, loops=loops, spacing=SPACING, length=BACK if loops else ONCE)
    return _first(make, series, len(PLANS) + number)


def _first(make: Callable[[int], Sequence], series: int, number: int) -> Sequence:
    """The drive through the first world of the series that has the route; series never share a world."""
    problem = None
    for attempt in range(TRIES):
        try:
            return make(1000 * series + 32 * number + attempt)
        except ValueError as error:
            problem = error
    raise ValueError(f"none of {TRIES} worlds has the route: {problem}")
