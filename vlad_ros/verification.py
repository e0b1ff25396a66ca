# SPDX-License-Identifier: Apache-2.0
"""Whether two keyframes show the same place, and where the one lies in the other.

Keypoints' features are matched and aligned in the plane, whatever the yaw; GICP (Segal et al., 2009; small_gicp,
Koide, 2024) takes it from there on the points, in all six degrees of freedom.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import small_gicp

from vlad_ros.alignment import Alignment, Ints, align, mutual_matches
from vlad_ros.geometry import inverse, transform
from vlad_ros.types import F64, Geometry, Verification

PREPARED = 32  # clouds kept ready for registration
MIN_POINTS = 20
NEIGHBOURS = 10  # that a point's covariance is estimated from
REACH = (1.5, 0.75)  # m; correspondences of the two rounds of registration
NEAR = 0.6  # m; a point this near to the other cloud lies on it
FARTHEST = 3.0  # m the registration may move the query from where the keypoints put it


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A cloud ready for registration; `points` (N, 3) float64 [m] in the body frame."""

    points: F64
    cloud: Any
    tree: Any


def _nothing(pairs: Ints) -> Verification:
    return Verification(None, None, len(pairs), 0, 0.0, 0.0, 1.0, pairs, np.zeros(len(pairs), bool))


class Verifier:
    """Verifies loops; keeps the last clouds ready, so that the candidates of consecutive keyframes cost less."""

    def __init__(self, threads: int = 2) -> None:
        self._threads = threads
        self._prepared: OrderedDict[int, tuple[Geometry, _Prepared]] = OrderedDict()

    def verify(self, query: Geometry, match: Geometry) -> Verification:
        """The transform between two keyframes and what speaks for it; never raises for poor geometry."""
        pairs, _ = mutual_matches(query.features, match.features)
        found = align(query.keypoints[pairs[:, 0]].astype(np.float64), match.keypoints[pairs[:, 1]].astype(np.float64))
        if found is None or min(len(query.cloud), len(match.cloud)) < MIN_POINTS:
            return _nothing(pairs)
        start = inverse(match.T_level_body) @ _in_plane(found) @ query.T_level_body
        a, b = self._prepare(query), self._prepare(match)
        T, H = self._register(a, b, start)
        overlap, residual = self._overlap(a, b, T)
        inliers = int(found.is_inlier.sum())
        covariance = np.linalg.inv(H + np.diag([1e-2] * 6))
        ambiguity = min(1.0, found.second / inliers)
        return Verification(T, covariance, len(pairs), inliers, overlap, residual, ambiguity, pairs, found.is_inlier)

    def _prepare(self, geometry: Geometry) -> _Prepared:
        key = id(geometry)
        if key in self._prepared:
            self._prepared.move_to_end(key)
            return self._prepared[key][1]
        points = geometry.points.astype(np.float64)
        cloud = small_gicp.PointCloud(points)
        tree = small_gicp.KdTree(cloud)
        small_gicp.estimate_normals_covariances(cloud, tree, NEIGHBOURS, self._threads)
        self._prepared[key] = geometry, _Prepared(points, cloud, tree)
        if len(self._prepared) > PREPARED:
            self._prepared.popitem(last=False)
        return self._prepared[key][1]

    def _register(self, query: _Prepared, match: _Prepared, start: F64) -> tuple[F64, F64]:
        """T_match_query and the Hessian of a perturbation on the match's side, x y z roll pitch yaw.

        The match is registered onto the query: the library perturbs its source, so that is the match's side.
        """
        T_query_match, H = inverse(start), np.zeros((6, 6))
        for reach in REACH:
            result = small_gicp.align(
                query.cloud,
                match.cloud,
                query.tree,
                T_query_match,
                registration_type="GICP",
                max_correspondence_distance=reach,
                num_threads=self._threads,
                max_iterations=10,
            )
            T_query_match, H = result.T_target_source, result.H
        T = inverse(T_query_match)
        moved = T @ inverse(start)
        if not np.all(np.isfinite(T)) or np.linalg.norm(moved[:3, 3]) > FARTHEST:
            return start, np.zeros((6, 6))
        order = [3, 4, 5, 0, 1, 2]
        return T, np.asarray(H)[np.ix_(order, order)]

    def _overlap(self, query: _Prepared, match: _Prepared, T: F64) -> tuple[float, float]:
        """The smaller share of points that lie on the other cloud, and the median distance of those."""
        shares, distances = [], []
        for tree, points in (
            (match.tree, transform(query.points, T)),
            (query.tree, transform(match.points, inverse(T))),
        ):
            squared = np.asarray(tree.batch_nearest_neighbor_search(points, self._threads)[1])
            near = squared < NEAR**2
            shares.append(float(near.mean()))
            distances.append(np.sqrt(squared[near]))
        both = np.concatenate(distances)
        return min(shares), float(np.median(both)) if len(both) else NEAR


def _in_plane(found: Alignment) -> F64:
    """(4, 4) between the levelled frames."""
    T = np.eye(4)
    c, s = math.cos(found.yaw), math.sin(found.yaw)
    T[:2, :2] = [[c, -s], [s, c]]
    T[:2, 3] = found.x, found.y
    return T
