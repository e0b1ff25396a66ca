# SPDX-License-Identifier: Apache-2.0
"""Evidence becomes a probability that keeps its promise, and a refusal says what was lacking."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlad_ros.calibration import AGAINST, FEATURES, GROUPS, Calibration, Logistic, features, refusal, reliability
from vlad_ros.model.weights import load_weights
from vlad_ros.training.calibrate import fit
from vlad_ros.types import Evidence, RejectReason

GOOD = Evidence(0.9, 0.2, 80, 60, 0.8, 0.1, 0.2, 1.0, 0.5)
BAD = {
    RejectReason.LOW_SIMILARITY: {"similarity": -0.9, "margin": -1.5},
    RejectReason.FEW_INLIERS: {"inliers": 6},
    RejectReason.LOW_OVERLAP: {"overlap": 0.0, "residual": 0.5},
    RejectReason.AMBIGUOUS: {"ambiguity": 1.0},
    RejectReason.NO_AGREEMENT: {"agreement": 0.0},
    RejectReason.ODOMETRY_DISAGREES: {"odometry": 40.0},
}


def evidences() -> st.SearchStrategy[Evidence]:
    share = st.floats(0, 1)
    counts = st.integers(0, 200)
    odometry = st.one_of(st.just(math.nan), st.floats(0, 1e6))
    return st.builds(Evidence, st.floats(-1, 1), st.floats(-2, 2), counts, counts, share, share, share, share, odometry)


def even_handed(slope: float = 6.0) -> Calibration:
    """Every group of features pulls alike, by hand: 0.5 halfway between the worst evidence and GOOD."""
    good = features(GOOD)
    worst = good.copy()
    for changes in BAD.values():
        bad = features(dataclasses.replace(GOOD, **changes))
        worst = np.where(bad != good, bad, worst)
    span = np.where(good != worst, good - worst, 1.0)
    pulls = tuple(slope * float(a != b) for a, b in zip(good, worst, strict=True))
    model = Logistic(0.5, pulls, centre=tuple(good), scale=tuple(span), typical=tuple(good))
    return Calibration(model, model)


@given(evidences())
def test_features_and_probability_are_finite_whatever_the_evidence(evidence: Evidence) -> None:
    assert np.isfinite(features(evidence)).all() and len(features(evidence)) == len(FEATURES)
    assert 0.0 <= even_handed().probability(evidence) <= 1.0


def test_loops_without_odometry_have_a_model_of_their_own() -> None:
    known = even_handed()
    other = dataclasses.replace(known.without_odometry, bias=-9.0)
    calibration = dataclasses.replace(known, without_odometry=other)
    assert calibration.probability(GOOD) == known.probability(GOOD) > 0.6
    assert calibration.probability(dataclasses.replace(GOOD, odometry=math.nan)) < 0.01


@pytest.mark.parametrize("reason", GROUPS)
def test_the_reason_is_what_alone_would_have_let_the_loop_pass(reason: RejectReason) -> None:
    calibration = even_handed()
    assert calibration.probability(GOOD) > 0.6
    refused = dataclasses.replace(GOOD, **BAD[reason])
    assert calibration.probability(refused) < 0.5
    assert calibration.reason(refused, 0.5) is reason


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"inliers": 11}, RejectReason.FEW_INLIERS),
        ({"overlap": 0.19}, RejectReason.LOW_OVERLAP),
        ({"ambiguity": 0.75}, RejectReason.AMBIGUOUS),
        ({}, None),
    ],
)
def test_without_odometry_some_loops_prove_nothing(changes: dict[str, float], reason: RejectReason | None) -> None:
    evidence = dataclasses.replace(GOOD, odometry=math.nan, **changes)
    calibration = even_handed(0.0)  # sure of everything
    assert refusal(evidence) is reason
    assert (calibration.probability(evidence) == 0.0) == (reason is not None)
    assert refusal(dataclasses.replace(evidence, odometry=1.0)) is None
    if reason is not None:
        assert calibration.reason(evidence, 0.0) is reason


def test_the_shipped_gate_is_soft() -> None:
    """A loop as the right ones are passes although odometry is off by three times its usual drift, not by far more."""
    shipped = load_weights(None)[1].calibration
    assert shipped is not None
    typical = dict(zip(FEATURES, shipped.with_odometry.typical, strict=True))
    inliers = round(math.expm1(typical["inliers"]))
    loop = dataclasses.replace(
        GOOD,
        **{name: typical[name] for name in ("similarity", "margin", "overlap", "residual", "ambiguity")},
        inliers=inliers,
        matches=round(inliers / typical["inlier_share"]),
    )
    said = [shipped.probability(dataclasses.replace(loop, odometry=off)) for off in (0.0, 1.0, 2.0, 3.0, 8.0, 80.0)]
    assert min(said[:4]) > 0.9 and said[4] == said[5] < 0.9
    assert said == sorted(said, reverse=True)
    refused = dataclasses.replace(loop, odometry=80.0)
    assert shipped.reason(refused, 0.9) is RejectReason.ODOMETRY_DISAGREES


def test_where_no_single_evidence_would_do_all_of_it_is_the_reason() -> None:
    everything = {name: value for changes in BAD.values() for name, value in changes.items()}
    assert even_handed().reason(dataclasses.replace(GOOD, **everything), 0.5) is RejectReason.LOW_PROBABILITY


def simulated(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, whether right, and the probability with which that was drawn."""
    rng = np.random.default_rng(seed)
    values = rng.normal(2.0, 3.0, (count, len(FEATURES)))
    slopes = np.array([-0.3 if name in AGAINST else 0.2 for name in FEATURES])
    true = 1 / (1 + np.exp(-(values - 2.0) @ slopes - 0.4))
    return values, rng.random(count) < true, true


