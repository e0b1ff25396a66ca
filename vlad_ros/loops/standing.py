# SPDX-License-Identifier: Apache-2.0
"""Where in the map a single scan was taken: for a vehicle that stands, or is asked where it is.

Scans of a standing vehicle agree with each other's errors, so that none confirms another (`Relocaliser` asks three
keyframes of a moving one). A single scan has to be enough, and is held against what contradicts it instead: all its
candidates are verified, places that exclude each other share their probability, and one is believed from LEAST on where
AGREEING keyframes of the map say the same. Both were chosen on simulated worlds, aliased ones among them, of seeds from
80000 and 81000 on; `bench/relocalise.py` measures on others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlad_ros.calibration import Calibration
from vlad_ros.config import RecognizerConfig
from vlad_ros.loops.acceptance import AGREE_ANGLE, AGREE_METRES, Judge
from vlad_ros.loops.relocalisation import MapPose, pose_covariance
from vlad_ros.loops.verification import Verifier
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.poses import inverse, rotation_angle
from vlad_ros.types import F64, Candidate, Keyframe, LoopClosure

LEAST, AGREEING = 0.95, 2  # probability, and loops, of a place that is believed
CANDIDATES = 20  # verified, whatever time that takes: one left out might be what contradicts
BUDGET = 60.0  # s; never spent on so few
ALL_TIME = 1e9  # s; the vehicle's own session is excluded as a whole, its poses may be what is in doubt


@dataclass(frozen=True)
class Hint:
    """About where the vehicle is: `x`, `y` [m] in the map, and the `radius` [m] around them that is searched."""

    x: float
    y: float
    radius: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.x) and math.isfinite(self.y) and 0.0 < self.radius < math.inf):
            raise ValueError(f"a hint needs a finite place and a positive radius, not {self}")

    def holds(self, T_map_base: F64) -> bool:
        """Whether the pose (4, 4) lies within the radius."""
        return math.hypot(T_map_base[0, 3] - self.x, T_map_base[1, 3] - self.y) <= self.radius


@dataclass(frozen=True, eq=False)
class Guess:
    """A place where the vehicle may be, its probability, 0..1, and how many `loops` lead to it."""

    pose: MapPose
    probability: float
    loops: int


class StandingSearch:
    """Searches keyframes in a map, each alone. Nothing is added to the map, nothing is remembered."""

    def __init__(self, calibration: Calibration, config: RecognizerConfig) -> None:
        self._calibration = calibration
        self._config = dataclasses.replace(config, max_edges=0, verification_budget=BUDGET)
        self._verifier = Verifier()

    def guesses(self, query: Keyframe, database: KeyframeDatabase, hint: Hint | None = None) -> list[Guess]:
        """The places of the map where a keyframe, with its geometry, may have been taken, most probable first. Its own
        session is not searched, nor are sessions whose place in the map is not known."""
        candidates = self._candidates(query, database, hint)
        judge = Judge(self._verifier, self._calibration, self._config)  # a new one: it knows of no loop before
        return places(judge.judge(-1, query, candidates, database), database, hint)

    def _candidates(self, query: Keyframe, database: KeyframeDatabase, hint: Hint | None) -> list[Candidate]:
        if not is_searchable(database, query.session):
            return []
        found = database.search(query, CANDIDATES if hint is None else len(database), ALL_TIME, 0.0)
        placed = ((candidate, database.T_map_base(candidate.id)) for candidate in found)
        return [one for one, T in placed if T is not None and (hint is None or hint.holds(T))][:CANDIDATES]


def is_searchable(database: KeyframeDatabase, session: int) -> bool:
    """Whether the map holds a session other than the vehicle's own whose place in it is known."""
    return any(T is not None and other != session for other, T in database.sessions.items())


def places(closures: Sequence[LoopClosure], database: KeyframeDatabase, hint: Hint | None = None) -> list[Guess]:
    """The places that loops of one keyframe lead to, most probable first. Loops that agree are one place, as probable
    as the best of them; places exclude each other, so that together they are not more probable than 1."""
    found: list[Guess] = []
    for closure in sorted(closures, key=lambda closure: -(closure.probability or 0.0)):
        T_map_match = database.T_map_base(closure.match_id)
        if T_map_match is None or closure.T_match_query is None or closure.covariance is None:
            continue
        T = T_map_match @ closure.T_match_query
        same = [n for n, guess in enumerate(found) if same_place(T, guess.pose.T_map_base)]
        if same:
            found[same[0]] = dataclasses.replace(found[same[0]], loops=found[same[0]].loops + 1)
        elif hint is None or hint.holds(T):
            covariance = pose_covariance(closure.covariance, T_map_match, closure.T_match_query)
            pose = MapPose(closure.query_id, closure.query_stamp, T, covariance)
            found.append(Guess(pose, closure.probability or 0.0, 1))
    total = max(1.0, sum(guess.probability for guess in found))
    return [dataclasses.replace(guess, probability=guess.probability / total) for guess in found]


def believed(guesses: Sequence[Guess]) -> Guess | None:
    """The first of `guesses` where it is probable enough and more than one loop leads to it, else None."""
    sure = guesses and guesses[0].probability >= LEAST and guesses[0].loops >= AGREEING
    return guesses[0] if sure else None


def same_place(A: F64, B: F64) -> bool:
    """Whether two poses (4, 4) agree."""
    error = inverse(A) @ B
    return bool(np.linalg.norm(error[:3, 3]) <= AGREE_METRES and rotation_angle(error) <= AGREE_ANGLE)
