# SPDX-License-Identifier: Apache-2.0
"""The node's states, in its own process over real DDS: what is refused and why, what is answered, what is saved."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ros_harness import (  # noqa: E402
    SECOND,
    Robot,
    cloud,
    live_node,
    node_argv,
    odometry,
    place,
    resident,
    untrained_weights,
    wait_for,
)

from vlad_ros.ros.tools.node_process import NodeProcess  # noqa: E402


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_weights(tmp_path_factory.mktemp("weights") / "untrained.safetensors")


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[tuple[Robot, NodeProcess]]:
    """A node that was only started."""
    log = tmp_path_factory.mktemp("idle") / "node.log"
    with live_node(log, active=False, weights=weights) as (robot, process):
        wait_for(lambda: robot.state() == "unconfigured", "the node does not start")
        yield robot, process


def refused_with(robot: Robot, process: NodeProcess, *words: str) -> bool:
    """Whether configure is refused, and the log says all of these words."""
    assert not robot.configure()
    assert robot.state() == "unconfigured"
    wait_for(lambda: all(word in process.tail(3) for word in words), f"{words} not in {process.tail(3)}")
    return True


def test_services_before_activation_answer_what_to_do(idle: tuple[Robot, NodeProcess]) -> None:
    robot, _ = idle
    for service in ("save_map", "load_map", "clear_map"):
        success, message = robot.ask(service)
        assert not success
        assert service in message and "unconfigured" in message and "configure" in message


def test_configure_names_file_and_reason(idle: tuple[Robot, NodeProcess], weights: Path, tmp_path: Path) -> None:
    robot, process = idle
    truncated, foreign, damaged = (tmp_path / name for name in ("truncated", "foreign", "damaged"))
    content = weights.read_bytes()
    truncated.write_bytes(content[: len(content) // 2])
    foreign.write_text("not weights at all, but a letter")
    damaged.write_bytes(content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:])
    try:
        for path, reason in (
            (tmp_path / "absent", "no such weights"),
            (truncated, "not a whole"),
            (foreign, "not a whole"),
            (damaged, "damaged"),
        ):
            assert robot.set("weights", str(path)) == (True, "")
            assert refused_with(robot, process, str(path), reason)
    finally:
        assert robot.set("weights", str(weights))[0]


def test_absent_gpu_is_a_configure_error(idle: tuple[Robot, NodeProcess]) -> None:
    robot, process = idle
    try:
        assert robot.set("device", "cuda:7")[0]
        assert refused_with(robot, process, "cuda:7")
        assert robot.set("device", "tpu")[0]
        assert refused_with(robot, process, "tpu", "cpu")
    finally:
        assert robot.set("device", "cpu")[0]


def test_tf_is_refused_where_it_is_not_installed(idle: tuple[Robot, NodeProcess]) -> None:
    robot, process = idle
    assert robot.set("odom_source", "tf")[0]
    try:
        if importlib.util.find_spec("tf2_ros") is None:
            assert refused_with(robot, process, "tf2_ros", "odom_source")
        else:  # on a robot
            assert robot.configure() and robot.cleanup()
    finally:
        assert robot.set("odom_source", "topic")[0]


def test_wrong_values_are_refused(idle: tuple[Robot, NodeProcess]) -> None:
    robot, _ = idle
    for name, value, word in (
        ("top_k", 0, "range"),
        ("top_k", 1.5, "type"),
        ("odom_source", "wheel", "one of"),
        ("max_range", 1e9, "range"),
    ):
        accepted, reason = robot.set(name, value)
        assert not accepted
        assert word in reason


def test_through_all_states_and_back(idle: tuple[Robot, NodeProcess]) -> None:
    robot, _ = idle
    for _ in range(2):
        assert robot.configure()
        assert robot.state() == "inactive"
        accepted, reason = robot.set("top_k", 5)
        assert not accepted and "inactive" in reason
        assert robot.activate()
        robot.wait_connected()
        assert robot.ask("clear_map")[0]
        assert not robot.ask("save_map")[0]  # map_path is empty
        robot.deactivate()
        assert robot.cleanup()
        assert robot.state() == "unconfigured"
    assert robot.set("top_k", 5) == (True, "")


def test_cleanup_gives_the_memory_back(idle: tuple[Robot, NodeProcess]) -> None:
    robot, process = idle
    sizes = []
    for _ in range(5):
        assert robot.configure() and robot.activate()
        assert robot.cleanup() is False  # not from active
        robot.deactivate()
        assert robot.cleanup()
        sizes.append(resident(process.process.pid))
    assert sizes[-1] < sizes[1] + 30 * 2**20


def test_waiting_keyframes_are_answered_once_at_deactivation(idle: tuple[Robot, NodeProcess]) -> None:
    robot, _ = idle
    assert robot.configure() and robot.activate()
    robot.wait_connected(odom=True)
    stamps = [(10 + i) * SECOND for i in range(6)]
    for i, stamp in enumerate(stamps):  # two metres a second: five-metre half windows stay open
        robot.send(odometry(stamp, 2.0 * i))
        robot.send(cloud(stamp, place(i)))
    wait_for(lambda: robot.diagnostics.get("clouds received") == "6", "the clouds do not arrive")
    reports = robot.reports

    def answered() -> bool:
        nonlocal reports
        if robot.reports > reports:  # in silence the others would be answered, too: a cloud without points breaks it
            reports = robot.reports
            robot.send(cloud(20 * SECOND, place(0)[:0]))
        return len(robot.descriptors) >= 3

    wait_for(answered, "windows that have closed are not answered")
    assert len(robot.descriptors) < 6
    robot.deactivate()
    assert [stamp for stamp, _, _ in robot.descriptors] == stamps
    assert [stamp for stamp, _ in robot.closures] == stamps
    assert robot.cleanup()


def test_autostart_that_fails_ends_with_code_1(tmp_path: Path) -> None:
    argv = node_argv(autostart="true", weights=tmp_path / "absent")
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 1
    assert "no such weights" in ended.stderr + ended.stdout


def test_wrong_overrides_end_with_code_1_and_a_hint() -> None:
    argv = node_argv(autostrt="true", top_k=0, max_range=1, odom_source="wheel")
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    said = ended.stderr + ended.stdout
    assert ended.returncode == 1
    for words in ("did you mean autostart?", "top_k", "max_range"):
        assert words in said
