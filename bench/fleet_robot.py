# SPDX-License-Identifier: Apache-2.0
"""One robot of `bench/fleet.py`, in a process and a ROS domain of its own: a drive is played to the live node."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from vlad_ros.config import EvaluationConfig, ImportConfig, ReplayConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.files.bags import sequence_scans, write_bag
from vlad_ros.files.sequence import Sequence
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.poses import inverse
from vlad_ros.ros.outputs.messages import stamps_of, transform_of
from vlad_ros.ros.tools import replay
from vlad_ros.ros.tools.demo_session import losses
from vlad_ros.ros.tools.node_client import NodeClient
from vlad_ros.ros.tools.node_process import start_node
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
    home = folder / name
    home.mkdir()
    sequence = drive(task["town"], task["seed"], task["length"])
    noise, poses = EvaluationConfig(), sequence.poses_to("judge")
    odometry = inverse(poses[0]) @ drifting_odometry(poses, noise.drift_scale, noise.drift_yaw, task["seed"])
    write_bag(home / "bag", sequence_scans(sequence, ImportConfig().rate, odometry), ImportConfig())
    parameters = {"use_sim_time": True, "device": "cpu", "map_path": str(home / "own.map")}
    parameters |= {"fleet_uri": task["uri"], "robot": name}
    with NodeClient() as watch, start_node(home, parameters) as node:
        watch.wait_active(node)
        (folder / f"{name}.ready").touch()
        while not (folder / "start").exists():
            time.sleep(0.01)
        report = replay.play(watch.node, home / "bag", ReplayConfig(rate=task["rate"]), say=lambda text: None)
        watch.wait_quiet()
        end = time.monotonic() + QUIET
        while watch.diagnostics.get("waiting for the fleet") != "0" and time.monotonic() < end:
            time.sleep(0.1)
        watch.deactivate()
        lost = sum(losses(watch, report).values())
    database = KeyframeDatabase.open(home / "own.map")
    result = {"own": [stamp for stamp, _, _ in watch.descriptors], "edges": found(watch, database), "lost": lost}
    result |= {
        "asked": int(watch.diagnostics["questions to the fleet"]),
        "held": report.held,
        "map": drawn(watch, database),
    }
    result |= {"poses": poses.tolist(), "stamps": sequence.stamps_ns(), "bad": watch.counts().get("fleet_row", 0)}
    (folder / f"{name}.json").write_text(json.dumps(result))


def found(watch: NodeClient, database: KeyframeDatabase) -> list[dict[str, Any]]:
    """The accepted edges, each with the robot whose session its number means."""
    rows = [row for _, some in watch.closures for row in some if row["accepted"]]
    return [
        {
            "query": stamps_of(row)[0],
            "robot": database.identities[int(row["match_session"])][1],
            "match": stamps_of(row)[1],
            "T": transform_of(row).tolist(),
        }
        for row in rows
    ]


def drawn(watch: NodeClient, database: KeyframeDatabase) -> list[tuple[str, int, float, float]]:
    """Robot, stamp, x and y of each keyframe in this robot's map; another's session lies where its first edge says."""
    frames = {session: T for session, T in database.sessions.items() if T is not None}
    for row in (row for _, some in watch.closures for row in some if row["accepted"]):
        T_map_query, match = database.T_map_base(int(row["query_id"])), database.keyframe(int(row["match_id"]))
        if match.session not in frames and T_map_query is not None and match.T_odom_base is not None:
            frames[match.session] = T_map_query @ inverse(match.T_odom_base @ transform_of(row))
    rows = []
    for one in map(database.keyframe, database.ids().tolist()):
        if one.session in frames and one.T_odom_base is not None:
            T = frames[one.session] @ one.T_odom_base
            rows.append((database.identities[one.session][1], one.stamp, float(T[0, 3]), float(T[1, 3])))
    return rows


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
