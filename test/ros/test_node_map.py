# SPDX-License-Identifier: Apache-2.0
"""The map's life with the live node: on disk as it drives, locked, shared, and safe from full disks and kill -9."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ros_harness import SECOND, Robot, cloud, live_node, node_argv, place, untrained_weights, wait_for  # noqa: E402

from vlad_ros import cli  # noqa: E402
from vlad_ros.mapping.database import KeyframeDatabase  # noqa: E402
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
    """How many keyframes a map file holds, also one that a node is extending; MapError where it is damaged."""
    database = KeyframeDatabase.open(path)
    try:
        assert not database.faults
        return len(database)
    finally:
        database.close()


def test_killed_it_loses_at_most_a_second_and_a_new_process_goes_on(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "street.map"
    settings = SINGLE_SCANS | {"weights": weights, "map_path": path}
    with live_node(tmp_path / "a.log", **settings) as (robot, process):
        drive(robot, 5)
        time.sleep(1.0)
        process.process.kill()
        process.process.wait(10)
    assert keyframes_in(path) == 5

    with live_node(tmp_path / "b.log", **settings) as (robot, process):  # the lock went with its holder
        drive(robot, 5, start=1000)
        for i, (_, rows) in enumerate(robot.closures):
            assert (rows["match_id"][0], rows["match_sec"][0]) == (i, 100 + i)
            assert rows["similarity"][0] == pytest.approx(1.0, abs=1e-5)
            assert (rows["match_session"][0], rows["query_session"][0]) == (0, 1)
        success, sentence = robot.ask("clear_map")
        (aside,) = tmp_path.glob("street.*.map")
        assert success and "10 keyframes" in sentence and str(aside) in sentence
        drive(robot, 2, start=2000)
        success, sentence = robot.ask("load_map")
        assert success and "2 keyframes" in sentence
        drive(robot, 1, start=3000)
        assert robot.closures[-1][1]["match_session"][0] == 0 and robot.closures[-1][1]["query_session"][0] == 1
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(30) == 0
    assert not list(tmp_path.glob("*-wal")), "a clean end leaves one file"
    assert (keyframes_in(path), keyframes_in(aside)) == (3, 10)


def test_any_number_of_nodes_localise_in_a_map_and_never_write_it(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "street.map"
    settings = SINGLE_SCANS | {"weights": weights, "map_path": path}
    with live_node(tmp_path / "maker.log", **settings) as (robot, _):
        drive(robot, 2)
    before = path.read_bytes()
    path.with_name("street.map.lock").unlink()

    guest = [*node_argv(**settings, map_mode="localise", autostart="true"), "-r", "__node:=guest"]
    with (
        NodeProcess(guest, {}, tmp_path / "guest.log") as process,
        live_node(tmp_path / "node.log", **settings, map_mode="localise") as (robot, _),
    ):
        wait_for(lambda: process.tail(1).endswith("active"), "the guest does not start")
        wait_for(lambda: robot.listeners == 2, "one of them does not subscribe")
        drive(robot, 2)
        for name in ("/guest", "/vlad"):
            robot.name = name
            robot.diagnostics.clear()
            wait_for(lambda: robot.diagnostics.get("keyframes in the map") == "4", "the scans are not described")
            success, sentence = robot.ask("save_map")
            assert not success and "localise" in sentence and str(path) in sentence
            success, sentence = robot.ask("clear_map")
            assert success and sentence == f"4 keyframes forgotten; {path} is as it was"
            success, sentence = robot.ask("load_map")
            assert success and "2 keyframes" in sentence
        assert [rows["match_session"][0] for _, rows in robot.closures] == [0, 0]
    assert path.read_bytes() == before and not path.with_name("street.map.lock").exists()


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[tuple[Robot, NodeProcess, Path]]:
    """An active node that has put two keyframes into its map."""
    folder = tmp_path_factory.mktemp("owner")
    path = folder / "street.map"
    settings = SINGLE_SCANS | {"weights": weights, "map_path": path, "save_on_exit": "true"}
    with live_node(folder / "owner.log", **settings) as (robot, process):
        drive(robot, 2)
        yield robot, process, path


def test_what_it_adds_is_soon_there_to_read_and_to_copy(owner: tuple[Robot, NodeProcess, Path]) -> None:
    robot, process, path = owner
    wait_for(lambda: keyframes_in(path) == 2, "the map does not grow")
    assert cli.main(["map", "copy", str(path), "-o", str(path.parent / "copy.map")]) == 0
    assert keyframes_in(path.parent / "copy.map") == 2
    success, sentence = robot.ask("save_map")
    assert success and "2 keyframes" in sentence and str(path) in sentence
    assert "save_on_exit does nothing" in process.log.read_text()


def test_a_second_node_cannot_extend_the_map(owner: tuple[Robot, NodeProcess, Path], weights: Path) -> None:
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
            damaged.write_bytes(path.read_bytes()[:2000])
            assert robot.set("map_path", str(damaged))[0]
            assert not robot.configure()
            wait_for(lambda: str(damaged) in second.tail(3), second.tail(3))
        finally:
            robot.name = "/vlad"


def test_full_disk_is_told_and_what_waits_is_written_later(owner: tuple[Robot, NodeProcess, Path]) -> None:
    robot, process, path = owner
    assert robot.ask("save_map")[0]
    before = keyframes_in(path)
    _limit_file_size(process, 8192)  # no file of this process may grow beyond that
    drive(robot, 4, start=200)
    success, sentence = robot.ask("save_map")
    assert not success and str(path) in sentence
    wait_for(lambda: robot.count("save_failed") > 0, "it is not counted")
    assert keyframes_in(path) == before
    robot.deactivate()
    assert robot.state() == "inactive"
    assert not robot.cleanup()  # the map is kept in memory until it can be written
    assert robot.state() == "inactive" and str(path) in process.tail(3)
    _limit_file_size(process, resource.RLIM_INFINITY)
    assert robot.activate()
    wait_for(lambda: keyframes_in(path) == before + 4, "what waited is not written when there is room")
    success, sentence = robot.ask("save_map")
    assert success, sentence


def _limit_file_size(process: NodeProcess, limit: int) -> None:
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def test_interrupted_twice_it_ends_well_and_loses_nothing(owner: tuple[Robot, NodeProcess, Path]) -> None:
    robot, process, path = owner
    before = keyframes_in(path)
    drive(robot, 1, start=400)
    process.process.send_signal(signal.SIGINT)
    process.process.send_signal(signal.SIGINT)  # launch sends a second one
    assert process.process.wait(30) == 0
    assert not path.with_name(path.name + "-wal").exists(), "a clean end leaves one file"
    assert keyframes_in(path) == before + 1
