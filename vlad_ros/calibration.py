# SPDX-License-Identifier: Apache-2.0
"""The probability that a verified loop is right: logistic regression over its evidence, fitted on simulated drives.

A logistic model says how sure it is by construction; how well it keeps that promise is measured on drives it was not
fitted on (reliability curve and expected calibration error; Guo et al., ICML 2017) and kept beside it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from vlad_ros.types import F64, Evidence, RejectReason

RIDGE = 1e-3  # pull of the coefficients to zero, a sample
BINS = 10  # of the reliability curve
# What a loop may be refused for, and the features that say so
GROUPS = {
    RejectReason.LOW_SIMILARITY: ("similarity", "margin"),
    RejectReason.FEW_INLIERS: ("inliers", "inlier_share"),
    RejectReason.LOW_OVERLAP: ("overlap", "residual"),
    RejectReason.AMBIGUOUS: ("ambiguity",),
    RejectReason.NO_AGREEMENT: ("agreement",),
    RejectReason.ODOMETRY_DISAGREES: ("odometry",),
}
FEATURES = (*(name for names in GROUPS.values() for name in names), "has_odometry")


def features(evidence: Evidence) -> F64:
    """(F,) numbers in the order of `FEATURES`, all finite: counts and distances as logarithms."""
    known = not math.isnan(evidence.odometry)
    values = {
        "similarity": evidence.similarity,
        "margin": evidence.margin,
        "inliers": math.log1p(evidence.inliers),
        "inlier_share": evidence.inliers / max(1, evidence.matches),
        "overlap": evidence.overlap,
        "residual": evidence.residual,
        "ambiguity": evidence.ambiguity,
        "agreement": evidence.agreement,
        "odometry": math.log1p(evidence.odometry) if known else 0.0,
        "has_odometry": float(known),
    }
    return np.array([values[name] for name in FEATURES])


@dataclass(frozen=True)
class Reliability:
    """Of loops in one bin of probability: how many there were, what was said and what came true, on average."""

    count: int
    said: float
    true: float


@dataclass(frozen=True)
class Calibration:
    """Coefficients over standardised features, the `typical` features of right loops, and how honest it was on drives
    that it was not fitted on: `reliability`, its `error` (expected calibration error, None before it was checked) and
    their number of `loops`."""

    bias: float
    coefficients: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    typical: tuple[float, ...]
    reliability: tuple[Reliability, ...] = ()
    error: float | None = None
    loops: int = 0

    def __post_init__(self) -> None:
        for name in ("coefficients", "centre", "scale", "typical"):
            if len(getattr(self, name)) != len(FEATURES):
                raise ValueError(f"a calibration needs {len(FEATURES)} {name}, not {len(getattr(self, name))}")

    def probability(self, evidence: Evidence) -> float:
        """That the loop is right, 0..1."""
        return float(self.of_features(features(evidence)[None])[0])

    def of_features(self, values: F64) -> F64:
        """Probabilities (N,) of features (N, F)."""
        standard = (values - np.array(self.centre)) / np.array(self.scale)
        return np.asarray(expit(standard @ np.array(self.coefficients) + self.bias), np.float64)

    def reason(self, evidence: Evidence, min_probability: float) -> RejectReason:
        """Why a loop is refused: the one kind of evidence that, were it as with right loops, would have let it pass;
        where several would, the one that counts most, where none would, all of them: LOW_PROBABILITY."""
        values = features(evidence)
        best, found = min_probability, RejectReason.LOW_PROBABILITY
        for reason, names in GROUPS.items():
            mended = values.copy()
            for name in names:
                at = FEATURES.index(name)
                mended[at] = self.typical[at]
            if reason is RejectReason.ODOMETRY_DISAGREES and math.isnan(evidence.odometry):
                continue
            probability = float(self.of_features(mended[None])[0])
            if probability >= best:
                best, found = probability, reason
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the weights' metadata, each coefficient by its feature's name."""
        plain = dataclasses.asdict(self)
        for name in ("coefficients", "centre", "scale", "typical"):
            plain[name] = dict(zip(FEATURES, plain[name], strict=True))
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """The inverse of `as_dict`; ValueError where something is missing or of another version."""
        try:
            columns = {
                name: tuple(float(values[name][feature]) for feature in FEATURES)
                for name in ("coefficients", "centre", "scale", "typical")
            }
            curve = tuple(Reliability(**each) for each in values["reliability"])
            return cls(
                float(values["bias"]), **columns, reliability=curve, error=values["error"], loops=values["loops"]
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a calibration of this version ({error!r})") from error


def fit(values: F64, right: np.ndarray) -> Calibration:
    """A calibration without its reliability, from features (N, F) of loops and whether each was right (N,) bool.

    ValueError unless there are some of both.
    """
    if right.all() or not right.any():
        raise ValueError(f"a calibration needs right and wrong loops, not {right.sum()} right ones of {len(right)}")
    centre, scale = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    x, y = (values - centre) / scale, right.astype(np.float64)

    def loss(parameters: F64) -> tuple[float, F64]:
        w, b = parameters[:-1], parameters[-1]
        z = x @ w + b
        value = np.mean(np.logaddexp(0.0, z) - y * z) + RIDGE * w @ w
        slope = expit(z) - y
        return float(value), np.append(x.T @ slope / len(x) + 2 * RIDGE * w, slope.mean())

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    w, c, s, t = (tuple(map(float, each)) for each in (found[:-1], centre, scale, values[right].mean(axis=0)))
    return Calibration(float(found[-1]), coefficients=w, centre=c, scale=s, typical=t)


def check(calibration: Calibration, values: F64, right: np.ndarray) -> Calibration:
    """The same calibration with its reliability on features (N, F) that it was not fitted on.

    Expected calibration error: the mean over loops of |said - came true| of the loop's bin of probability.
    """
    said = calibration.of_features(values)
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    curve = tuple(
        Reliability(int((bins == b).sum()), float(said[bins == b].mean()), float(right[bins == b].mean()))
        for b in np.unique(bins)
    )
    error = sum(each.count * abs(each.said - each.true) for each in curve) / max(1, len(right))
    return dataclasses.replace(calibration, reliability=curve, error=float(error), loops=len(right))