def test_a_fit_finds_the_probabilities_that_the_loops_were_drawn_from() -> None:
    model = fit(*simulated(20_000, 0)[:2])
    values, right, true = simulated(4_000, 1)
    assert np.abs(model.probabilities(values) - true).mean() < 0.02
    curve, error = reliability(model.probabilities(values), right)
    assert error < 0.03 and sum(each.count for each in curve) == 4_000


def test_the_expected_calibration_error_by_hand() -> None:
    right = np.array([True, False, False, False, True])
    curve, error = reliability(np.array([0.75, 0.75, 0.75, 0.75, 1.0]), right)
    assert error == pytest.approx(0.8 * 0.5)
    assert [(bin.count, bin.said, bin.true) for bin in curve] == [(4, 0.75, 0.25), (1, 1.0, 1.0)]


def test_a_fit_needs_right_and_wrong_loops() -> None:
    with pytest.raises(ValueError, match="right and wrong"):
        fit(np.zeros((3, len(FEATURES))), np.ones(3, bool))


def test_what_is_better_than_typical_is_never_the_reason() -> None:
    calibration = even_handed()
    strange = dataclasses.replace(calibration.with_odometry, coefficients=tuple(-w for w in (6.0,) * len(FEATURES)))
    calibration = dataclasses.replace(calibration, with_odometry=strange)  # the better the evidence, the less probable
    better = dataclasses.replace(GOOD, similarity=1.0, inliers=90, overlap=1.0, ambiguity=0.0)
    assert calibration.reason(better, 0.99) is RejectReason.LOW_PROBABILITY


def test_it_survives_the_weights_metadata() -> None:
    values, right, _ = simulated(500, 0)
    model = fit(values, right)
    curve, error = reliability(model.probabilities(values), right)
    calibration = Calibration(model, fit(2 * values, right), curve, error, 500)
    assert Calibration.from_dict(json.loads(json.dumps(calibration.as_dict()))) == calibration
    broken = calibration.as_dict()
    del broken["with_odometry"]["coefficients"]["inliers"]
    with pytest.raises(ValueError, match="inliers"):
        Calibration.from_dict(broken)
