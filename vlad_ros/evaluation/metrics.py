# SPDX-License-Identifier: Apache-2.0
"""Metrics of outcomes: recall@k with bootstrap intervals, F1max, average precision, paired comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from vlad_ros.evaluation.protocols import Outcome
from vlad_ros.types import F64, Bools

RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Sweep:
    """Precision and recall at every distinct acceptance threshold, from the highest similarity down; each (T,)."""

    threshold: F64
    precision: F64
    recall: F64

    @property
    def f1(self) -> F64:
        """(T,) harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / np.where(total > 0, total, 1.0)

    @property
    def f1_max(self) -> float:
        """Largest F1; 0 without candidates."""
        return float(self.f1.max(initial=0.0))

    @property
    def average_precision(self) -> float:
        """Area under the steps: the sum of precision times the recall gained at each threshold."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    @property
    def recall_at_full_precision(self) -> float:
        """Largest recall with no false positive accepted; 0 when the best candidate is wrong."""
        return float(self.recall[self.precision >= 1.0].max(initial=0.0))


def ends_of_ties(scores: F64) -> Bools:
    """(N,) bool: the last of each run of equal `scores` (N,), which are sorted: where a threshold can lie."""
    return np.append(scores[1:] != scores[:-1], True)[: len(scores)]


def sweep(outcome: Outcome) -> Sweep:
    """Accept `similarity >= threshold` over *all* frames that have a candidate.

    A frame without a revisit can only add false positives; a wrong or missing match of a query is a miss. Equal
    similarities are accepted together: no threshold separates them.
    """
    candidates = np.flatnonzero(outcome.best >= 0)
    order = candidates[np.argsort(-outcome.similarity[candidates], kind="stable")]
    similarity = outcome.similarity[order]
    last_of_tie = ends_of_ties(similarity)
    accepted = np.arange(1, len(order) + 1)[last_of_tie]
    true_positives = np.cumsum(outcome.correct()[order])[last_of_tie]
    queries = max(1, int(outcome.is_query.sum()))
    return Sweep(similarity[last_of_tie], true_positives / accepted, true_positives / queries)


def bootstrap(correct: Bools, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean of `correct` (Q,), queries drawn with replacement; (nan, nan) without queries."""
    if len(correct) == 0:
        return float("nan"), float("nan")
    # The mean of a bootstrap sample of n yes/no answers is a binomial draw: the same law without the resampling.
    means = np.random.default_rng(seed).binomial(len(correct), correct.mean(), RESAMPLES) / len(correct)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(a: Bools, b: Bools) -> float:
    """Two-sided exact p of McNemar's test on paired answers (Q,); 1 where the two never differ."""
    if a.shape != b.shape:
        raise ValueError(f"paired answers of different lengths: {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def summarise(outcome: Outcome, ks: tuple[int, ...] = (1, 10), seed: int = 0) -> dict[str, float | int | list[float]]:
    """All metrics of an outcome by name; intervals are `[low, high]`, undefined ones nan."""
    queries = outcome.is_query
    numbers: dict[str, float | int | list[float]] = {"frames": len(queries), "queries": int(queries.sum())}
    for k in ks:
        answers = outcome.correct(k)[queries]
        numbers[f"recall@{k}"] = float(answers.mean()) if len(answers) else float("nan")
        numbers[f"recall@{k}_95"] = list(bootstrap(answers, seed))
    curve = sweep(outcome)
    numbers["F1max"] = curve.f1_max
    numbers["AP"] = curve.average_precision
    numbers["recall@P100"] = curve.recall_at_full_precision
    if outcome.reverse.any():
        answers = outcome.correct()[outcome.reverse]
        numbers["reverse_queries"] = len(answers)
        numbers["reverse_recall@1"] = float(answers.mean())
        numbers["reverse_recall@1_95"] = list(bootstrap(answers, seed))
    return numbers
