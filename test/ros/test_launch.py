# SPDX-License-Identifier: Apache-2.0
"""The launch file: what it would start, by the recorder; test_robot compares it with the real launch."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch_recorder import LaunchError, describe, resolve, rules

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch" / "vlad.launch.py"
ARGUMENTS = {
    "points",
    "bev",
    "odom",
    "keyframes",
    "base_frame",
    "map",
    "map_mode",
    "fleet",
    "robot",
    "params_file",
    "use_sim_time",
    "namespace",
    "device",
    "autostart",
}
ENVIRONMENT = {
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "OMP_WAIT_POLICY",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def started(**arguments: str) -> tuple[list[str], dict[str, str]]:
    (process,) = resolve(LAUNCH, **arguments)
    return process


def test_arguments_are_listed_without_running_anything() -> None:
    declared = {entity.name: entity for entity in describe(LAUNCH).entities if hasattr(entity, "default_value")}
    assert set(declared) == ARGUMENTS
    assert all(argument.description for argument in declared.values())
    page = (ROOT / "docs" / "parameters.md").read_text()
    for name, argument in declared.items():
        default = "config/vlad.yaml" if name == "params_file" else argument.default_value
        assert f"| `{name}` | {default and f'`{default}`'} | {argument.description} |\n" in page


def test_defaults_start_the_node_active_with_the_shipped_parameters() -> None:
    argv, env = started()
    assert rules(argv, "-r") == ["__node:=vlad", "points:=points", "bev:=bev", "odom:=odom", "keyframes:=keyframes"]
    assert rules(argv, "-p") == ["autostart:=True"]
    assert rules(argv, "--params-file") == [str(ROOT / "config" / "vlad.yaml")]
    assert set(env) == ENVIRONMENT
    assert Path(env["FASTRTPS_DEFAULT_PROFILES_FILE"]).is_file()


def test_arguments_reach_the_node_after_the_parameter_file() -> None:
    argv, _ = started(
        points="/velodyne_points",
        bev="/bev",
        odom="/odometry",
        base_frame="base_link",
        map="/maps/a.map",
        map_mode="localise",
        fleet="http://127.0.0.1:19530",
        robot="b-7",
        use_sim_time="true",
        namespace="robot",
        device="cuda:1",
        autostart="false",
    )
    assert {"points:=/velodyne_points", "bev:=/bev", "odom:=/odometry", "__ns:=/robot"} < set(rules(argv, "-r"))
    assert set(rules(argv, "-p")) == {
        "use_bev:=True",
        "base_frame:='base_link'",
        "map_path:='/maps/a.map'",
        "map_mode:='localise'",
        "fleet_uri:='http://127.0.0.1:19530'",
        "robot:='b-7'",
        "use_sim_time:=True",
        "device:='cuda:1'",
        "autostart:=False",
    }
    assert argv.index("--params-file") < argv.index("-p")  # later wins in rcl


@pytest.mark.ros
@pytest.mark.parametrize(
    "name", ["it's.map", "a: b.map", "two words #1.map", '"quoted".map', "back\\slash", "2024-05-01", "7"]
)
def test_any_path_reaches_the_node_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A map's, and a parameter file's in the home folder: through launch, rcl and the node."""
    rclpy = pytest.importorskip("rclpy")
    from vlad_ros.ros.inputs import parameters

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / name).write_text("/**:\n  ros__parameters:\n    top_k: 3\n")
    argv, _ = started(params_file=f"~/{name}", map=name, base_frame=name)
    context = rclpy.Context()
    rclpy.init(args=argv, context=context)
    node = rclpy.create_node("vlad", context=context)
    try:
        parameters.declare(node, argv)
        node_config, recognizer_config = parameters.read(node)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert (node_config.map_path, node_config.base_frame, recognizer_config.top_k) == (name, name, 3)


def test_what_the_user_has_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/my/profile.xml")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    assert set(started()[1]) == {"OMP_WAIT_POLICY", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}


def test_parameters_of_the_launch_file_exist() -> None:
    from vlad_ros.parameter_table import parameter_fields

    everything = {name: "x" for name in ARGUMENTS - {"params_file"}}
    names = {rule.split(":=")[0] for rule in rules(started(**everything)[0], "-p")}
    assert names - {"use_sim_time"} <= {field.name for field in parameter_fields()}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("from launch.actions import OpaqueFunction", "OpaqueFunction"),
        ("from launch_ros.actions import LifecycleNode", "LifecycleNode"),
        ("import launch.events", "launch.events"),
        ("from launch_ros.actions import Node\nNode(package='a', executable='b', respawn=True)", "respawn"),
        ("def generate_launch_description(): return []", "LaunchDescription"),
    ],
)
def test_the_recorder_fails_loudly_on_what_it_does_not_know(tmp_path: Path, source: str, words: str) -> None:
    path = tmp_path / "launch" / "other.launch.py"
    path.parent.mkdir()
    path.write_text(source)
    with pytest.raises(LaunchError, match=words):
        resolve(path)


def test_the_recorder_refuses_unknown_arguments_files_and_conditions(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="point"):
        started(point="/velodyne_points")
    with pytest.raises(LaunchError, match="absent"):
        started(params_file=str(tmp_path / "absent.yaml"))
    path = tmp_path / "launch" / "maybe.launch.py"
    path.parent.mkdir()
    path.write_text(
        "from launch import LaunchDescription\n"
        "from launch.conditions import IfCondition\n"
        "from launch_ros.actions import SetParameter\n"
        "def generate_launch_description():\n"
        "    return LaunchDescription([SetParameter('a', 1, condition=IfCondition('maybe'))])\n"
    )
    with pytest.raises(LaunchError, match="maybe"):
        resolve(path)
