# SPDX-License-Identifier: Apache-2.0
"""One source for every parameter: the dataclasses, the declared parameters, config/vlad.yaml, docs/parameters.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from vlad_ros.config import NodeConfig, RecognizerConfig
from vlad_ros.parameter_table import markdown, parameter_fields, yaml_text
from vlad_ros.settings import from_mapping

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


def declared(node, *arguments: str):
    from vlad_ros.ros.inputs import parameters

    parameters.declare(node, ["vlad_node", "--ros-args", *arguments])
    return node


@pytest.fixture
def rclpy_node() -> Iterator:
    """Makes nodes with the given overrides and all parameters declared."""
    rclpy = pytest.importorskip("rclpy")
    context = rclpy.Context()
    made = []

    def make(*arguments: str) -> object:
        options = ["--ros-args", *arguments] if arguments else []
        made.append(rclpy.create_node("vlad", context=context, cli_args=options))
        return made[-1]

    rclpy.init(context=context)
    yield lambda *arguments: declared(make(*arguments), *arguments)
    for node in made:
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.ros
def test_declared_parameters_carry_description_and_range(rclpy_node) -> None:
    from vlad_ros.ros.inputs import parameters

    node = rclpy_node()
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
    assert parameters.read(node) == (NodeConfig(), RecognizerConfig())


@pytest.mark.ros
def test_overrides_are_read_back(rclpy_node) -> None:
    from vlad_ros.ros.inputs import parameters

    mounting = "mounting_xyz_rpy:=[1.0, 0.0, 0.5, 0.0, 0.0, 3.1]"
    node = rclpy_node("-p", "top_k:=3", "-p", "device:=cuda:1", "-p", mounting, "-p", "use_sim_time:=true")
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
        ("max_range:=five", "max_range"),
        ("max_range:=1000000", "max_range"),
        ("max_range:=1000000.0", "max_range"),
        ("odom_source:=wheel", "odom_source must be one of"),
        ("mounting_xyz_rpy:=[1.0, 2.0]", "six numbers"),
        ("autostart:=5", "autostart"),
    ],
)
def test_wrong_overrides_are_refused_by_name(rclpy_node, override: str, words: str) -> None:
    from vlad_ros.ros.inputs import parameters

    with pytest.raises(parameters.ParameterError) as error:
        rclpy_node("-p", override)
    assert words in str(error.value)


@pytest.mark.ros
def test_changes_are_refused_while_configured(rclpy_node) -> None:
    from rclpy.parameter import Parameter

    from vlad_ros.ros.inputs import parameters

    node = rclpy_node()
    change = [Parameter("top_k", Parameter.Type.INTEGER, 3)]
    assert parameters.check(node, change, "unconfigured").successful
    answer = parameters.check(node, change, "active")
    assert not answer.successful and "top_k" in answer.reason and "clean it up" in answer.reason
    assert not parameters.check(node, [Parameter("odom_source", value="wheel")], "unconfigured").successful
    assert parameters.check(node, [Parameter("use_sim_time", value=True)], "active").successful


@pytest.mark.ros
def test_integers_are_taken_where_decimal_numbers_are_meant(rclpy_node) -> None:
    from vlad_ros.ros.inputs import parameters

    node = rclpy_node("-p", "max_range:=50", "-p", "mounting_xyz_rpy:=[1, 0, 1, 0, 0, 3]")
    node_config, recognizer_config = parameters.read(node)
    assert recognizer_config.max_range == 50.0 and node_config.mounting_xyz_rpy == (1.0, 0.0, 1.0, 0.0, 0.0, 3.0)
    assert isinstance(node.get_parameter("max_range").value, float)


def written(folder: Path, text: str) -> str:
    path = folder / "all nodes.yaml"
    path.write_text(text)
    return str(path)


BRINGUP = """
/**:
  ros__parameters: {use_sim_time: true, robot_base_frame: base_link, max_range: 60, costmap: {resolution: 0.05}}
/controller:
  ros__parameters: {frequency: 20.0}
"""


@pytest.mark.ros
def test_a_file_for_all_nodes_of_a_robot_serves_this_one(rclpy_node, tmp_path: Path) -> None:
    from vlad_ros.ros.inputs import parameters

    node = rclpy_node("--params-file", written(tmp_path, BRINGUP))
    assert parameters.read(node)[1] == RecognizerConfig(max_range=60.0)


@pytest.mark.ros
@pytest.mark.parametrize("section", ["vlad", "/vlad", "/**/vlad"])
def test_an_unknown_name_in_a_section_of_this_node_is_an_error(rclpy_node, tmp_path: Path, section: str) -> None:
    from vlad_ros.ros.inputs import parameters

    path = written(tmp_path, f"{section}:\n  ros__parameters: {{tpo_k: 3}}\n")
    with pytest.raises(parameters.ParameterError, match=r"tpo_k; did you mean top_k\?"):
        rclpy_node("--params-file", path)
    with pytest.raises(parameters.ParameterError, match="robot_base_frame"):
        rclpy_node("--params-file", written(tmp_path, BRINGUP), "-p", "robot_base_frame:=base_link")


