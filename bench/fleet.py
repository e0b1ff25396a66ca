#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Three simulated robots in one town, started anywhere, that meet through one `milvus-lite server` on 127.0.0.1.

    python bench/fleet.py [--town 91002] [--robots 3] [--length 300] [--out FOLDER] [--picture docs/fleet.png]

Each robot is the live node in a ROS domain of its own, and its drive is played to it over DDS at the recorded pace, at
2 m/s; odometry drifts, and begins at the origin wherever the robot is. The server is killed (-9) after a third of the
drive, and started again after a fifth more. A true place is a keyframe within 5 m of one that another robot has
described before it; `served` are those that lie 10 s or more behind the other robot's, which its local map and its way
there and back take, and not between the server's end and 10 s after its start. Bytes are those of the connections,
counted in between.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from counting_proxy import CountingProxy
from table import markdown, write_csv

from vlad_ros.config import EvaluationConfig
from vlad_ros.drive.travel import path_length
from vlad_ros.evaluation.edges import edge_error, is_right
from vlad_ros.fleet.client import FleetClient
from vlad_ros.stamps import SECOND

TOWN = 91_002  # far from the seeds of training, calibration and the other benches; the first whose loops all meet
NAMES = ("red", "green", "blue", "grey")
OLD = 10 * SECOND
DOMAIN = 110  # of the first robot
KILLED, STARTED = 1 / 3, 1 / 3 + 1 / 5  # of the drive
SPEED = 2.0  # m/s


class Server:
    """`milvus-lite server` at one port of 127.0.0.1."""

    def __init__(self, folder: Path, port: int) -> None:
        self._command = [sys.executable, "-m", "milvus_lite.cmdline", "server", "--data-dir", str(folder / "data")]
        self._command += ["--host", "127.0.0.1", "--port", str(port)]
        self._log = folder / "server.log"
        self.start()

    def start(self) -> None:
        """Start it; its clients find out when it listens."""
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def play(
    town: int, robots: int, length: float, rate: float, folder: Path
) -> tuple[dict[str, Any], list[CountingProxy], list[int]]:
    """Drive; what each robot has left, the connections, and the bytes of each keyframe's payload in the fleet at the
    end."""
    port, names = free_port(), NAMES[:robots]
    proxies = [CountingProxy(port) for _ in names]
    with contextlib.ExitStack() as undo:
        server = Server(folder, port)
        undo.callback(server.kill)
        processes = []
        for number, (name, proxy) in enumerate(zip(names, proxies, strict=True)):
            task = {"name": name, "folder": str(folder), "uri": f"http://127.0.0.1:{proxy.port}"}
            task |= {"town": town, "seed": town + number, "length": length, "rate": rate}
            argv = [sys.executable, str(Path(__file__).with_name("fleet_robot.py")), json.dumps(task)]
            processes.append(subprocess.Popen(argv, env={**os.environ, **ros(folder, DOMAIN + number)}))
            undo.callback(end, processes[-1])
        wait(lambda: all((folder / f"{name}.ready").exists() for name in names), processes)
        (folder / "start").touch()
        began, seconds = time.monotonic(), length / SPEED / rate
        wait(lambda: time.monotonic() - began > KILLED * seconds, processes)
        server.kill()
        wait(lambda: time.monotonic() - began > STARTED * seconds, processes)
        server.start()
        wait(lambda: all(process.poll() is not None for process in processes), processes)
        client = FleetClient(f"http://127.0.0.1:{port}", None)
        keys = [key for robot, session in client.sessions() for key in client.session_keys(robot, session)]
        payloads = [len(packed.payload) for packed in client.fetch(keys)]
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in names}, proxies, payloads


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a robot, which then ends its node."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait()


def ros(folder: Path, domain: int) -> dict[str, str]:
    """What ROS reads from a robot's environment."""
    found = {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_HOME": str(folder / "ros"),
    }
    return {"AMENT_PREFIX_PATH": os.environ.get("AMENT_PREFIX_PATH", sys.prefix), **found}


def wait(condition: Any, processes: list[subprocess.Popen[bytes]]) -> None:
    """Until it holds; RuntimeError when a robot has failed."""
    while not condition():
        if any(process.poll() for process in processes):
            raise RuntimeError("a robot has failed, see above")
        time.sleep(0.05)


