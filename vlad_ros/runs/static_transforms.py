# SPDX-License-Identifier: Apache-2.0
"""The fixed transforms of a bag's /tf_static, looked up as TF does."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlad_ros.poses import decode, inverse
from vlad_ros.types import F64

TOPIC, TYPE = "/tf_static", "tf2_msgs/msg/TFMessage"


class StaticTransforms:
    """A frame's latest parent is used; leading slashes are ignored."""

    def __init__(self) -> None:
        self._above: dict[str, tuple[str, F64]] = {}  # frame: its parent, T_parent_frame

    def add(self, stamped: Any) -> None:
        """Keep a geometry_msgs/TransformStamped; ValueError unless it is a rigid transform between two frames."""
        parent, child = _plain(stamped.header.frame_id), _plain(stamped.child_frame_id)
        if not parent or not child or parent == child:
            raise ValueError(f"a transform from {child!r} to {parent!r} joins no two frames")
        t, q = stamped.transform.translation, stamped.transform.rotation
        try:
            T = decode(np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w]))
        except ValueError as error:
            raise ValueError(f"the transform from {child!r} to {parent!r}: {error}") from error
        self._above[child] = parent, T

    def find(self, target: str, source: str) -> F64 | None:
        """T_target_source (4, 4) over any number of frames; None if they are not connected."""
        to_target, to_source = self._ancestors(_plain(target)), self._ancestors(_plain(source))
        for frame, T_frame_source in to_source.items():
            if frame in to_target:
                return inverse(to_target[frame]) @ T_frame_source
        return None

    def _ancestors(self, frame: str) -> dict[str, F64]:
        """T_ancestor_frame (4, 4) of the frame and all above it, nearest first; stops where a cycle closes."""
        found, T = {frame: np.eye(4)}, np.eye(4)
        while frame in self._above:
            frame, T_parent_frame = self._above[frame]
            if frame in found:
                break
            found[frame] = T = T_parent_frame @ T
        return found


def _plain(frame: str) -> str:
    return frame.lstrip("/")
