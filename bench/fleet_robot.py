# SPDX-License-Identifier: Apache-2.0
"""One robot of `bench/fleet.py`, in a process of its own: it drives through a town at its stamps' pace."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vlad_ros.config import EvaluationConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.files.sequence import Sequence
from vlad_ros.fleet.vehicle import Fleet, Voice
from vlad_ros.loops.described import Described
from vlad_ros.loops.warm_up import warm_up
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import inverse
from vlad_ros.simulation.routes import Route, plan_route, record
from vlad_ros.simulation.sensors import spinning
from vlad_ros.simulation.world import World
from vlad_ros.simulation.worlds import make_world
from vlad_ros.types import F64

SIZE = 300.0  # m; the town's side
SPACING, SPEED = 1.0, 2.0  # m between scans, m/s
QUIET = 120.0  # s; longest wait for the queue to empty at the end


def plan(world: World, seed: int, length: float) -> F64:
    """The poses (S, 3) of one lap of a loop of about `length` metres through the town, from anywhere, either way."""
    route = plan_route(world, seed, SPACING, ("same",), 2.0, length)
    rng = np.random.default_rng([seed, 2])
    lap = int((route.leg == 0).sum())
    start = int(rng.integers(lap))
    poses = route.poses[start : start + lap]
    return (poses + np.array([0.0, 0.0, np.pi]))[::-1] if rng.random() < 0.5 else poses


def drive(town: int, seed: int, length: float) -> Sequence:
    """What 32 beams see on that way, other cars parked there than in another robot's drive."""
    world = make_world("street", town, size=SIZE)
    poses = plan(world, seed, length)
    route = Route(poses, np.zeros(len(poses), int))
    found = record(world, route, seed, spinning(32, 450), SPACING, f"robot_{seed}")
    return Sequence(found.name, found.scans, found.poses, 1.0 + np.arange(len(found)) * SPACING / SPEED)


def main(task: dict[str, Any]) -> None:
    """Drive, and leave what was found in a JSON file."""
    name, folder = task["name"], Path(task["folder"])
    sequence = drive(task["town"], task["seed"], task["length"])
    noise, poses = EvaluationConfig(), sequence.poses_to("judge")
    odometry = inverse(poses[0]) @ drifting_odometry(poses, noise.drift_scale, noise.drift_yaw, task["seed"])
    place = PlaceRecognizer.from_pretrained(device="cpu")
    warm_up(place.describer)
    jobs: deque[Callable[[], None]] = deque()
    said: list[str] = []
    fleet = Fleet(task["uri"], name, place, Voice(said.append, said.append, jobs.append))
    (folder / f"{name}.ready").touch()
    while not (folder / "start").exists():
        time.sleep(0.01)
    began = time.time()
    edges, stamps = [], sequence.stamps_ns()

    def hear(described: list[Described]) -> None:
        for one in described:
            fleet.observe(one)
            edges.extend(found(place, one, time.time() - began))
        while jobs:
            jobs.popleft()()

    late = 0.0
    for points, stamp, T in zip(sequence.scans, stamps, odometry, strict=True):
        wait = stamp / 1e9 - 1.0 - (time.time() - began)
        late = max(late, -wait)
        time.sleep(max(0.0, wait))
        hear(place.step(points, stamp, None, T))
    hear(place.finish())
    end = time.monotonic() + QUIET
    while int(fleet.values()["waiting for the fleet"]) and time.monotonic() < end:
        time.sleep(0.1)
    database = place.database
    asked = int(fleet.values()["questions to the fleet"])
    fleet.close()
    own = [database.keyframe(id).stamp for id in database.ids(0).tolist()]
    result = {"own": own, "edges": edges, "late": late, "asked": asked, "said": said, "faults": fleet.faults()}
    result |= {"poses": poses.tolist(), "stamps": stamps, "map": drawn(place)}
    (folder / f"{name}.json").write_text(json.dumps(result))


def found(place: PlaceRecognizer, one: Described, now: float) -> list[dict[str, Any]]:
    """The accepted edges of a keyframe."""
    identities = place.database.identities
    return [
        {
            "query": closure.query_stamp,
            "robot": identities[closure.match_session][1],
            "match": closure.match_stamp,
            "T": closure.T_match_query.tolist(),
            "probability": closure.probability,
            "now": now,
        }
        for closure in one.closures
        if closure.accepted and closure.T_match_query is not None
    ]


def drawn(place: PlaceRecognizer) -> list[tuple[str, int, float, float]]:
    """Robot, stamp, x and y of each keyframe in this robot's map, where known."""
    database, rows = place.database, []
    for id in database.ids().tolist():
        T, row = database.T_map_base(id), database.keyframe(id)
        if T is not None:
            rows.append((database.identities[row.session][1], row.stamp, float(T[0, 3]), float(T[1, 3])))
    return rows


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main(json.loads(sys.argv[1]))
