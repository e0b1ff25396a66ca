# SPDX-License-Identifier: Apache-2.0
"""The folder of a run (a played drive) and its only reader. Plots and reports are made from it alone.

    run.json          format, source, protocol, weights, commit, seed, whole configuration, metrics
    keyframes.csv     one row per keyframe: stamp, odometry, true pose, whether it is a revisit
    closures.csv      one row per candidate: similarity, probability, transform, covariance, evidence, its true error
    timing.csv        one row per keyframe: milliseconds of each stage
    health.csv        one row per second of the drive: the counts so far
    map.sqlite3       the map of the drive (map.safetensors of earlier versions)

An empty cell is an unknown number; in the arrays it is NaN.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlad_ros.poses import from_quaternion
from vlad_ros.types import F64, Bools, Evidence, Ints, RejectReason

FORMAT, VERSION = "vlad_ros run", 1
ABOUT, MAP, OLD_MAP = "run.json", "map.sqlite3", "map.safetensors"
TABLES = ("keyframes", "closures", "timing", "health")
AGAIN = "play the drive again with vlad run"

AXES = ("x", "y", "z", "roll", "pitch", "yaw")
UPPER = tuple((i, j) for i in range(6) for j in range(i, 6))  # of a covariance, row by row
UNITS = ("m2", "m_rad", "rad2")
EVIDENCE = tuple(field.name for field in dataclasses.fields(Evidence))


def pose_columns(name: str) -> tuple[str, ...]:
    """The seven columns of the pose `name`: translation [m] and quaternion."""
    return tuple(f"{name}_{part}" for part in ("x_m", "y_m", "z_m", "qx", "qy", "qz", "qw"))


ODOMETRY, TRUTH, EDGE = pose_columns("odom"), pose_columns("true"), pose_columns("edge")
COVARIANCE = tuple(f"cov_{AXES[i]}_{AXES[j]}_{UNITS[(i >= 3) + (j >= 3)]}" for i, j in UPPER)
EVIDENCE_COLUMNS = tuple(f"evidence_{name}" + ("_m" if name == "residual" else "") for name in EVIDENCE)
KEYFRAME_COLUMNS = (
    *("id", "session", "stamp_ns", "travel_m", "is_local_map", "partial", "is_revisit"),
    *ODOMETRY,
    *TRUTH,
)
CLOSURE_COLUMNS = (
    *("query_id", "match_id", "query_session", "match_session", "query_stamp_ns", "match_stamp_ns"),
    *("similarity", "probability", "accepted", "reject_reason", "error_m", "error_deg", "is_right"),
    *EDGE,
    *COVARIANCE,
    *EVIDENCE_COLUMNS,
)


@dataclass(frozen=True, eq=False)
class KeyframeTable:
    """(N,) each, in the order of their ids, which are 0..N-1; transforms (N, 4, 4), NaN where unknown. `is_revisit`:
    an earlier keyframe that may be matched lies near (False without true poses)."""

    session: Ints
    stamp: Ints
    travel: F64
    is_local_map: Bools
    partial: Bools
    is_revisit: Bools
    T_odom_base: F64
    T_world_base: F64

    def __len__(self) -> int:
        return len(self.stamp)


@dataclass(frozen=True, eq=False)
class ClosureTable:
    """(E,) each, the candidates of a keyframe together, best first; `T_match_query` (E, 4, 4) and `covariance`
    (E, 6, 6). NaN where unknown. `reason`: values of RejectReason; `evidence`: by name of its field; `error_m` and
    `error_deg`: the true error of the transform; `is_right`: whether that is small enough."""

    query: Ints
    match: Ints
    query_session: Ints
    match_session: Ints
    query_stamp: Ints
    match_stamp: Ints
    similarity: F64
    probability: F64
    accepted: Bools
    reason: Ints
    error_m: F64
    error_deg: F64
    is_right: Bools
    T_match_query: F64
    covariance: F64
    evidence: dict[str, F64]

    def __len__(self) -> int:
        return len(self.query)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run. `about` is run.json; `timing` holds milliseconds (N,) of each stage, in the order of the
    keyframes; `health` the counts so far by name, (T,) each, at its `stamp_ns`."""

    path: Path
    about: dict[str, Any]
    keyframes: KeyframeTable
    closures: ClosureTable
    timing: dict[str, F64]
    health: dict[str, Ints]

    @property
    def has_truth(self) -> bool:
        """Whether true poses are known, so that edges and revisits are judged."""
        return bool(np.isfinite(self.keyframes.T_world_base[:, 0, 0]).any())

    @property
    def map_path(self) -> Path:
        """The map built by the drive."""
        old = self.path / OLD_MAP
        return old if old.exists() and not (self.path / MAP).exists() else self.path / MAP


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a run's folder. ValueError, one sentence, where there is none, or one that is unfinished, of another version
    of this program, empty, or damaged."""
    path = Path(path)
    return read_tables(path, _about(path))


def read_tables(path: Path, about: dict[str, Any]) -> Run:
    """The run with `about` and the tables in the folder `path`. ValueError where one is missing, empty or damaged."""
    tables = {name: _table(path / f"{name}.csv") for name in TABLES}
    if len(tables["keyframes"].get("id", ("?",))) == 0:
        raise ValueError(
            f"{path}: a run without keyframes, there is nothing to show; health.csv counts what was dropped"
        )
    try:
        keyframes, closures = _keyframes(tables["keyframes"]), _closures(tables["closures"])
        timing = {name[:-3]: _floats(cells) for name, cells in tables["timing"].items() if name.endswith("_ms")}
        health = {name: _integers(cells) for name, cells in tables["health"].items()}
    except KeyError as error:
        raise ValueError(f"{path}: a damaged run, there is no column {error}; {AGAIN}") from error
    except ValueError as error:
        raise ValueError(f"{path}: a damaged run ({error}); {AGAIN}") from error
    return Run(path, about, keyframes, closures, timing, health)


def _about(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise ValueError(f"{path}: there is no such run; make one with vlad run SEQUENCE.npz -o {path}")
    try:
        about = json.loads((path / ABOUT).read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no run, or an unfinished one: {ABOUT} is missing; {AGAIN}") from error
    except (ValueError, RecursionError) as error:  # not JSON, or not text
        raise ValueError(f"{path / ABOUT}: not readable ({error}); {AGAIN}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"{path / ABOUT}: not the record of a run; name a folder that vlad run has written")
    version = about.get("version", 0)
    if version != VERSION:
        age = ("an older" if version < VERSION else "a newer") if isinstance(version, int) else "another"
        raise ValueError(f"{path}: a run of {age} version ({version}; this program reads {VERSION}); {AGAIN}")
    return about


def _table(path: Path) -> dict[str, tuple[str, ...]]:
    """Columns by name, as text."""
    try:
        with open(path, newline="") as file:
            rows = csv.reader(file)
            names = next(rows, [])
            lines = list(rows)
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent}: a damaged run, {path.name} is missing; {AGAIN}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged ({error}); {AGAIN}") from error
    if any(len(line) != len(names) for line in lines):
        raise ValueError(f"{path}: damaged, a row is cut short; {AGAIN}")
    columns = zip(*lines, strict=True) if lines else [()] * len(names)
    return dict(zip(names, columns, strict=True))


def _floats(cells: tuple[str, ...]) -> F64:
    return np.array([cell or "nan" for cell in cells], np.float64)


def _integers(cells: tuple[str, ...]) -> Ints:
    return np.array([int(cell) for cell in cells], np.int64)


def _flags(cells: tuple[str, ...]) -> Bools:
    return np.array([cell == "1" for cell in cells], bool)


def _poses(table: dict[str, tuple[str, ...]], names: tuple[str, ...]) -> F64:
    """(N, 4, 4), NaN where the cells are empty."""
    numbers = np.stack([_floats(table[name]) for name in names], axis=1)
    known = np.isfinite(numbers).all(axis=1)
    poses = np.full((len(numbers), 4, 4), np.nan)
    if known.any():
        poses[known] = from_quaternion(numbers[known, :3], numbers[known, 3:])
    return poses


def _keyframes(table: dict[str, tuple[str, ...]]) -> KeyframeTable:
    if _integers(table["id"]).tolist() != list(range(len(table["id"]))):
        raise ValueError("the ids of keyframes.csv are not 0, 1, 2, ...")
    return KeyframeTable(
        session=_integers(table["session"]),
        stamp=_integers(table["stamp_ns"]),
        travel=_floats(table["travel_m"]),
        is_local_map=_flags(table["is_local_map"]),
        partial=_flags(table["partial"]),
        is_revisit=_flags(table["is_revisit"]),
        T_odom_base=_poses(table, ODOMETRY),
        T_world_base=_poses(table, TRUTH),
    )


def _closures(table: dict[str, tuple[str, ...]]) -> ClosureTable:
    covariance = np.empty((len(table["query_id"]), 6, 6))
    for (i, j), name in zip(UPPER, COVARIANCE, strict=True):
        covariance[:, i, j] = covariance[:, j, i] = _floats(table[name])
    unknown = set(table["reject_reason"]) - set(RejectReason.__members__)
    if unknown:
        raise ValueError(f"closures.csv has the unknown reject reasons {', '.join(sorted(unknown))}")
    return ClosureTable(
        query=_integers(table["query_id"]),
        match=_integers(table["match_id"]),
        query_session=_integers(table["query_session"]),
        match_session=_integers(table["match_session"]),
        query_stamp=_integers(table["query_stamp_ns"]),
        match_stamp=_integers(table["match_stamp_ns"]),
        similarity=_floats(table["similarity"]),
        probability=_floats(table["probability"]),
        accepted=_flags(table["accepted"]),
        reason=np.array([RejectReason[name] for name in table["reject_reason"]], np.int64),
        error_m=_floats(table["error_m"]),
        error_deg=_floats(table["error_deg"]),
        is_right=_flags(table["is_right"]),
        T_match_query=_poses(table, EDGE),
        covariance=covariance,
        evidence={name: _floats(table[column]) for name, column in zip(EVIDENCE, EVIDENCE_COLUMNS, strict=True)},
    )
