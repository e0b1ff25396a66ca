#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What verification is worth: the covariance against true errors, the best candidate by inliers alone, the cost.

    python bench/verification.py --pairs 120     # covariance, on simulated pairs of other seeds than its constants'
    python bench/verification.py --cost          # milliseconds and bytes, on a simulated drive
    python bench/verification.py --rows dev      # real rows that may be looked at freely; reported: once a release

An edge is right within the row's metres and 5 degrees of the poses, wherever the matched frame lies. Rows take, for
each query, the candidate with most inliers of the ten most similar; what is announced is measured by bench/edges.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from edges import ROWS, Asked, Row, causal, drives, sparse
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from vlad_ros.cloud.ground import fit_ground, levelling
from vlad_ros.evaluation import results as report
from vlad_ros.evaluation.edges import RIGHT_DEGREES
from vlad_ros.loops.verification import Verifier
from vlad_ros.model.describer import Describer
from vlad_ros.model.kept_geometry import compact_cloud
from vlad_ros.poses import from_xyz_rpy, inverse
from vlad_ros.simulation.pairs import Pair, make_pairs
from vlad_ros.simulation.routes import make_drive
from vlad_ros.simulation.sensors import spinning
from vlad_ros.types import F32, F64, Geometry

SEEDS = (400, 401)  # single scans, local maps
ELLIPSOID = 12.592  # 95 % of chi squared with 6 degrees of freedom
POSES = {"loop_mid360": 0.04, "kitti00_hdl64": 0.1, "courtyard_livox_avia": 0.3}  # m; the poses' own error
OTHER_POSES = 0.2
POSES_ANGLE = np.radians(0.3)


@dataclass(frozen=True, eq=False)
class Judged:
    """An edge against the truth: the perturbation `d` (6,) that is left, and its normalised square."""

    d: F64
    squared: float

    @property
    def metres(self) -> float:
        return float(np.linalg.norm(self.d[:3]))

    @property
    def degrees(self) -> float:
        return float(np.degrees(np.linalg.norm(self.d[3:])))


def judge(T: F64, C: F64, T_true: F64) -> Judged:
    """The error d of T_true = exp(d) T, weighed with the covariance."""
    D = T_true @ inverse(T)
    d = np.concatenate([D[:3, 3], Rotation.from_matrix(D[:3, :3]).as_rotvec()])
    return Judged(d, float(d @ np.linalg.solve(C, d)))


def keep(points: F32) -> Geometry:
    """A keyframe's geometry without keypoints."""
    T = np.eye(4)
    T[:3, :3], ground = levelling(fit_ground(points))
    T[2, 3] = -ground
    return Geometry(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.int8), compact_cloud(points, T), T)


def consistency(count: int) -> None:
    """The normalised squared error by kind of scene, distance and density; 6 is honest."""
    rng, verifier = np.random.default_rng(9), Verifier()
    rows: list[tuple[Pair, int, Judged]] = []
    for seed, maps in zip(SEEDS, (False, True), strict=True):
        for pair in tqdm(make_pairs(count, seed, maps), total=count, unit="pair", leave=False):
            query, match = keep(pair.query), keep(pair.match)
            off = rng.normal(0, [0.2, 0.2, 0.03, 0.003, 0.003, 0.012])  # as keypoints leave it
            refined = verifier.refine(query, match, from_xyz_rpy(tuple(off)) @ pair.T_match_query)
            edge = judge(refined.T_match_query, refined.covariance, pair.T_match_query)
            rows.append((pair, min(len(query.cloud), len(match.cloud)), edge))
    right = [row for row in rows if row[2].metres <= 1.0 and row[2].degrees <= RIGHT_DEGREES]
    print(f"{len(rows)} simulated pairs, {len(right)} registered within 1 m and {RIGHT_DEGREES:g} degrees; of those:")
    print("| | pairs | m p50 / p95 | deg p50 / p95 | squared error, mean | inside 95 % |\n|---|---|---|---|---|---|")
    bins = {
        "all": lambda pair, n: True,
        **{kind: (lambda pair, n, kind=kind: pair.kind == kind) for kind in sorted({row[0].kind for row in rows})},
        "single scans": lambda pair, n: not pair.is_map,
        "local maps": lambda pair, n: pair.is_map,
        "0..2 m": lambda pair, n: pair.distance < 2,
        "2..4 m": lambda pair, n: 2 <= pair.distance < 4,
        "4..8 m": lambda pair, n: pair.distance >= 4,
        "< 2000 points kept": lambda pair, n: n < 2000,
        "2000..2800": lambda pair, n: 2000 <= n < 2800,
        "> 2800": lambda pair, n: n >= 2800,
    }
    for name, belongs in bins.items():
        edges = [edge for pair, n, edge in right if belongs(pair, n)]
        if edges:
            print(f"| {name} | {numbers(edges)} |")


