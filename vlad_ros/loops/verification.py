# SPDX-License-Identifier: Apache-2.0
"""Whether two keyframes show the same place, and the transform between them.

Keypoints are matched by features and aligned in the plane for any yaw; GICP (Segal et al., 2009; small_gicp,
Koide, 2024) then refines the transform on the points, in all six degrees of freedom.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import small_gicp

from vlad_ros.loops.covariance import covariance
from vlad_ros.loops.keypoint_alignment import Alignment, align, match_features
from vlad_ros.model.kept_geometry import GROUND
from vlad_ros.poses import inverse, rotation_angle, transform
from vlad_ros.stopwatch import stage
from vlad_ros.types import F64, Bools, Geometry, Ints, Verification

PREPARED = 32  # clouds kept ready for registration
MIN_POINTS = 20
NEIGHBOURS = 10  # from which a point's covariance is estimated
LYING = 0.8  # cosine between up and the normals of what does not stand
ROUNDS = ((1.0, 0.03, 0.4, 6), (0.5, 0.003, 0.1, 8))  # of registration: m, longest correspondence (longer ones are
# drawn to moved objects), m and degrees of a step at convergence, steps at most
NEAR = 0.5  # m; a point this near to the other cloud lies on it
SLIDES = (3.0, 5.0)  # m; a place that looks the same after such a shift (a corridor, a row of trees) is ambiguous
SLID_POINTS = 100  # points that are shifted
FARTHEST = 3.0  # m the registration may move the query from where the keypoints put it

_TURNS = np.arange(12) * math.pi / 6
_AROUND = np.stack([np.cos(_TURNS), np.sin(_TURNS), np.zeros(12)], axis=1)
SHIFTS = np.concatenate([np.zeros((1, 3)), *(metres * _AROUND for metres in SLIDES)])  # (25, 3) [m], the first is none


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A cloud ready for registration: `points`, `normals` (N, 3) float64 [m] in the body frame, normals zero where
    there is none; `standing` (N,): neither ground nor ceiling, which overlap at any shift."""

    points: F64
    normals: F64
    standing: Bools
    cloud: Any
    tree: Any


class _Nearest(NamedTuple):
    """For each point of one cloud the nearest point of the other, and the distance [m]."""

    row: Ints
    distance: F64


class Refined(NamedTuple):
    """`T_match_query` (4, 4) and its `covariance` (6, 6); `overlap` and `residual` [m] as in `Verification`; `slides`:
    the share of the overlap that is left after the best shift by some metres, 0..1."""

    T_match_query: F64
    covariance: F64
    overlap: float
    residual: float
    slides: float


