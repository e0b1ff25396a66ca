# SPDX-License-Identifier: Apache-2.0
"""Worlds made by hand, and sensors without noise, whose scans geometry foretells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vlad_ros.simulation.sensors import Sensor
from vlad_ros.simulation.world import World, flat_terrain


def exact(sensor: Sensor, **changes: float) -> Sensor:
    """The sensor without noise; drop-out of far points alone remains."""
    return replace(sensor, range_noise=0.0, dropout=0.0, rain=0.0, wobble=0.0, **changes)


def empty(**parts: object) -> World:
    """Level ground with nothing on it but `parts`."""
    world = World(
        kind="made by hand",
        size=100.0,
        walls=np.zeros((0, 6), np.float32),
        cylinders=np.zeros((0, 5), np.float32),
        foliage=np.zeros(0, bool),
        roads=(),
        half_width=1.0,
        slots=np.zeros((0, 3)),
        traffic=0.0,
        footprints=np.zeros((0, 5)),
        terrain=flat_terrain(100.0),
    )
    return replace(world, **parts)
