# SPDX-License-Identifier: Apache-2.0
"""The numbers behind a run's figures, from its tables alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from vlad_ros import calibration
from vlad_ros.evaluation.metrics import ends_of_ties
from vlad_ros.runs.tables import ClosureTable, KeyframeTable, Run
from vlad_ros.types import F64, Bools, Ints


@dataclass(frozen=True, eq=False)
class EdgeSweep:
    """At each distinct threshold of the probability, from the highest down, (T,) each: the share of the accepted edges
    that is right (precision), and the share of the revisits with a right accepted edge (recall)."""

    threshold: F64
    precision: F64
    recall: F64


def sweep(keyframes: KeyframeTable, closures: ClosureTable) -> EdgeSweep:
    """Over all candidates that have a probability; equal ones are accepted together."""
    known = np.flatnonzero(np.isfinite(closures.probability))
    order = known[np.argsort(-closures.probability[known], kind="stable")]
    probability = closures.probability[order]
    last_of_tie = ends_of_ties(probability)
    right = closures.is_right[order]
    precision = np.cumsum(right) / np.arange(1, len(order) + 1)
    closing = np.zeros(len(order), bool)  # the first right edge of each revisit
    hits = np.flatnonzero(right & keyframes.is_revisit[closures.query[order]])
    closing[hits[np.unique(closures.query[order][hits], return_index=True)[1]]] = True
    recall = np.cumsum(closing) / max(1, int(keyframes.is_revisit.sum()))
    return EdgeSweep(probability[last_of_tie], precision[last_of_tie], recall[last_of_tie])


def near(run: Run) -> Bools:
    """(E,) whether a candidate truly lies within the run's radius of its query; False where poses are not known."""
    position = run.keyframes.T_world_base[:, :3, 3]
    gap = np.linalg.norm(position[run.closures.query] - position[run.closures.match], axis=1)
    return np.asarray(gap <= run.about["configuration"]["judge"]["radius"])


def recall_at(keyframes: KeyframeTable, closures: ClosureTable, score: F64, hit: Bools, most: int) -> F64:
    """(most,): share of the revisits with a `hit` (E,) among the N candidates of highest `score` (E,), N = 1..most."""
    order = np.lexsort((-np.nan_to_num(score, nan=-1.0), closures.query))
    query = closures.query[order]
    first = np.searchsorted(query, query)
    rank = np.full(len(keyframes), most)
    np.minimum.at(rank, query[hit[order]], (np.arange(len(query)) - first)[hit[order]])
    ranks = rank[keyframes.is_revisit]
    return np.array([(ranks < n).mean() if len(ranks) else np.nan for n in range(1, most + 1)])


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """Per non-empty bin of probability, (B,) each: number of candidates, mean predicted probability (`said`), share
    that was right (`true`) and its Wilson 95 % interval; and the expected calibration error over all."""

    count: Ints
    said: F64
    true: F64
    low: F64
    high: F64
    error: float


def reliability(closures: ClosureTable) -> ReliabilityCurve:
    """Over all aligned candidates; the others have no probability."""
    judged = np.flatnonzero(np.isfinite(closures.probability) & np.isfinite(closures.error_m))
    bins, error = calibration.reliability(closures.probability[judged], closures.is_right[judged])
    count = np.array([each.count for each in bins], np.int64)
    said, true = np.array([[each.said, each.true] for each in bins]).reshape(-1, 2).T
    hits = np.round(count * true).astype(int)
    intervals = [binomtest(int(k), int(n)).proportion_ci(method="wilson") for k, n in zip(hits, count, strict=True)]
    low, high = np.array([[each.low, each.high] for each in intervals]).reshape(-1, 2).T
    return ReliabilityCurve(count, said, true, low, high, error)


def aligned_in_bins(closures: ClosureTable) -> tuple[F64, Ints]:
    """Middles of the bins of probability, and the number of aligned candidates in each; needs no truth."""
    said = closures.probability[np.isfinite(closures.T_match_query[:, 0, 0]) & np.isfinite(closures.probability)]
    count, edges = np.histogram(said, bins=calibration.BINS, range=(0.0, 1.0))
    return (edges[1:] + edges[:-1]) / 2, count


def missed(run: Run) -> Ints:
    """Ids of the revisits without a right accepted edge."""
    closed = np.zeros(len(run.keyframes), bool)
    closed[run.closures.query[run.closures.accepted & run.closures.is_right]] = True
    return np.flatnonzero(run.keyframes.is_revisit & ~closed)


def best_rows(closures: ClosureTable, rows: Ints) -> Ints:
    """Of the given rows the most probable one per query; the most similar one where no probability is known."""
    probability = np.nan_to_num(closures.probability[rows], nan=-1.0)
    order = rows[np.lexsort((-closures.similarity[rows], -probability, closures.query[rows]))]
    return order[np.unique(closures.query[order], return_index=True)[1]]


def positions(run: Run) -> tuple[F64, str] | None:
    """(N, 2) x y [m] of the keyframes and where they come from; None where neither truth nor odometry is known."""
    for poses, source in ((run.keyframes.T_world_base, "true poses"), (run.keyframes.T_odom_base, "odometry")):
        if np.isfinite(poses[:, 0, 0]).any():
            return poses[:, :2, 3], source
    return None