class Verifier:
    """Verifies loops; keeps the last clouds ready, so that the candidates of consecutive keyframes cost less."""

    def __init__(self, threads: int = 2) -> None:
        self._threads = threads
        self._prepared: OrderedDict[int, tuple[Geometry, _Prepared]] = OrderedDict()

    @stage("verify")
    def verify(self, query: Geometry, match: Geometry) -> Verification:
        """The transform between two keyframes and its evidence; never raises for poor geometry."""
        matches = match_features(query.features, match.features)
        found = align(query.keypoints, match.keypoints, matches)
        if found is None or min(len(query.cloud), len(match.cloud)) < MIN_POINTS:
            nothing = np.zeros(len(matches.pairs), bool)
            return Verification(None, None, len(matches.pairs), 0, 0.0, 0.0, 1.0, matches.pairs, nothing)
        start = inverse(match.T_level_body) @ _in_plane(found) @ query.T_level_body
        refined = self.refine(query, match, start)
        return Verification(
            T_match_query=refined.T_match_query,
            covariance=refined.covariance,
            matches=len(matches.pairs),
            inliers=int(found.is_inlier.sum()),
            overlap=refined.overlap,
            residual=refined.residual,
            ambiguity=max(found.ambiguity, refined.slides),
            pairs=matches.pairs,
            is_inlier=found.is_inlier,
        )

    def refine(self, query: Geometry, match: Geometry, T_match_query: F64) -> Refined:
        """Register the points from an initial `T_match_query` (4, 4), accurate to half a metre and a few degrees."""
        a, b = self._prepare(query), self._prepare(match)
        T, unsettled = self._register(a, b, T_match_query)
        moved = transform(a.points, T)
        forth, back = self._nearest(moved, b), self._nearest(transform(b.points, inverse(T)), a)
        overlap = min(_share(forth, a.standing), _share(back, b.standing))
        residual = _residual(forth.distance[a.standing], back.distance[b.standing])
        points, normals, distances = _on_surfaces(moved, b, forth)
        C = covariance(points, normals, distances, overlap, unsettled)
        return Refined(T, C, overlap, residual, self._slides(moved[a.standing], b, _weakest(normals)))

    def _prepare(self, geometry: Geometry) -> _Prepared:
        key = id(geometry)
        if key not in self._prepared:
            points = geometry.points.astype(np.float64)
            cloud = small_gicp.PointCloud(points)
            tree = small_gicp.KdTree(cloud)
            small_gicp.estimate_normals_covariances(cloud, tree, NEIGHBOURS, self._threads)
            normals = np.array(cloud.normals())[:, :3]
            up, above = geometry.T_level_body[2, :3], geometry.T_level_body[2, 3]
            standing = (points @ up + above >= GROUND) & (np.abs(normals @ up) < LYING)
            self._prepared[key] = geometry, _Prepared(points, normals, standing, cloud, tree)
            if len(self._prepared) > PREPARED:
                self._prepared.popitem(last=False)
        self._prepared.move_to_end(key)
        return self._prepared[key][1]

    def _register(self, query: _Prepared, match: _Prepared, start: F64) -> tuple[F64, tuple[float, float]]:
        """T_match_query and how far [m, rad] the last round moved it; the initial one where it diverges.

        The match is registered onto the query, so that many matches share one search tree.
        """
        rounds = [inverse(start)]
        for reach, metres, degrees, steps in ROUNDS:
            result = small_gicp.align(
                query.cloud,
                match.cloud,
                query.tree,
                rounds[-1],
                registration_type="GICP",
                max_correspondence_distance=reach,
                num_threads=self._threads,
                translation_epsilon=metres,
                rotation_epsilon=math.radians(degrees),
                max_iterations=steps,
            )
            rounds.append(np.asarray(result.T_target_source, np.float64))
        T = inverse(rounds[-1])
        if not np.all(np.isfinite(T)) or np.linalg.norm(T[:3, 3] - start[:3, 3]) > FARTHEST:
            return start, (FARTHEST, FARTHEST / 10)
        last = T @ rounds[-2]
        return T, (float(np.linalg.norm(last[:3, 3])), rotation_angle(last))

    def _slides(self, standing: F64, match: _Prepared, axis: F64) -> float:
        """How much of the overlap of the query's `standing` points is left when they are shifted, at best: along
        `axis` (2,) and every 30 degrees from it."""
        some = standing[:: max(1, len(standing) // SLID_POINTS)]
        shifts = SHIFTS @ np.array([[axis[0], axis[1], 0.0], [-axis[1], axis[0], 0.0], [0.0, 0.0, 1.0]])
        shifted = (some + shifts[:, None]).reshape(-1, 3)
        squared = match.tree.batch_nearest_neighbor_search(shifted, self._threads)[1] if len(some) else []
        here, *elsewhere = (np.asarray(squared).reshape(len(shifts), -1) < NEAR**2).sum(axis=1)
        return min(1.0, float(max(elsewhere) / here)) if here else 1.0

    def _nearest(self, points: F64, other: _Prepared) -> _Nearest:
        rows, squared = other.tree.batch_nearest_neighbor_search(points, self._threads)
        return _Nearest(np.asarray(rows, np.int64), np.sqrt(np.asarray(squared, np.float64)))


def _in_plane(found: Alignment) -> F64:
    """(4, 4) between the levelled frames."""
    T = np.eye(4)
    c, s = math.cos(found.yaw), math.sin(found.yaw)
    T[:2, :2] = [[c, -s], [s, c]]
    T[:2, 3] = found.x, found.y
    return T


def _weakest(normals: F64) -> F64:
    """The direction (2,) in x y that `normals` (N, 3) constrain least."""
    return np.asarray(np.linalg.eigh(normals[:, :2].T @ normals[:, :2])[1][:, 0])


def _share(nearest: _Nearest, standing: Bools) -> float:
    """The share of the standing points that lie on the other cloud."""
    return float((nearest.distance[standing] < NEAR).mean()) if standing.any() else 0.0


def _residual(*distances: F64) -> float:
    """The median [m] of the distances of points that lie on the other cloud."""
    both = np.concatenate(distances)
    both = both[both < NEAR]
    return float(np.median(both)) if len(both) else NEAR


def _on_surfaces(moved: F64, match: _Prepared, forth: _Nearest) -> tuple[F64, F64, F64]:
    """Of the query's points `moved` (N, 3) into the match's frame those near to its surfaces, the surfaces' normals and
    the signed distances [m] along them."""
    normals = match.normals[forth.row]
    near = (forth.distance < NEAR) & (np.abs(normals).sum(axis=1) > 0)
    points, normals = moved[near], normals[near]
    return points, normals, ((match.points[forth.row[near]] - points) * normals).sum(axis=1)
