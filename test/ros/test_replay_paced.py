# SPDX-License-Identifier: Apache-2.0
"""`vlad replay` into a real node while one of them stands still, or the computer is busy: every cloud once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
pytestmark = pytest.mark.ros

from ros_harness import SECOND, Robot, live_node, place, untrained_weights, wait_for  # noqa: E402

from vlad_ros.config import ImportConfig  # noqa: E402
from vlad_ros.files.bags import StampedScan, write_bag  # noqa: E402
from vlad_ros.poses import from_xyz_rpy  # noqa: E402
from vlad_ros.ros.tools.node_process import NodeProcess  # noqa: E402

FROZEN_S = 6.0
STEP = 0.3  # m between two scans


def write_drive(path: Path, first: int, scans: int, period: int) -> Path:
    """A bag of small clouds and odometry that goes on from the `first` scans of earlier ones, `period` [ns] apart."""
    stamps = [(1 + first) * 1000 * SECOND + k * period for k in range(scans)]
    poses = [from_xyz_rpy((STEP * (first + k), 0, 0, 0, 0, 0)) for k in range(scans)]
    clouds = [place(seed, 2000) for seed in range(3)]
    write_bag(path, (StampedScan(s, clouds[k % 3], poses[k]) for k, s in enumerate(stamps)), ImportConfig())
    return path


class Live:
    """One node for all replays; its queue holds two scans."""

    def __init__(self, robot: Robot, node: NodeProcess, folder: Path) -> None:
        self.robot, self.node, self.folder = robot, node, folder
        self.played = 0

    def received(self) -> int:
        """Clouds that the node says it has received."""
        return int(self.robot.diagnostics.get("clouds received", "0"))

    def replay(self, *options: str, scans: int = 40, period: int = SECOND // 10, frozen: tuple[str, ...] = ()) -> str:
        """Play a new bag, with `node` or `player` or both stopped for `FROZEN_S` in its middle; what the player says.
        AssertionError unless the node has received every cloud once, and used it."""
        bag = write_drive(self.folder / f"bag{self.played}", self.played, scans, period)
        argv = [sys.executable, "-m", "vlad_ros.cli", "replay", str(bag), *options]
        player = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            if frozen:
                wait_for(lambda: self.received() >= self.played + scans // 4, "the replay does not begin", 120.0)
                freeze([{"node": self.node.process.pid, "player": player.pid}[name] for name in frozen])
            said, _ = player.communicate(timeout=200)
        finally:
            player.kill()
        self.played += scans
        self.robot.wait_report()
        assert player.returncode == 0 and f"{2 * scans} messages" in said, said
        assert self.received() == self.played, said
        between_bags, sent_again = {"odometry_jump", "pause"}, {"points_lost", "odom_lost"}
        assert set(self.robot.counts()) <= between_bags | sent_again, (
            f"dropped or heard twice: {self.robot.counts()}\n{said}"
        )
        return said


def freeze(processes: list[int]) -> None:
    """Stop them, and let them go on."""
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(FROZEN_S)
    for pid in processes:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def busy(loops: int = 2) -> Iterator[None]:
    """So many processes that do nothing but take the time of a core each."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("paced")
    weights = untrained_weights(folder / "w.safetensors")
    parameters = {"weights": weights, "queue_size": 2, "keyframe_distance": 5.0, "min_probability": 1.0}
    with live_node(folder / "node.log", **parameters) as (robot, node):
        yield Live(robot, node, folder)


def test_a_node_that_stands_still_gets_the_rest_at_the_recorded_pace(live: Live) -> None:
    assert "its listeners held it back" in live.replay(frozen=("node",))


def test_a_player_that_stands_still_plays_on_from_there(live: Live) -> None:
    assert "the player stood still" in live.replay(frozen=("player",))


def test_two_busy_loops_beside_and_everything_frozen(live: Live) -> None:
    with busy():
        live.replay("--rate", "4", frozen=("node", "player"))


def test_lossless_is_as_fast_as_the_node(live: Live) -> None:
    """Twenty seconds of bag time, without waiting for them."""
    said = live.replay("--lossless", scans=40, period=SECOND // 2)
    assert "times the recorded speed" in said and "late" not in said
    live.replay("--lossless", frozen=("node",))
