# SPDX-License-Identifier: Apache-2.0
"""The pipeline's result for a keyframe."""

from __future__ import annotations

from dataclasses import dataclass

from vlad_ros.cloud.raster import Bev
from vlad_ros.types import Keyframe, LoopClosure


@dataclass(frozen=True, eq=False)
class Described:
    """A processed keyframe: its row in the database, its candidates, most probable first, the raster that its
    descriptor was made from (a tensor where the describer works on a GPU), and the wall time [ms] of each stage from
    there on."""

    keyframe_id: int
    keyframe: Keyframe
    closures: list[LoopClosure]
    bev: Bev
    milliseconds: dict[str, float]
