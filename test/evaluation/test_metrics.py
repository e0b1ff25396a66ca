# SPDX-License-Identifier: Apache-2.0
"""The numbers against brute force and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap

from vlad_ros.evaluation import metrics
from vlad_ros.evaluation.protocols import NO_HIT, Outcome


def outcome(similarity: list[float], correct: list[bool], is_query: list[bool] | None = None) -> Outcome:
    """Frames with a best candidate of this similarity; right answers, and which frames are queries."""
    right = np.array(correct, bool)
    queries = right | np.array(is_query if is_query is not None else correct, bool)
    return Outcome(
        is_query=queries,
        best=np.where(np.isfinite(similarity), 0, -1),
        similarity=np.array(similarity, float),
        rank=np.where(right, 0, np.where(queries, 5, NO_HIT)),
        reverse=np.zeros(len(right), bool),
    )


def test_a_small_case_by_hand() -> None:
    """Accepted in order: right, wrong (no query), right; one query of three missed."""
    numbers = metrics.summarise(
        outcome([0.9, 0.8, 0.7, -np.inf], [True, False, True, False], [True, False, True, True])
    )
    assert numbers["queries"] == 3
    assert numbers["recall@1"] == pytest.approx(2 / 3)
    assert numbers["recall@10"] == pytest.approx(1.0)
    assert numbers["F1max"] == pytest.approx(2 / 3)
    assert numbers["AP"] == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    assert numbers["recall@P100"] == pytest.approx(1 / 3)


def test_equal_similarities_enter_together() -> None:
    """Whatever their order, a tie of one right and one wrong answer never shows full precision."""
    for correct in ([True, False], [False, True]):
        curve = metrics.sweep(outcome([0.5, 0.5], correct))
        np.testing.assert_array_equal(curve.precision, [0.5])
        assert curve.recall_at_full_precision == 0.0


def test_nothing_at_all() -> None:
    numbers = metrics.summarise(outcome([-np.inf], [False]))
    assert np.isnan(numbers["recall@1"]) and numbers["F1max"] == 0 and numbers["AP"] == 0


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_the_sweep_equals_brute_force(rows: list[tuple[int, bool, bool]]) -> None:
    similarity = [float(row[0]) for row in rows]
    answers = outcome(similarity, [row[1] for row in rows], [row[2] for row in rows])
    curve = metrics.sweep(answers)
    for threshold, precision, recall in zip(curve.threshold, curve.precision, curve.recall, strict=True):
        accepted = [i for i, s in enumerate(similarity) if s >= threshold]
        right = sum(bool(answers.correct()[i]) for i in accepted)
        assert precision == pytest.approx(right / len(accepted))
        assert recall == pytest.approx(right / max(1, int(answers.is_query.sum())))
    assert sorted(set(similarity), reverse=True) == curve.threshold.tolist()
    assert 0 <= curve.average_precision <= 1 and 0 <= curve.recall_at_full_precision <= 1


def test_the_interval_equals_scipy_s_bootstrap() -> None:
    correct = np.arange(300) % 5 != 0
    low, high = metrics.bootstrap(correct, seed=1)
    other = scipy_bootstrap((correct.astype(float),), np.mean, method="percentile", random_state=1).confidence_interval
    assert low == pytest.approx(other.low, abs=0.01) and high == pytest.approx(other.high, abs=0.01)
    assert metrics.bootstrap(correct, seed=1) == (low, high)


def test_mcnemar_counts_only_what_differs() -> None:
    """7 of 7 differing answers for one side: p = 2 / 2^7, exactly; agreement adds nothing."""
    a = np.array([True] * 7 + [True] * 50 + [False] * 9)
    b = np.array([False] * 7 + [True] * 50 + [False] * 9)
    assert metrics.mcnemar(a, b) == pytest.approx(2 / 2**7)
    assert metrics.mcnemar(b, a) == metrics.mcnemar(a, b)
    assert metrics.mcnemar(a, a) == 1.0
    with pytest.raises(ValueError, match="different lengths"):
        metrics.mcnemar(a, b[1:])