def numbers(edges: list[Judged]) -> str:
    """Cells: how many, errors, squared error, share inside the 95 % ellipsoid."""
    metres, degrees, squared = (
        np.array([getattr(e, name) for e in edges]) for name in ("metres", "degrees", "squared")
    )
    m50, m95, d50, d95 = *np.quantile(metres, [0.5, 0.95]), *np.quantile(degrees, [0.5, 0.95])
    inside = np.mean(squared < ELLIPSOID)
    return f"{len(edges)} | {m50:.3f} / {m95:.3f} | {d50:.2f} / {d95:.2f} | {squared.mean():.1f} | {inside:.2f}"


def cost(describer: Describer) -> None:
    """Milliseconds of ten candidates, met for the first time and with their clouds ready, and bytes a keyframe."""
    drive = make_drive("street", 31, sensor=spinning(32, 512), length=100.0, revisits=("opposite",), shape="line")
    kept, adding = [], []
    for scan in tqdm(drive.scans[:: max(1, len(drive) // 60)], unit="scan", leave=False):
        bev = describer.rasterize(scan)
        description = describer.describe_all(bev)
        began = time.perf_counter()
        kept.append(describer.geometry(bev, description, scan))
        adding.append(time.perf_counter() - began)
    cold, warm = [], []
    for query in kept[-20:]:
        verifier = Verifier()
        for times in (cold, warm):
            began = time.perf_counter()
            for match in kept[:10]:
                verifier.verify(query, match)
            times.append(time.perf_counter() - began)
    size = [geometry.nbytes for geometry in kept]
    print(f"{max(size)} bytes a keyframe at most, {np.mean(size):.0f} on average, made in {ms(adding)}")
    print(f"ten candidates: {ms(cold)} all new, {ms(warm)} with their clouds ready (medians)")


def ms(seconds: list[float]) -> str:
    return f"{1e3 * float(np.median(seconds)):.1f} ms"


def measure(row: Row, asked: list[Asked]) -> str:
    """Cells of a row: recall@1 before and after, right edges, and the numbers of the best candidates' right edges."""
    before, after, found, edges = [], [], [], []
    poses = np.diag(np.square([POSES.get(row.sequence, OTHER_POSES)] * 3 + [POSES_ANGLE] * 3))
    for one in (one for one in asked if one.is_query):
        verified = [c for c in one.closures if c.evidence is not None]
        first = max(one.closures, key=lambda c: c.similarity, default=None)
        best = max(verified, key=lambda c: c.evidence.inliers if c.evidence else 0, default=None)
        before.append(first is not None and first.match_stamp in one.near)
        after.append(best is not None and best.match_stamp in one.near)
        found.append(False)
        if best is not None and best.T_match_query is not None and best.covariance is not None:
            T_true = inverse(one.poses[best.match_stamp]) @ one.poses[best.query_stamp]
            edge = judge(best.T_match_query, best.covariance + poses, T_true)
            found[-1] = edge.metres <= row.right and edge.degrees <= RIGHT_DEGREES
            edges += [edge] if found[-1] else []
    means = " | ".join(f"{np.mean(values):.3f}" for values in (before, after, found))
    return f"{len(before)} | {means} | {numbers(edges) if edges else ''}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=0, help="simulated pairs, single scans and as many local maps")
    parser.add_argument("--cost", action="store_true", help="measure time and memory")
    parser.add_argument("--rows", choices=tuple(ROWS), help="measure the rows of bench/edges.py")
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument("--weights", help="weights file; the shipped ones when left out")
    args = parser.parse_args()
    if args.rows in ("dev", "reported") and not os.environ.get("VLAD_DATA"):
        print("verification: VLAD_DATA must name the folder with the sequences", file=sys.stderr)
        return 2
    print(f"commit {report.commit()}")
    if args.pairs:
        consistency(args.pairs)
    if not (args.cost or args.rows):
        return 0
    describer, metadata = Describer.from_pretrained(args.weights)
    if args.cost:
        cost(describer)
    if not args.rows:
        return 0
    if metadata.calibration is None:
        print("verification: these weights have no calibration; make one with vlad calibrate", file=sys.stderr)
        return 2
    print(
        "| row | odometry | queries | recall@1 before | after | right | edges | m | deg | squared error | inside 95 % |"
    )
    print("|---" * 11 + "|")
    for row in (row for row in ROWS[args.rows] if args.only in row.sequence):
        asked: list[Asked] = []
        for seed, drive in enumerate(drives(row)):
            calibration = metadata.calibration
            asked += (
                sparse(describer, calibration, row, drive)
                if row.stride
                else causal(describer, calibration, row, drive, seed)
            )
        print(f"| {row.sequence} | {'none' if row.drift is None else row.drift} | {measure(row, asked)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
