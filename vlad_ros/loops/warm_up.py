# SPDX-License-Identifier: Apache-2.0
"""Compile and load what first use needs in advance, so that the first keyframe does not wait for it."""

from __future__ import annotations

import numpy as np

from vlad_ros.loops.verification import Verifier
from vlad_ros.model.describer import Describer
from vlad_ros.types import F32


def warm_up(describer: Describer) -> None:
    """Run description and verification once; nothing is stored."""
    geometry = describer.see(_scene()).geometry()
    Verifier().verify(geometry, geometry)


def _scene() -> F32:
    """A flat floor, a wall and some posts (N, 4)."""
    x, y = np.meshgrid(np.linspace(-30, 30, 121), np.linspace(-30, 30, 121))
    floor = np.stack([x, y, np.full_like(x, -1.5), np.zeros_like(x)], -1).reshape(-1, 4)
    wall = np.stack([np.full_like(x, 15.0), x, np.abs(y) / 10, np.zeros_like(x)], -1).reshape(-1, 4)
    rng = np.random.default_rng(0)
    feet, heights = np.repeat(rng.uniform(-25, 25, (40, 2)), 20, axis=0), np.tile(np.linspace(-1.5, 3.0, 20), 40)
    posts = np.column_stack(
        [feet + rng.normal(0, 0.1, feet.shape), heights * np.repeat(rng.random(40), 20), 0 * heights]
    )
    return np.concatenate([floor, wall, posts]).astype(np.float32)
