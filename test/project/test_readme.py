# SPDX-License-Identifier: Apache-2.0
"""The README: what it promises first; and every command of it and of the other pages, run or resolved."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from workspace import bash, copy_source

from vlad_ros.cli import build_parser, main
from vlad_ros.files.sequence import Sequence, save_sequence

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
# Whose commands are run here; those of the tutorial need each other's results, test_tutorial runs them.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "tutorial.md"),
]


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of this kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The lines of the bash blocks, and the benches that a sentence names."""
    lines = "".join(blocks(text, "bash")).splitlines()
    return [line.split(" # ")[0].strip() for line in lines if line] + re.findall(r"`(python bench/[^`]+)`", text)


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands(page.read_text())))
pytestmark = pytest.mark.xdist_group("readme")  # the commands share a folder, in their order
TINY_RECIPE = """
seed: 0
model: {fea_size: 16, width: 8, num_clusters: 4, num_keypoints: 40}
views:
  near: {worlds: 1, places: 6, views: 4, seed: 1}
held_out: {worlds: 1, places: 4, views: 2, seed: 2}
stages:
  - {name: dense, views: near, steps: 2, places: 2}
  - {name: pairs, views: near, steps: 2, places: 2, global_weight: 1.0}
"""


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty scans of a wall and two posts that a vehicle passes, there and back."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("readme")
    there = np.arange(15) * 2.0
    poses = np.tile(np.eye(4), (30, 1, 1))
    poses[:, 0, 3] = np.concatenate([there, there[::-1]])
    ground = np.c_[rng.uniform(-60, 90, (4000, 2)), np.zeros(4000)]
    wall = np.c_[rng.uniform(-60, 90, 2000), np.full(2000, 8.0), rng.uniform(0, 5, 2000)]
    posts = np.c_[rng.uniform(-30, 60, (20, 2))[rng.integers(0, 20, 1000)], rng.uniform(0, 4, 1000)]
    world = np.concatenate([ground, wall, posts])
    scans = []
    for pose in poses:
        near = world - pose[:3, 3] - [0, 0, 1.5]
        near = near[np.linalg.norm(near, axis=1) < 60]
        scans.append(np.c_[near, np.zeros(len(near))].astype(np.float32))
    save_sequence(folder / "SEQUENCE.npz", Sequence("SEQUENCE", scans, poses, 100.0 + np.arange(30.0)))
    return folder


def test_first_a_sentence_a_picture_a_command_and_what_it_prints() -> None:
    top = README.splitlines()[:20]
    assert top[2].endswith(".") and len(top[2]) > 40
    picture = re.search(r"!\[.+\]\((.+)\)", "\n".join(top))
    assert picture and (ROOT / picture[1]).exists()
    assert top.index("make demo") < 10 and any(line.startswith("```text") for line in top)


def test_no_placeholder_is_left() -> None:
    assert not re.search(r"^[A-Z_]{6,}$", README, re.MULTILINE)


