# SPDX-License-Identifier: Apache-2.0
"""slam.launch.py: both nodes, each told where the other is; and the graph's parameters, from their dataclasses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml
from launch_recorder import describe, resolve, rules

from vlad_ros.graph_config import GraphNodeConfig, PoseGraphConfig
from vlad_ros.parameter_table import GRAPH, markdown, parameter_fields, yaml_text
from vlad_ros.settings import from_mapping

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch" / "slam.launch.py"


def test_both_nodes_are_started_and_hear_each_other() -> None:
    (place, _), (graph, _) = resolve(LAUNCH, points="/velodyne_points", odom="/wheel", graph="/maps/it's.graph")
    assert place[2] == "vlad_ros.ros.node" and graph[2] == "vlad_ros.ros.graph_node"
    assert {"points:=/velodyne_points", "odom:=/wheel", "keyframes:=vlad_graph/corrections"} < set(rules(place, "-r"))
    assert rules(graph, "-r") == [
        "__node:=vlad_graph",
        "odom:=/wheel",
        "keyframes:=vlad/keyframes",
        "loop_closures:=vlad/loop_closures",
        "guests:=vlad/guests",
        "pose:=vlad/pose",
    ]
    assert rules(graph, "-p") == ["graph_path:='/maps/it''s.graph'", "autostart:=True"]
    assert rules(graph, "--params-file") == [str(ROOT / "config" / "vlad_graph.yaml")]


def test_names_are_relative_so_that_a_namespace_holds_both() -> None:
    for argv, _ in resolve(LAUNCH, namespace="robot"):
        assert "__ns:=/robot" in rules(argv, "-r")


def test_every_argument_is_described() -> None:
    declared = [entity for entity in describe(LAUNCH).entities if hasattr(entity, "default_value")]
    assert len(declared) == 13 and all(argument.description for argument in declared)


def test_file_and_page_hold_every_parameter_of_the_graph() -> None:
    made_by = "python -m vlad_ros.parameter_table --graph --yaml > config/vlad_graph.yaml"
    assert (ROOT / "config" / "vlad_graph.yaml").read_text() == yaml_text(GRAPH), made_by
    assert markdown(GRAPH) in (ROOT / "docs" / "slam.md").read_text(), "put there what `vlad parameters --graph` prints"
    values = yaml.safe_load(yaml_text(GRAPH))["/**"]["ros__parameters"]
    assert set(values) == {field.name for field in parameter_fields(GRAPH)}
    for kind in (GraphNodeConfig, PoseGraphConfig):
        names = {field.name for field in dataclasses.fields(kind)}
        assert from_mapping(kind, {name: value for name, value in values.items() if name in names}) == kind()
