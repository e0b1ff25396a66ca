# SPDX-License-Identifier: Apache-2.0
"""ROS stays in its room: everything outside vlad_ros/ros runs where no ROS is installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "vlad_ros").rglob("*.py"))
ROS = {"rclpy", "ament_index_python", "sensor_msgs_py", "tf2_ros", "launch", "launch_ros", "builtin_interfaces"}


def is_ros(module: str) -> bool:
    top = module.split(".")[0]
    return top in ROS or top.endswith(("_msgs", "_srvs", "_interfaces"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


def test_ros_is_imported_in_its_room_only() -> None:
    outside = {
        str(path.relative_to(ROOT)): names
        for path in SOURCES
        if "ros" not in path.relative_to(ROOT / "vlad_ros").parts[:-1]
        and (names := {name for name in imports(path) if is_ros(name)})
    }
    assert outside == {}
    assert any(is_ros(name) for path in SOURCES for name in imports(path))  # the scan can find something


def test_the_contract_imports_without_ros() -> None:
    program = f"""
import importlib.abc, sys
sys.path.insert(0, {str(ROOT)!r})
class NoRos(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in {ROS!r} or top.endswith(("_msgs", "_srvs", "_interfaces")):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoRos())
from vlad_ros import PlaceRecognizer
from vlad_ros.model.netvlad import NetVLAD, NetVLADLoupe
import vlad_ros.cli, vlad_ros.parameter_table
print(PlaceRecognizer.__name__)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=240)
    assert ended.stdout.strip() == "PlaceRecognizer", ended.stderr