def make(command: str, folder: Path) -> None:
    """The target exists and make can plan it; the demo itself is run by test_demo, the tests are this run."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def vlad(command: str, folder: Path) -> None:
    words = command.split()[1:]
    if words[0] == "watch":
        build_parser("watch").parse_args(words)  # test_live_views runs it beside a node
        return
    if words[0] == "map" or words[:2] == ["plot", "map"]:
        build_parser(words[0]).parse_args(words)  # test/maps runs them on maps and clouds of its own
        return
    if words[0] == "replay":
        pytest.importorskip("rclpy")
        words += ["--rate", "100", "--wait", "0"]
    if words[0] == "train":
        (folder / "tiny.yaml").write_text(TINY_RECIPE)
        words += ["--recipe", str(folder / "tiny.yaml"), "--folder", str(folder / "run"), "--uncalibrated"]
    if "--rerun" in words:
        pytest.importorskip("rerun", reason="rerun-sdk is not installed: pip install rerun-sdk, for a test by hand")
    if words[0] == "report":
        words += ["--pictures", "1"]
    files = ("SEQUENCE", "BAG", "WEIGHTS", "RUN", "GRAPH", "FILE", "BACKBONE")
    words = [str(folder / word) if word.split(".")[0] in files else word for word in words]
    assert main(words) == 0


def launch(command: str, folder: Path) -> None:
    """What the launch file makes of these arguments; that the node then starts, test_launch shows."""
    pytest.importorskip("rclpy")
    from launch_recorder import resolve

    given = dict(word.split(":=") for word in command.split()[4:])
    ((argv, _),) = resolve(ROOT / "launch" / "vlad.launch.py", **given)
    parameters = {
        "map": "map_path",
        "map_mode": "map_mode",
        "fleet": "fleet_uri",
        "robot": "robot",
    }  # the others are topics
    for name, value in given.items():
        assert (f"{parameters[name]}:='{value}'" if name in parameters else f"{name}:={value}") in argv


# What a robot's shell has and a bare machine has not: a workspace's prefix, and an RViz that opens its configuration.
SHELL = f"""
ros2() {{ [ "$*" = "pkg prefix --share vlad_ros" ] && echo "{ROOT}"; }}
rviz2() {{ [ "$1" = -d ] && [ -f "$2" ]; }}
"""
# What each step must have left behind, as a command of the same shell.
PROOFS = {
    "mkdir": "[ -f src/vlad_ros/package.xml ]",
    "python3": "python -c 'import sys; assert sys.prefix.endswith(\"/ws/.venv\")'",
    "python": "[ -f install/vlad_ros/share/vlad_ros/launch/vlad.launch.py ]",
    ".": "[ $(python -c 'import vlad_ros; print(vlad_ros.__file__)' | grep -c /ws/install/) = 1 ]",
    "export": '[ -f "$FASTRTPS_DEFAULT_PROFILES_FILE" ]',
    "rviz2": "true",
}


def robot(command: str, folder: Path) -> None:
    """The steps on a robot, one after the other in a workspace, with this interpreter and what it has installed."""
    first, *_, last = command.split()
    place = folder / "ws" if (folder / "ws").exists() else folder
    if first == "pip":
        place = ROOT if (ROOT / last).exists() else place
        answer = bash(f"python -m pip install --dry-run --no-index -r {last}", place)
        assert "satisfied" in answer and "Would install" not in answer
        return
    if first == "mkdir":
        copy_source(folder / "clone")
        command = command.replace("git clone <this repository>", f"cp -r {folder}/clone")
    bash(f"{SHELL}{command} && {PROOFS[first]}", place, HOME=str(folder))


def milvus(command: str, folder: Path) -> None:
    """Its server takes these options; test/fleet starts one."""
    pytest.importorskip("milvus_lite")
    _, action, *words = command.split()
    known = bash(f"milvus-lite {action} --help", folder)
    assert all(word in known for word in words if word.startswith("--"))


def torchrun(command: str, folder: Path) -> None:
    """torch's own parser and ours understand it; test_training trains with two processes."""
    from torch.distributed.run import get_args_parser

    words = get_args_parser().parse_args(command.split()[1:])
    assert words.module and words.training_script == "vlad_ros.cli"
    name, *rest = words.training_script_args
    build_parser(name).parse_args([name, *rest])


@functools.cache
def help_of(file: str) -> str:
    """What a script says of its arguments; run in this process, which has loaded torch already."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ), contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", [file, "--help"])
        patch.setattr(sys, "path", [str((ROOT / file).parent), *sys.path])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / file), run_name="__main__")
    assert stopped.value.code == 0
    return said.getvalue()


def script(command: str, folder: Path) -> None:
    """A bench takes minutes: that its file is there and takes these arguments, `--help` shows."""
    _, file, *words = command.split()
    if file == "-m":
        return robot(command, folder)
    known = help_of(file)
    for word in filter(str.isidentifier, (word.lstrip("-") for word in words)):
        assert word in known


RUNNERS: dict[str, Callable[[str, Path], None]] = {
    "make": make,
    "vlad": vlad,
    "ros2": launch,
    "python": script,
    "torchrun": torchrun,
    "milvus-lite": milvus,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command(command: str, sequence: Path) -> None:
    RUNNERS.get(command.split()[0], robot)(command, sequence)


def test_the_python_example(sequence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vlad_ros.files.sequence import load_sequence
    from vlad_ros.model.weights import default_weights_path

    if not default_weights_path().exists():
        pytest.skip("no trained weights in this tree yet")
    drive = load_sequence(sequence / "SEQUENCE.npz")
    assert drive.poses is not None
    scans = list(zip(drive.scans, drive.stamps_ns(), drive.poses, strict=True))
    (example,) = blocks(README, "python")
    exec(example, {"scans": scans})
