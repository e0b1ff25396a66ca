# SPDX-License-Identifier: Apache-2.0
"""The map's life with the live node: saved, loaded, locked, and safe from full disks, signals and kill -9."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ros_harness import SECOND, Robot, cloud, live_node, node_argv, place, untrained_weights, wait_for  # noqa: E402
from vlad_ros.mapping.map_file import read_map  # noqa: E402

from vlad_ros.ros.tools.node_process import NodeProcess  # noqa: E402

SINGLE_SCANS = {"keyframe_source": "all", "odom_source": "none", "device": "cpu"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_weights(tmp_path_factory.mktemp("weights") / "untrained.safetensors")


def drive(robot: Robot, number: int, start: int = 100) -> None:
    """Have `number` places described."""
    before = robot.answered
    for i in range(number):
        robot.send(cloud((start + i) * SECOND, place(i)))
        wait_for(lambda i=i: robot.answered > before + i, "a scan is not answered")


def keyframes_in(path: Path) -> int:
    """How many keyframes a map file holds; MapError where it is damaged."""
    arrays, _ = read_map(path)
    return len(arrays["stamps"])


def test_killed_in_the_middle_of_a_save_the_map_answers_a_new_process(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "street.map"
    settings = SINGLE_SCANS | {"weights": weights, "map_path": path}
    with live_node(tmp_path / "a.log", **settings) as (robot, process):
        drive(robot, 5)
        success, sentence = robot.ask("save_map")
        assert success and "5 keyframes" in sentence
        saver = threading.Thread(target=save_until_dead, args=(robot,), daemon=True)
        saver.start()
        wait_for(lambda: list(tmp_path.glob("street.map.*.tmp")), "no save is under way")
        process.process.kill()
        process.process.wait(10)
        saver.join(30)
    assert keyframes_in(path) == 5

    # The lock went with its holder, and so does what its last save has left.
    with live_node(tmp_path / "b.log", **settings, save_on_exit="true") as (robot, process):
        assert not list(tmp_path.glob("street.map.*.tmp"))
        drive(robot, 5, start=1000)
        for i, (_, rows) in enumerate(robot.closures):
            assert (rows["match_id"][0], rows["match_sec"][0]) == (i, 100 + i)
            assert rows["similarity"][0] == pytest.approx(1.0, abs=1e-5)
            assert (rows["match_session"][0], rows["query_session"][0]) == (0, 1)
        assert robot.ask("clear_map")[0]
        success, sentence = robot.ask("load_map")
        assert success and "5 keyframes" in sentence
        drive(robot, 2, start=2000)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(30) == 0
    assert keyframes_in(path) == 7


def save_until_dead(robot: Robot) -> None:
    """Save again and again, until nobody answers."""
    try:
        while True:
            robot.call_save(1.0)
    except TimeoutError:
        return


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[tuple[Robot, NodeProcess, Path]]:
    """An active node that holds a map of two keyframes and saves it every second."""
    folder = tmp_path_factory.mktemp("owner")
    path = folder / "street.map"
    settings = SINGLE_SCANS | {"weights": weights, "map_path": path, "save_on_exit": "true", "autosave_period": 1.0}
    with live_node(folder / "owner.log", **settings) as (robot, process):
        drive(robot, 2)
        yield robot, process, path


def test_autosave(owner: tuple[Robot, NodeProcess, Path]) -> None:
    _, _, path = owner
    wait_for(lambda: path.exists() and keyframes_in(path) == 2, "the map is not saved by itself")


def test_a_second_node_cannot_have_the_map(owner: tuple[Robot, NodeProcess, Path], weights: Path) -> None:
    robot, _, path = owner
    argv = [*node_argv(weights=weights, map_path=path), "-r", "__node:=second"]
    with NodeProcess(argv, {}, path.parent / "second.log") as second:
        robot.name = "/second"
        try:
            wait_for(lambda: robot.state() == "unconfigured", "the second node does not start")
            assert not robot.configure()
            wait_for(lambda: "another node" in second.tail(3) and str(path) in second.tail(3), second.tail(3))

            absent = path.parent / "absent" / "street.map"
            assert robot.set("map_path", str(absent))[0]
            assert not robot.configure()
            wait_for(lambda: str(absent) in second.tail(3), second.tail(3))

            damaged = path.parent / "damaged.map"
            damaged.write_bytes(path.read_bytes()[:-100])
            assert robot.set("map_path", str(damaged))[0]
            assert not robot.configure()
            wait_for(lambda: str(damaged) in second.tail(3), second.tail(3))
        finally:
            robot.name = "/vlad"


def test_full_disk_is_told_and_the_old_map_stays(owner: tuple[Robot, NodeProcess, Path]) -> None:
    robot, process, path = owner
    wait_for(lambda: path.exists() and keyframes_in(path) == 2, "the map is not saved by itself")
    # No file of this process may grow beyond the map's present size.
    _limit_file_size(process, path.stat().st_size)
    drive(robot, 4, start=200)
    success, sentence = robot.ask("save_map")
    assert not success and str(path) in sentence
    assert keyframes_in(path) == 2
    wait_for(lambda: robot.count("save_failed") > 0, "a failing autosave is not counted")
    robot.deactivate()  # cannot save either: the map is kept until it can
    assert robot.state() == "inactive"
    assert not robot.cleanup()
    assert robot.state() == "inactive" and str(path) in process.tail(3)
    _limit_file_size(process, resource.RLIM_INFINITY)
    assert robot.activate()
    success, sentence = robot.ask("save_map")
    assert success, sentence
    assert keyframes_in(path) == 6


def _limit_file_size(process: NodeProcess, limit: int) -> None:
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def test_interrupted_twice_it_saves_once_and_ends_well(owner: tuple[Robot, NodeProcess, Path]) -> None:
    robot, process, path = owner
    before = keyframes_in(path)
    drive(robot, 1, start=400)
    process.process.send_signal(signal.SIGINT)
    process.process.send_signal(signal.SIGINT)  # launch sends a second one
    assert process.process.wait(30) == 0
    assert keyframes_in(path) == before + 1
