# SPDX-License-Identifier: Apache-2.0
"""The node as `ros2 launch` would start it, its launch file executed by the recorder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch_recorder import resolve

from vlad_ros.ros.environment import share_folder
from vlad_ros.ros.tools.node_process import NodeProcess


def launch_node(folder: Path, parameters: Mapping[str, Any], **arguments: str) -> NodeProcess:
    """The process that vlad.launch.py starts with these launch arguments; `parameters` go into a parameter file in
    `folder`, where its log goes, too."""
    if parameters:
        lines = [f"    {name}: {json.dumps(value)}\n" for name, value in parameters.items()]
        arguments["params_file"] = str(folder / "parameters.yaml")
        Path(arguments["params_file"]).write_text("/**:\n  ros__parameters:\n" + "".join(lines))
    (argv, env), *_ = resolve(share_folder() / "launch" / "vlad.launch.py", **arguments)
    return NodeProcess(argv, env, folder / "node.log")
