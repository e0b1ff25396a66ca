# SPDX-License-Identifier: Apache-2.0
"""The data that the stages exchange."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
PathLike = str | os.PathLike[str]
Bar = Callable[[list[int]], Iterable[int]]  # shows how far a loop over these has come; `iter` shows nothing

POINT_SCALE = 0.005  # m per integer of a stored cloud


class RejectReason(enum.IntEnum):
    """Why a candidate was not accepted. Values are append-only: recorded bags contain them."""

    NONE = 0
    LOW_SIMILARITY = 1  # the places look less alike than loops do, or others look as much alike
    NO_GEOMETRY = 2  # one of the two keyframes has no keypoints or no points to verify with
    NO_ALIGNMENT = 3  # no transform aligns more keypoints than chance would
    LOW_OVERLAP = 4  # the aligned clouds cover too little of each other, or lie too far apart where they do
    AMBIGUOUS = 5  # a clearly different transform is nearly as good
    ODOMETRY_DISAGREES = 6  # far from where odometry puts it, and not strong enough to override that
    LOW_PROBABILITY = 7  # the probability from all evidence is below min_probability
    OUT_OF_TIME = 8  # the budget of this keyframe ended before its turn
    FEW_INLIERS = 9  # too few of the matched keypoints agree
    NO_AGREEMENT = 10  # the loops of the previous keyframes disagree, or there are none
    ENOUGH = 11  # not verified: this keyframe has max_edges accepted loops
    REDUNDANT = 12  # verified and probable, but too near to an accepted one to be needed

    @property
    def words(self) -> str:
        """The reason in human-readable form."""
        return _WORDS[self]


_WORDS = {
    RejectReason.NONE: "accepted",
    RejectReason.LOW_SIMILARITY: "the places look less alike than loops do, or others look as much alike",
    RejectReason.NO_GEOMETRY: "one of the two has no keypoints or points to verify it with",
    RejectReason.NO_ALIGNMENT: "no transform brings more keypoints together than chance",
    RejectReason.LOW_OVERLAP: "the aligned clouds cover too little of each other, or lie too far apart",
    RejectReason.AMBIGUOUS: "a clearly different transform fits nearly as well",
    RejectReason.ODOMETRY_DISAGREES: "it lies farther from where odometry puts it than drift explains",
    RejectReason.LOW_PROBABILITY: "all evidence together is less sure than min_probability",
    RejectReason.OUT_OF_TIME: "verification_budget was spent before its turn",
    RejectReason.FEW_INLIERS: "too few of the matched keypoints agree",
    RejectReason.NO_AGREEMENT: "the loops of the keyframes before say something else, or nothing",
    RejectReason.ENOUGH: "not verified, for enough loops of this keyframe are accepted",
    RejectReason.REDUNDANT: "probable, but an accepted loop leads to the same place",
}


@dataclass(frozen=True, eq=False)
class Geometry:
    """What a keyframe keeps so that its loops can be verified, compact in memory as on disk.

    `keypoints` (K, 2) float32 x y [m] in the levelled frame, best first; `features` (K, C) int8, the unit features
    times 127; `cloud` (N, 3) int16, the thinned points in the body frame times 1 / POINT_SCALE; `T_level_body` (4, 4)
    float64, from the body into the levelled frame, whose z is the height above the fitted ground.
    """

    keypoints: F32
    features: npt.NDArray[np.int8]
    cloud: npt.NDArray[np.int16]
    T_level_body: F64

    @property
    def points(self) -> F32:
        """(N, 3) float32 [m] in the body frame."""
        return self.cloud.astype(np.float32) * np.float32(POINT_SCALE)

    @property
    def is_empty(self) -> bool:
        """Whether there are no keypoints or no points to verify with."""
        return not len(self.keypoints) or not len(self.cloud)

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self.keypoints.nbytes + self.features.nbytes + self.cloud.nbytes + self.T_level_body.nbytes


@dataclass(frozen=True, eq=False)
class Verification:
    """What the geometry of two keyframes says about a loop between them.

    `T_match_query` (4, 4) and its `covariance` (6, 6) are None where nothing aligns. `matches`: mutual nearest
    features; `inliers`: those that the transform brings together; `overlap`: the share of the points of each cloud
    that lie on the other, the smaller of both directions; `residual` [m]: the median distance of those; `ambiguity`:
    inliers of the best clearly different transform over `inliers`, 1 where nothing aligns. `pairs` (matches, 2) int:
    keypoint of the query, of the match; `is_inlier` (matches,) bool.
    """

    T_match_query: F64 | None
    covariance: F64 | None
    matches: int
    inliers: int
    overlap: float
    residual: float
    ambiguity: float
    pairs: npt.NDArray[np.int64]
    is_inlier: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Evidence:
    """The numbers from which the probability of a loop is computed.

    `margin`: similarity over that of the best candidate elsewhere; `agreement`: the share of the last keyframes' loops
    that say the same; `odometry`: distance from where odometry puts the loop, in standard deviations of its drift, NaN
    where that is not known. The others are those of `Verification`.
    """

    similarity: float
    margin: float
    matches: int
    inliers: int
    overlap: float
    residual: float
    ambiguity: float
    agreement: float
    odometry: float


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A described place.

    `descriptor` (D,) float32 is the local map's where `is_local_map`, else the single scan's; `scan_descriptor` (D,)
    is the single scan's, so that a map answers both kinds of query; with a local map it may be None. `T_odom_base`
    (4, 4) float64 and `travel` [m along the session] are None without odometry. `partial`: the local map covers less
    than half of its window.
    `geometry` belongs to the local map where there is one, else to the single scan.
    """

    session: int
    stamp: int
    descriptor: F32
    scan_descriptor: F32 | None
    is_local_map: bool = False
    partial: bool = False
    T_odom_base: F64 | None = None
    travel: float | None = None
    geometry: Geometry | None = None


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

    Stamps are integer nanoseconds. The 6x6 `covariance` is in the order x y z roll pitch yaw, of a perturbation on the
    match's side. `T_match_query`, `covariance` and `evidence` are None where the candidate could not be verified.
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
    evidence: Evidence | None = None
