# SPDX-License-Identifier: Apache-2.0
"""The package as colcon installs it, from clean: its executables, launch file, configuration and weights."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from workspace import bash, copy_source, sourced

ROOT = Path(__file__).resolve().parents[2]


def test_package_xml_is_valid() -> None:
    catkin_package = pytest.importorskip("catkin_pkg.package")
    warnings: list[str] = []
    package = catkin_package.parse_package(str(ROOT / "package.xml"), warnings=warnings)
    package.validate(warnings=warnings)
    assert warnings == []
    assert package.package_format == 3
    assert package.get_build_type() == "ament_python"
    assert [license.file for license in package.licenses] == ["LICENSE"]


def test_every_imported_message_package_is_declared() -> None:
    declared = {element.text for element in ElementTree.parse(ROOT / "package.xml").getroot().iter("exec_depend")}
    imported = set()
    for path in [*(ROOT / "vlad_ros" / "ros").rglob("*.py"), ROOT / "launch" / "vlad.launch.py"]:
        found = re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
        imported.update(name for name in found if name.endswith(("_msgs", "_srvs", "_interfaces", "_py")))
        imported.update({"rclpy", "launch", "launch_ros"} & set(found))
    assert imported
    assert imported <= declared


def test_the_version_is_the_same_everywhere() -> None:
    from vlad_ros import __version__

    setup = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())
    assert setup is not None and setup[1] == __version__
    assert ElementTree.parse(ROOT / "package.xml").getroot().findtext("version") == __version__


def test_the_changelog_reads_as_ament_wants_it() -> None:
    changelog = pytest.importorskip("catkin_pkg.changelog")
    text = (ROOT / "CHANGELOG.rst").read_text()
    forthcoming = "Forthcoming\n-----------\n"
    assert forthcoming in text
    released = text.replace(forthcoming, "9.9.9 (2030-01-01)\n------------------\n")  # as a release will do
    entries = changelog.populate_changelog_from_rst(changelog.Changelog(), released)
    ((version, _, content),) = [entry for entry in entries.foreach_version() if entry[0] == "9.9.9"]
    assert version == "9.9.9" and "launch file" in str(content[0])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The install prefix after `colcon build` of a clean copy, with this interpreter."""
    pytest.importorskip("colcon_core")
    folder = tmp_path_factory.mktemp("colcon")
    copy_source(folder / "src" / "vlad_ros")
    bash("python -m colcon build", folder)
    return folder / "install" / "vlad_ros"


def environment_of(prefix: Path) -> dict[str, str]:
    """What sourcing the workspace sets; the source tree is not among it."""
    environment = sourced(prefix.parents[1])
    assert environment["AMENT_PREFIX_PATH"].split(":")[0] == str(prefix)
    return environment


@pytest.mark.slow
@pytest.mark.ros
def test_everything_is_installed(installed: Path) -> None:
    share = installed / "share" / "vlad_ros"
    for path in (
        installed / "lib" / "vlad_ros" / "vlad",
        installed / "lib" / "vlad_ros" / "vlad_node",
        share / "launch" / "vlad.launch.py",
        share / "config" / "vlad.yaml",
        share / "config" / "fastdds_shm.xml",
        share / "package.xml",
        installed / "share" / "ament_index" / "resource_index" / "packages" / "vlad_ros",
    ):
        assert path.is_file(), path
    (package,) = installed.glob("lib/python3*/site-packages/vlad_ros")
    expected = {
        path.relative_to(ROOT / "vlad_ros")
        for pattern in ("*.py", "*.yaml", "*.safetensors")
        for path in (ROOT / "vlad_ros").rglob(pattern)
    }
    assert {path for path in expected if not (package / path).is_file()} == set()
    assert not (package.parent / "test").exists()


@pytest.mark.slow
@pytest.mark.ros
def test_the_installed_tool_runs(installed: Path, tmp_path: Path) -> None:
    tool = [str(installed / "lib" / "vlad_ros" / "vlad"), "--help"]
    ended = subprocess.run(
        tool, cwd=tmp_path, env=environment_of(installed), capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "evaluate" in ended.stdout


@pytest.mark.slow
@pytest.mark.ros
def test_the_installed_node_comes_up_by_the_installed_launch_file(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy")
    from launch_recorder import resolve
    from ros_harness import SECOND, Robot, cloud, place, untrained_weights, wait_for

    from vlad_ros.ros.environment import DDS_PROFILE
    from vlad_ros.ros.tools.node_process import NodeProcess

    for name in DDS_PROFILE:
        monkeypatch.delenv(name, raising=False)
    settings = tmp_path / "settings.yaml"
    weights = untrained_weights(tmp_path / "untrained.safetensors")
    parameters = f'weights: "{weights}"\n    keyframe_source: all\n    odom_source: none\n'
    settings.write_text(f"/**:\n  ros__parameters:\n    {parameters}")
    launch_file = installed / "share" / "vlad_ros" / "launch" / "vlad.launch.py"
    ((argv, env),) = resolve(launch_file, params_file=str(settings), points="points", device="cpu")
    assert argv[0] == str(installed / "lib" / "vlad_ros" / "vlad_node")
    assert env["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(installed / "share" / "vlad_ros" / "config" / "fastdds_shm.xml")
    monkeypatch.chdir(tmp_path)
    with Robot() as robot, NodeProcess(argv, environment_of(installed) | env, tmp_path / "node.log") as process:
        robot.wait_active(process, 180.0)
        robot.wait_connected()
        robot.send(cloud(100 * SECOND, place(0)))
        wait_for(lambda: robot.descriptors, "the installed node does not answer")
