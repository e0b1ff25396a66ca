# SPDX-License-Identifier: Apache-2.0
"""docs/localisation.md: its launch files give the node parameters that it has; its answer is one that it gives."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from vlad_ros.config import NodeConfig
from vlad_ros.settings import from_mapping

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "localisation.md").read_text()
PROGRAMS = [ast.parse(block) for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)]


def test_the_launch_files_set_parameters_that_there_are():
    given = [
        ast.literal_eval(node.value)
        for program in PROGRAMS
        for node in ast.walk(program)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "PLACE"
    ]
    assert len(given) == 3 and all(from_mapping(NodeConfig, values).initial_pose_topic for values in given)


def test_the_answer_is_json_with_what_the_page_says():
    (block,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    answer = json.loads(block)
    assert answer["top"] == answer["candidates"][0] and set(answer["top"]) == {"x", "y", "yaw_deg", "score"}
    source = (Path(__file__).resolve().parents[2] / "vlad_ros" / "ros" / "outputs" / "initial_pose.py").read_text()
    errors = set(re.findall(r'"error": "(\w+)"', source))
    assert errors and all(f"`{error}`" in TEXT for error in errors)
    assert all(f'"{key}"' in source or key == "top" for key in answer)
