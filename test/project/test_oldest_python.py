# SPDX-License-Identifier: Apache-2.0
"""Python 3.10, as on Humble's Ubuntu 22.04: what is required has wheels for it, or says that it has none.

That the code uses nothing newer is said by `make lint`: mypy and vermin know the standard library of 3.10.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
OLDEST = "3.10"
WITHOUT_WHEEL = {"gtsam", "rerun-sdk"}  # for CPython 3.10
NUMPY = "numpy<2"  # Humble's message packages are compiled for numpy 1, and its own 1.21 is too old for faiss and numba


def requirements(path: Path) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def test_what_has_no_wheel_says_so() -> None:
    environment = {"python_version": OLDEST, "python_full_version": f"{OLDEST}.12"}
    asked = [each for path in sorted(ROOT.glob("requirements*.txt")) for each in requirements(path)]
    left_out = {each.name for each in asked if each.marker is not None and not each.marker.evaluate(environment)}
    assert {each.name for each in asked} & WITHOUT_WHEEL == left_out


def resolved(report: Path, *wanted: str) -> dict[str, str]:
    """Name and version of the wheels for the oldest Python that pip would install; it asks the package index."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
    pip += ["--ignore-installed", "--target", str(report.parent / "nowhere"), "--report", str(report)]
    pip += ["--python-version", OLDEST, "--only-binary", ":all:"]
    ended = subprocess.run([*pip, *wanted], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    chosen = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {each["name"].lower(): each["version"] for each in chosen}


@pytest.mark.proof
def test_what_the_node_requires_resolves(tmp_path: Path) -> None:
    """Together with all that is required by it in turn, and with Humble's numpy."""
    versions = resolved(tmp_path / "report.json", NUMPY, "-r", "requirements.txt")
    assert versions["numpy"].startswith("1.26.") and {"faiss-cpu", "numba", "torch"} <= set(versions)


@pytest.mark.proof
def test_what_demo_and_tests_require_is_there(tmp_path: Path) -> None:
    """Each by itself: colcon's EmPy is no wheel, which pip asks for where it resolves for another Python."""
    files = ["requirements.txt", "requirements-dev.txt", "requirements-ros.txt", "requirements-fleet.txt"]
    versions = resolved(tmp_path / "report.json", "--no-deps", *(word for file in files for word in ("-r", file)))
    assert {"pytest", "ros-jazzy-rclpy"} <= set(versions)
