# SPDX-License-Identifier: Apache-2.0
"""A colcon workspace with a clean copy of this package, built and sourced with this interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MADE = {".git", "build", "install", "log", "runs", "demo", "slam"}  # at the top: what is no source


def copy_source(target: Path) -> None:
    """What a fresh clone holds."""
    caches = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv*", "*.egg-info", ".hypothesis")

    def ignored(folder: str, names: list[str]) -> set[str]:
        return set(caches(folder, names)) | (MADE & set(names) if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, target, ignore=ignored)


def bash(command: str, folder: Path, **more: str) -> str:
    """The output of a command line of a robot's shell in `folder`, where `python` is this interpreter and the source
    tree is not on the path; AssertionError with all that it says where it fails."""
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(entry).resolve() != ROOT]
    environment = os.environ | {
        "AMENT_PREFIX_PATH": sys.prefix,
        "CMAKE_PREFIX_PATH": sys.prefix,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path),
    }
    ended = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment | more, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def sourced(folder: Path) -> dict[str, str]:
    """The environment after `. install/setup.bash` in the workspace."""
    lines = bash(". install/setup.bash && env -0", folder).split("\0")
    return dict(line.split("=", 1) for line in lines if line)
