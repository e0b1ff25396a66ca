# SPDX-License-Identifier: Apache-2.0
"""The probability that a verified loop is right: logistic regression over its evidence, fitted on simulated drives.

A logistic model outputs a probability by construction; how accurate that is, is measured on drives it was not
fitted on (reliability curve and expected calibration error; Guo et al., ICML 2017) and kept beside it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from vlad_ros.types import F64, Evidence, RejectReason

# Limits without odometry, where nothing else compensates and simulated worlds are too regular to learn them from: few
# inliers occur where real walls and hedges look alike, rows of real trees match after a shift, and distant poles match
# while little else does (chosen on the development rows)
FEWEST_INLIERS, MOST_AMBIGUOUS, LEAST_OVERLAP = 12, 0.75, 0.2
MOST_ODOMETRY = 8.0  # standard deviations; larger odometry distances count as this one
BINS = 10  # of the reliability curve
MODELS = ("with_odometry", "without_odometry")
AGAINST = ("residual", "ambiguity", "odometry")  # high values count against a loop; of the others, low ones
COLUMNS = ("coefficients", "centre", "scale", "typical")
# Reasons for refusing a loop, and their features
GROUPS = {
    RejectReason.LOW_SIMILARITY: ("similarity", "margin"),
    RejectReason.FEW_INLIERS: ("inliers", "inlier_share"),
    RejectReason.LOW_OVERLAP: ("overlap", "residual"),
    RejectReason.AMBIGUOUS: ("ambiguity",),
    RejectReason.NO_AGREEMENT: ("agreement",),
    RejectReason.ODOMETRY_DISAGREES: ("odometry",),
}
FEATURES = tuple(name for names in GROUPS.values() for name in names)


def knows_odometry(evidence: Evidence) -> bool:
    """Whether odometry gives information about the loop."""
    return not math.isnan(evidence.odometry)


def refusal(evidence: Evidence) -> RejectReason | None:
    """Why a loop is refused regardless of other evidence; None where the probability decides."""
    if knows_odometry(evidence):
        return None
    if evidence.inliers < FEWEST_INLIERS:
        return RejectReason.FEW_INLIERS
    if evidence.overlap < LEAST_OVERLAP:
        return RejectReason.LOW_OVERLAP
    return RejectReason.AMBIGUOUS if evidence.ambiguity >= MOST_AMBIGUOUS else None


def features(evidence: Evidence) -> F64:
    """(F,) numbers in the order of `FEATURES`, all finite: counts as logarithms."""
    values = {
        "similarity": evidence.similarity,
        "margin": evidence.margin,
        "inliers": math.log1p(evidence.inliers),
        "inlier_share": evidence.inliers / max(1, evidence.matches),
        "overlap": evidence.overlap,
        "residual": evidence.residual,
        "ambiguity": evidence.ambiguity,
        "agreement": evidence.agreement,
        "odometry": min(evidence.odometry, MOST_ODOMETRY) if knows_odometry(evidence) else 0.0,
    }
    return np.array([values[name] for name in FEATURES])


@dataclass(frozen=True)
class Reliability:
    """One bin of probability: the number of loops, the mean predicted and the mean observed probability."""

    count: int
    said: float
    true: float


@dataclass(frozen=True)
class Logistic:
    """Coefficients over standardised features, and the `typical` features of right loops."""

    bias: float
    coefficients: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    typical: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in COLUMNS:
            if len(getattr(self, name)) != len(FEATURES):
                raise ValueError(f"a calibration needs {len(FEATURES)} {name}, not {len(getattr(self, name))}")

    def probabilities(self, values: F64) -> F64:
        """(N,) of features (N, F)."""
        standard = (values - np.array(self.centre)) / np.array(self.scale)
        return np.asarray(expit(standard @ np.array(self.coefficients) + self.bias), np.float64)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, each number by its feature's name."""
        return {"bias": self.bias} | {n: dict(zip(FEATURES, getattr(self, n), strict=True)) for n in COLUMNS}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Logistic:
        """The inverse of `as_dict`; KeyError where something is missing."""
        columns = {name: tuple(float(values[name][feature]) for feature in FEATURES) for name in COLUMNS}
        return cls(float(values["bias"]), **columns)


@dataclass(frozen=True)
class Calibration:
    """A model for loops with information from odometry and one for the others, which must rely on other evidence; and
    their calibration on drives that they were not fitted on: `reliability`, its `error` (expected calibration
    error, None before it was checked) and their number of `loops`."""

    with_odometry: Logistic
    without_odometry: Logistic
    reliability: tuple[Reliability, ...] = ()
    error: float | None = None
    loops: int = 0

    def model(self, evidence: Evidence) -> Logistic:
        """The model for this kind of loop."""
        return self.with_odometry if knows_odometry(evidence) else self.without_odometry

    def probability(self, evidence: Evidence) -> float:
        """The probability that the loop is right, 0..1; 0 where there is a `refusal`."""
        return 0.0 if refusal(evidence) is not None else self.regression(evidence)

    def regression(self, evidence: Evidence) -> float:
        """The probability without the limits: for loops that others will confirm or contradict."""
        return float(self.model(evidence).probabilities(features(evidence)[None])[0])

    def reason(self, evidence: Evidence, min_probability: float) -> RejectReason:
        """Why a loop is refused: the kind of evidence that, if it were typical of right loops, would have made it pass.
        If several would, the one that counts most; if none would, LOW_PROBABILITY."""
        refused = refusal(evidence)
        if refused is not None:
            return refused
        model, values = self.model(evidence), features(evidence)
        best, found = min_probability, RejectReason.LOW_PROBABILITY
        for reason, names in GROUPS.items():
            mended = values.copy()
            for name in names:
                at = FEATURES.index(name)
                mended[at] = (min if name in AGAINST else max)(mended[at], model.typical[at])
            probability = float(model.probabilities(mended[None])[0])
            if probability >= best:
                best, found = probability, reason
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the weights' metadata."""
        models = {name: getattr(self, name).as_dict() for name in MODELS}
        return models | {name: value for name, value in dataclasses.asdict(self).items() if name not in MODELS}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """The inverse of `as_dict`; ValueError where something is missing or of another version."""
        try:
            models = {name: Logistic.from_dict(values[name]) for name in MODELS}
            curve = tuple(Reliability(**each) for each in values["reliability"])
            return cls(**models, reliability=curve, error=values["error"], loops=values["loops"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a calibration of this version ({error!r})") from error


def reliability(said: F64, right: np.ndarray) -> tuple[tuple[Reliability, ...], float]:
    """The curve of probabilities (N,) against outcomes (N,) bool, and the expected calibration error: the mean
    over loops of |predicted - observed| of the loop's bin of probability."""
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    curve = tuple(
        Reliability(int((bins == b).sum()), float(said[bins == b].mean()), float(right[bins == b].mean()))
        for b in np.unique(bins)
    )
    return curve, sum(each.count * abs(each.said - each.true) for each in curve) / max(1, len(right))