def judged(left: dict[str, Any], length: float) -> list[dict[str, Any]]:
    """Each robot's row of the table."""
    truth = {name: dict(zip(one["stamps"], np.array(one["poses"]), strict=True)) for name, one in left.items()}
    rows: list[dict[str, Any]] = []
    begin, end = ((1 + share * length / SPEED) * SECOND for share in (KILLED, STARTED))
    for name, one in left.items():
        others = [(o, s) for o, other in left.items() if o != name for s in other["own"]]
        where = np.array([truth[o][s][:3, 3] for o, s in others]).reshape(-1, 3)
        when = np.array([s for _, s in others])
        edges = [edge for edge in one["edges"] if edge["robot"] != name]
        right = [
            is_right(*edge_error(np.array(e["T"]), truth[e["robot"]][e["match"]], truth[name][e["query"]]))
            for e in edges
        ]
        found = {edge["query"] for edge, ok in zip(edges, right, strict=True) if ok}
        near = {
            s: when[np.linalg.norm(where - truth[name][s][:3, 3], axis=1) <= EvaluationConfig().radius]
            for s in one["own"]
        }
        true = [s for s in one["own"] if (near[s] < s).any()]
        old = [s for s in true if (near[s] < s - OLD).any() and not begin < s < end + OLD]
        first = (min(found) - min(true)) / SECOND if found and true else math.nan
        rows.append(
            {
                "robot": name,
                "keyframes": len(one["own"]),
                "km": round(float(path_length(np.array(one["poses"]))[-1]) / 1e3, 3),
                "true places": len(true),
                "found": len(found & set(true)),
                "served": len(old),
                "found, served": len(found & set(old)),
                "edges": len(edges),
                "right": sum(right),
                "first edge [s]": round(first, 1),
                "questions": one["asked"],
            }
        )
    return rows


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums, and the median of the first edges."""
    summed = {name: sum(row[name] for row in rows) for name in rows[0] if name != "robot"}
    first = np.nanmedian([row["first edge [s]"] for row in rows])
    return {"robot": "all", **summed, "km": round(summed["km"], 3), "first edge [s]": round(float(first), 1)}


def main() -> None:
    """Drive, judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--town", type=int, default=TOWN, help="seed of the town and of the first robot's way")
    parser.add_argument("--robots", type=int, default=3, choices=range(2, 5))
    parser.add_argument("--length", type=float, default=300.0, help="of each robot's loop [m]")
    parser.add_argument("--rate", type=float, default=1.0, help="times the recorded pace")
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_argument("--picture", type=Path, help="the robots in one map")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        left, proxies, payloads = play(args.town, args.robots, args.length, args.rate, Path(folder))
    rows = judged(left, args.length)
    for row, proxy in zip(rows, proxies, strict=True):
        row["MB/km up"], row["MB/km down"] = (round(x / 1e6 / row["km"], 1) for x in (proxy.up, proxy.down))
    whole = total(rows)
    whole["MB/km up"], whole["MB/km down"] = (
        round(sum(getattr(p, name) for p in proxies) / 1e6 / whole["km"], 1) for name in ("up", "down")
    )
    print(markdown([*rows, whole]))
    share = (whole["found"] / max(whole["true places"], 1), whole["found, served"] / max(whole["served"], 1))
    print(f"\nfound {share[0]:.3f} of the true places, {share[1]:.3f} of those served; ", end="")
    print(f"precision {whole['right'] / max(whole['edges'], 1):.3f}")
    print(f"keyframes described {whole['keyframes']}, in the fleet {len(payloads)}, the server killed in between")
    print(f"payload of a keyframe: median {np.median(payloads) / 1e3:.1f} kB, greatest {max(payloads) / 1e3:.1f} kB")
    lost, bad, held = (sum(one[name] for one in left.values()) for name in ("lost", "bad", "held"))
    print(f"messages lost {lost}, rows left out {bad}; the players were held back for {held:.1f} s in all")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_csv(args.out / "robots.csv", [*rows, whole])
        (args.out / "left.json").write_text(json.dumps(left))
    if args.picture:
        draw(left, args.picture)


def draw(left: dict[str, Any], path: Path) -> None:
    """The first robot's map: its own keyframes, those of the others in it, and the edges between them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from vlad_ros.plots.style import BLUE, GREEN, GREY, VERMILION

    colours = dict(zip(NAMES, (VERMILION, GREEN, BLUE, GREY), strict=True))
    name, one = max(left.items(), key=lambda item: len({row[0] for row in item[1]["map"]}))
    places = {(robot, stamp): (x, y) for robot, stamp, x, y in one["map"]}
    figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
    for edge in one["edges"]:
        ends = [places.get(key) for key in ((name, edge["query"]), (edge["robot"], edge["match"]))]
        if edge["robot"] != name and None not in ends:
            axes.plot(*zip(*ends, strict=True), color="black", lw=0.6, zorder=1)
    for robot in left:
        own = np.array([xy for (other, _), xy in places.items() if other == robot]).reshape(-1, 2)
        label = f"{robot}, {len(own)} keyframes" + (" of its own" if robot == name else " from the fleet")
        axes.scatter(*own.T, s=9, color=colours[robot], label=label, zorder=2)
    axes.set(aspect="equal", xlabel="x [m]", ylabel="y [m]", title=f"robot {name}'s map")
    axes.legend(loc="best")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
