# SPDX-License-Identifier: Apache-2.0
"""Calibration of weights: the pipeline runs on simulated drives, and its loops are judged by the true poses."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from tqdm import tqdm

from vlad_ros.calibration import FEATURES, Calibration, Logistic, features, knows_odometry, refusal, reliability
from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.evaluation.edges import edge_error, is_right
from vlad_ros.files.sequence import Sequence
from vlad_ros.model.describer import Describer
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.types import F64, Evidence, LoopClosure

# Scans lie 1.6 m and 0.1 s apart: every one is a keyframe, the last 40 m of travel are excluded
CONFIG = RecognizerConfig(
    keyframe_rate=100.0,
    keyframe_period=0.1,
    keyframe_similarity=1.0,
    exclude_time=2.5,
    exclude_distance=40.0,
    verification_budget=60.0,
    max_edges=0,
)
DRIFT_SCALE, DRIFT_YAW = 0.02, 0.5  # of the simulated odometry: share of the distance, degrees per 10 m
RIDGE = 3e-4  # weight of the squared coefficients beside the mean loss
CHECKED = 3  # every third drive is held out of the fit to check it
# Worlds of exact copies: without odometry nothing tells these apart, so they are no data for that model
EXACT_COPIES = ("blocks", "tunnel")


def by_inliers() -> Calibration:
    """A stand-in for weights without a calibration: more inliers, more probable. It only orders candidates."""
    zeros, ones = (0.0,) * len(FEATURES), (1.0,) * len(FEATURES)
    slope = tuple(float(name == "inliers") for name in FEATURES)
    model = Logistic(-5.0, slope, centre=zeros, scale=ones, typical=ones)
    return Calibration(model, model)


def drive_through(describer: Describer, drive: Sequence, odometry: bool, seed: int) -> list[LoopClosure]:
    """All loops of a drive, with drifting odometry (local maps) or without (single scans)."""
    recognizer = PlaceRecognizer(describer, by_inliers(), CONFIG)
    true = drive.poses_to("judge")
    poses = drifting_odometry(true, DRIFT_SCALE, DRIFT_YAW, seed) if odometry else [None] * len(drive)
    closures: list[LoopClosure] = []
    for points, stamp, T_odom_base in zip(drive.scans, drive.stamps_ns(), poses, strict=True):
        closures += recognizer.process(points, stamp, T_odom_base=T_odom_base)
    return closures + recognizer.flush()


def edges_right(drive: Sequence, closures: Iterable[LoopClosure]) -> np.ndarray:
    """Whether each loop's transform agrees with the true poses, (N,) bool; False without one."""
    pose = dict(zip(drive.stamps_ns(), drive.poses_to("judge"), strict=True))
    return np.array(
        [
            c.T_match_query is not None
            and is_right(*edge_error(c.T_match_query, pose[c.match_stamp], pose[c.query_stamp]))
            for c in closures
        ],
        bool,
    )


@dataclass(frozen=True, eq=False)
class Loops:
    """Verified loops of many drives: `values` (N, F) features, `known` (N,) bool: odometry can tell about it, `right`
    (N,) bool, `drive` (N,) number of the drive."""

    values: F64
    known: np.ndarray
    right: np.ndarray
    drive: np.ndarray


def collect(weights: str | os.PathLike[str], drives: Iterable[Sequence], jobs: int) -> Loops:
    """The verified loops of the drives, each run with odometry and without, by `jobs` processes.

    Left out: worlds of exact copies without odometry, and loops that are refused whatever their probability.
    """
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        runs = pool.map(_loops, itertools.repeat(weights), drives, itertools.count())
        found = list(tqdm(runs, desc="calibrate", unit="drive"))
    columns = (np.concatenate([getattr(each, field.name) for each in found]) for field in dataclasses.fields(Loops))
    return Loops(*columns)


def _loops(weights: str | os.PathLike[str], drive: Sequence, number: int) -> Loops:
    """Those of one drive."""
    torch.set_num_threads(1)
    describer, _ = Describer.from_pretrained(weights, "cpu")
    evidence: list[Evidence] = []
    right: list[bool] = []
    for odometry in (True, False):
        if not odometry and drive.name.startswith(EXACT_COPIES):
            continue
        closures = drive_through(describer, drive, odometry, number)
        for closure, is_true in zip(closures, edges_right(drive, closures), strict=True):
            if closure.evidence is not None and refusal(closure.evidence) is None:
                evidence.append(closure.evidence)
                right.append(bool(is_true))
    values = np.array([features(each) for each in evidence]).reshape(-1, len(FEATURES))
    known = np.array([knows_odometry(each) for each in evidence], bool)
    return Loops(values, known, np.array(right, bool), np.full(len(right), number))


def fit(values: F64, right: np.ndarray) -> Logistic:
    """A logistic model of whether a loop is right, from features (N, F) and `right` (N,) bool.

    The signs are free: where much looks alike, a high similarity with poor geometry speaks against a loop. ValueError
    without right or without wrong loops.
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
    columns = (found[:-1], centre, scale, values[right].mean(axis=0))
    return Logistic(float(found[-1]), *(tuple(map(float, each)) for each in columns))


def calibrate(loops: Loops) -> Calibration:
    """Fitted on two thirds of the drives, checked on the others. ValueError without right or wrong loops to fit on."""
    checked = loops.drive % CHECKED == CHECKED - 1
    said = np.zeros(len(loops.right))
    models = {}
    for name, kind in (("with_odometry", loops.known), ("without_odometry", ~loops.known)):
        models[name] = fit(loops.values[kind & ~checked], loops.right[kind & ~checked])
        said[kind] = models[name].probabilities(loops.values[kind])
    curve, error = reliability(said[checked], loops.right[checked])
    return Calibration(**models, reliability=curve, error=error, loops=int(checked.sum()))