@pytest.mark.ros
def test_a_misspelt_name_for_all_nodes_is_warned_of(rclpy_node, tmp_path: Path, capfd) -> None:
    rclpy_node("--params-file", written(tmp_path, "/**:\n  ros__parameters: {min_probabilty: 0.5, frequency: 2.0}\n"))
    said = capfd.readouterr().err
    assert "min_probabilty (min_probability)" in said and "frequency" not in said


ALL, OWN = "/**: {ros__parameters: {%s}}\n", "/vlad: {ros__parameters: {%s}}\n"


@pytest.mark.ros
@pytest.mark.parametrize(
    ("files", "arguments", "wanted"),
    [
        ([ALL % "max_range: 60"], ["max_range:=50.5"], RecognizerConfig(max_range=50.5)),
        ([ALL % "max_range: 60", ALL % "max_range: 50.5"], [], RecognizerConfig(max_range=50.5)),
        ([ALL % "use_sim_time: true, top_k: 3" + OWN % "top_k: 4"], ["top_k:=5"], RecognizerConfig(top_k=5)),
        ([ALL % "top_k: 3" + OWN % "top_k: 4"], [], RecognizerConfig(top_k=4)),
        ([ALL % "top_k: 3" + "/other: {ros__parameters: {top_k: 4}}"], [], RecognizerConfig(top_k=3)),
        ([ALL % "top_k: 3"], ["vlad:top_k:=5", "other:top_k:=6"], RecognizerConfig(top_k=5)),
        ([ALL % "body_box: [0, 0, 0, 1, 1, 1]"], ["body_box:=[]"], RecognizerConfig()),
        ([ALL % "body_box: []"], ["body_box:=[]"], RecognizerConfig()),
        ([], ["body_box:=[0, 0, 0, 1, 1, 1]", "body_box:=[0.0, 0.0, 0.0, 2.5, 1.0, 1.0]"], None),
    ],
)
def test_what_is_given_last_counts(rclpy_node, tmp_path: Path, files: list, arguments: list, wanted) -> None:
    """Whatever is an integer, and whatever section of a file comes between."""
    from vlad_ros.ros.inputs import parameters

    words = []
    for number, text in enumerate(files):
        (tmp_path / f"{number}.yaml").write_text(text)
        words += ["--params-file", str(tmp_path / f"{number}.yaml")]
    words += [word for argument in arguments for word in ("-p", argument)]
    wanted = wanted or RecognizerConfig(body_box=(0.0, 0.0, 0.0, 2.5, 1.0, 1.0))
    assert parameters.read(rclpy_node(*words))[1] == wanted


@pytest.mark.ros
@pytest.mark.parametrize("last", ["max_range:=far", "autostart:=maybe", "top_k:=3.5", "body_box:=1.0"])
def test_a_wrong_value_is_refused_after_a_right_one(rclpy_node, last: str) -> None:
    from vlad_ros.ros.inputs import parameters

    right = ("max_range:=60", "autostart:=on", "top_k:=3", "body_box:=[0, 0, 0, 1, 1, 1]")
    with pytest.raises(parameters.ParameterError, match=last.split(":")[0]):
        rclpy_node(*(word for each in (*right, last) for word in ("-p", each)))
