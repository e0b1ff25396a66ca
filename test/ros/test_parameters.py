# SPDX-License-Identifier: Apache-2.0
"""One source for every parameter: the dataclasses, the declared parameters, config/vlad.yaml, docs/parameters.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from vlad_ros.config import NodeConfig, RecognizerConfig, from_mapping
from vlad_ros.parameter_table import markdown, parameter_fields, yaml_text

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {field.name: field for field in parameter_fields()}


def test_names_are_unique() -> None:
    assert len(FIELDS) == len(dataclasses.fields(NodeConfig)) + len(dataclasses.fields(RecognizerConfig))


def test_the_file_is_what_the_dataclasses_make() -> None:
    assert (ROOT / "config" / "vlad.yaml").read_text() == yaml_text(), (
        "run: python -m vlad_ros.parameter_table --yaml > config/vlad.yaml"
    )


def test_the_file_holds_every_default() -> None:
    values = yaml.safe_load(yaml_text())["/**"]["ros__parameters"]
    assert set(values) == set(FIELDS)
    for kind in (NodeConfig, RecognizerConfig):
        names = {field.name for field in dataclasses.fields(kind)}
        assert from_mapping(kind, {name: value for name, value in values.items() if name in names}) == kind()


def test_the_page_holds_the_table() -> None:
    assert markdown() in (ROOT / "docs" / "parameters.md").read_text(), "put there what `vlad parameters` prints"


def test_the_table_names_every_parameter_with_unit_and_range() -> None:
    table = markdown()
    assert all(f"| `{name}` |" in table for name in FIELDS)
    assert "| `max_range` | `100.0` | 5 .. 1000 m |" in table
    assert "own, all, topic" in table


@pytest.fixture
def rclpy_node() -> Iterator:
    """Makes nodes with the given overrides."""
    rclpy = pytest.importorskip("rclpy")
    context = rclpy.Context()
    made = []

    def make(*arguments: str) -> object:
        options = ["--ros-args", *arguments] if arguments else []
        made.append(rclpy.create_node("vlad", context=context, cli_args=options))
        return made[-1]

    rclpy.init(context=context)
    yield make
    for node in made:
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.ros
def test_declared_parameters_carry_description_and_range(rclpy_node) -> None:
    from vlad_ros.ros.inputs import parameters

    node = rclpy_node()
    parameters.declare(node)
    assert parameters.read(node) == (NodeConfig(), RecognizerConfig())
    for name, field in FIELDS.items():
        descriptor = node.describe_parameter(name)
        assert field.metadata["help"] in descriptor.description
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        low, high = field.metadata["low"], field.metadata["high"]
        if low is not None and not isinstance(field.default, tuple):
            assert ranges[0].from_value == low
        if high is not None:
            assert ranges[0].to_value == high


@pytest.mark.ros
def test_the_shipped_file_is_accepted_whole(rclpy_node) -> None:
    from vlad_ros.ros.inputs import parameters

    node = rclpy_node("--params-file", str(ROOT / "config" / "vlad.yaml"))
    parameters.declare(node)
    assert parameters.read(node) == (NodeConfig(), RecognizerConfig())


@pytest.mark.ros
def test_overrides_are_read_back(rclpy_node) -> None:
    from vlad_ros.ros.inputs import parameters

    mounting = "mounting_xyz_rpy:=[1.0, 0.0, 0.5, 0.0, 0.0, 3.1]"
    node = rclpy_node("-p", "top_k:=3", "-p", "device:=cuda:1", "-p", mounting, "-p", "use_sim_time:=true")
    parameters.declare(node)
    node_config, recognizer_config = parameters.read(node)
    assert recognizer_config == RecognizerConfig(top_k=3)
    assert node_config == NodeConfig(device="cuda:1", mounting_xyz_rpy=(1.0, 0.0, 0.5, 0.0, 0.0, 3.1))


@pytest.mark.ros
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tpo_k:=3", "did you mean top_k?"),
        ("colour:=red", "there is no parameter colour"),
        ("top_k:=0", "top_k"),
        ("top_k:=three", "top_k"),
        ("max_range:=50", "1.0, not 1"),
        ("max_range:=1000000.0", "max_range"),
        ("odom_source:=wheel", "odom_source must be one of"),
        ("mounting_xyz_rpy:=[1.0, 2.0]", "six numbers"),
        ("autostart:=5", "autostart"),
    ],
)
def test_wrong_overrides_are_refused_by_name(rclpy_node, override: str, words: str) -> None:
    from vlad_ros.ros.inputs import parameters

    with pytest.raises(parameters.ParameterError) as error:
        parameters.declare(rclpy_node("-p", override))
    assert words in str(error.value)


@pytest.mark.ros
def test_changes_are_refused_while_configured(rclpy_node) -> None:
    from rclpy.parameter import Parameter

    from vlad_ros.ros.inputs import parameters

    node = rclpy_node()
    parameters.declare(node)
    change = [Parameter("top_k", Parameter.Type.INTEGER, 3)]
    assert parameters.check(node, change, "unconfigured").successful
    answer = parameters.check(node, change, "active")
    assert not answer.successful and "top_k" in answer.reason and "clean it up" in answer.reason
    assert not parameters.check(node, [Parameter("odom_source", value="wheel")], "unconfigured").successful
    assert parameters.check(node, [Parameter("use_sim_time", value=True)], "active").successful
