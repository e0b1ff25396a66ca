# SPDX-License-Identifier: Apache-2.0
"""Whether candidates of the fleet show the vehicle's place: each session is a small map, asked as any other."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vlad_ros.calibration import Calibration
from vlad_ros.config import RecognizerConfig
from vlad_ros.fleet.names import Key
from vlad_ros.fleet.packed import Packed, unpack
from vlad_ros.loops.standing import StandingSearch, believed
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.types import F64, Keyframe

ASKING = 1  # the session of the one who asks, in a map with the other's alone


class Found(NamedTuple):
    """Where the vehicle was in another's session: the keyframe of it that is nearest, with its travel [m]."""

    key: Key
    travel: float | None


class FleetVerifier:
    """`new_map` makes an empty database of the vehicle's make. What is believed is what `StandingSearch` believes of a
    single scan; `faults`: a sentence for each candidate that cannot be used."""

    def __init__(
        self, calibration: Calibration, config: RecognizerConfig, new_map: Callable[[], KeyframeDatabase]
    ) -> None:
        self._search = StandingSearch(calibration, config)
        self._new_map = new_map
        self.faults: list[str] = []

    def found(self, query: Keyframe, candidates: Sequence[Packed]) -> Iterator[Found]:
        """The place in each session where `query` was taken, if it is believed. `candidates` are sorted by session and
        stamp."""
        for _, own in itertools.groupby(candidates, key=lambda packed: packed.key[:2]):
            if (found := self._in_session(query, list(own))) is not None:
                yield found

    def _in_session(self, query: Keyframe, candidates: list[Packed]) -> Found | None:
        with contextlib.closing(self._new_map()) as small:
            rows: list[tuple[Packed, F64]] = []
            for packed in candidates:
                try:
                    keyframe = unpack(packed, small.dim, 0)
                    check_alike(query, keyframe)
                    small.add(keyframe)
                except ValueError as error:
                    self.faults.append(f"keyframe {packed.key} of the fleet is left out: {error}")
                else:
                    if keyframe.T_odom_base is not None:
                        rows.append((packed, keyframe.T_odom_base))
            guess = believed(self._search.guesses(dataclasses.replace(query, session=ASKING), small))
        if guess is None:
            return None
        T = guess.pose.T_map_base
        nearest, _ = min(rows, key=lambda row: float(np.linalg.norm(row[1][:3, 3] - T[:3, 3])))
        return Found(nearest.key, nearest.travel)


def check_alike(query: Keyframe, other: Keyframe) -> None:
    """ValueError where the features of two keyframes cannot be compared."""
    sizes = [one.geometry.features.shape[1] for one in (query, other) if one.geometry is not None]
    if len(set(sizes)) > 1:
        raise ValueError(f"its features have {sizes[1]} channels, not {sizes[0]}")
