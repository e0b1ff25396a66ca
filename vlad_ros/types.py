# SPDX-License-Identifier: Apache-2.0
"""What the stages hand to each other."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


class RejectReason(enum.IntEnum):
    """Why a candidate was not accepted. Values are append-only: they are in people's bags."""

    NONE = 0
    LOW_SIMILARITY = 1


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A described place.

    `descriptor` (D,) float32 is the local map's where `is_local_map`, else the single scan's; `scan_descriptor` (D,)
    is always the single scan's, so that a map answers both kinds of query. `T_odom_base` (4, 4) float64 and `travel`
    [m along the session] are None without odometry. `partial`: the local map covers less than half of its window.
    """

    session: int
    stamp: int
    descriptor: F32
    scan_descriptor: F32
    is_local_map: bool = False
    partial: bool = False
    T_odom_base: F64 | None = None
    travel: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A row of the database that looks like the query; similarity is the inner product of unit descriptors."""

    id: int
    session: int
    stamp: int
    similarity: float


@dataclass(frozen=True, eq=False)
class LoopClosure:
    """A candidate loop edge: `T_match_query` (4, 4) maps points of the query's body frame into the match's.

    Stamps are integer nanoseconds. `probability`, `T_match_query` and the 6x6 `covariance` (x y z roll pitch yaw, a
    perturbation on the match's side) are None until the candidate is verified.
    """

    query_id: int
    match_id: int
    query_session: int
    match_session: int
    query_stamp: int
    match_stamp: int
    similarity: float
    probability: float | None = None
    T_match_query: F64 | None = None
    covariance: F64 | None = None
    accepted: bool = False
    reject_reason: RejectReason = RejectReason.NONE
