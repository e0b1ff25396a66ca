# SPDX-License-Identifier: Apache-2.0
"""A map's life is recorded, call by call; then a kill or a power cut after each of them, and what is left is opened."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from campaign import generator, rounds
from disk_trace import Step, left_by_kill, left_by_power_cut, record
from map_driver import row
from map_life import STEPS
from map_rows import equal, extend, load, make
from version2_maps import write_version2

HELPERS = Path(__file__).resolve().parents[1] / "helpers"


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """The record, and before it the old map that was there."""
    traces = (
        subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True) if shutil.which("strace") else None
    )
    if traces is None or traces.returncode:
        pytest.skip("strace is not installed, or may not trace")
    folder = tmp_path_factory.mktemp("life")
    write_version2(folder / "old.map", make([row(id) for id in range(STEPS)]))
    before = [Step("create", "old.map"), Step("write", "old.map", 0, (folder / "old.map").read_bytes())]
    before.append(Step("sync", "old.map"))
    command = [sys.executable, str(HELPERS / "map_life.py"), str(folder)]
    path = f"{HELPERS}{os.pathsep}{HELPERS.parents[1]}"
    return before + record(
        command, folder, tmp_path_factory.mktemp("log") / "calls", {**os.environ, "PYTHONPATH": path}
    )


def promised(steps: list[Step]) -> dict[str, int]:
    """The number of keyframes that each map must have."""
    words = b"".join(step.data for step in steps if step.name == "marks" and step.call == "write").decode().split()
    return {"old": STEPS, **{name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}}


def opened(path: Path) -> int:
    """The number of a map's keyframes, each as it was added."""
    database = load(path)
    assert database.faults == [] and database.ids().tolist() == list(range(len(database)))
    for id in range(0, len(database), 3):
        assert equal(database.geometry(id), row(id).geometry)
        assert equal(database.whole(id).descriptor, row(id).descriptor)
    database.close()
    return len(database)


def check(files: dict[str, bytes], folder: Path, least: dict[str, int]) -> None:
    """What was promised is there, and the maps can be extended."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        if name != "marks" and not name.endswith("-shm"):
            (folder / name).write_bytes(content)
    for name in ("x", "old", "copy"):
        path, most = folder / f"{name}.map", 0
        if path.exists():
            most = opened(path)
            grown = extend(path)
            assert len(grown) == most
            grown.add(row(50 * (most // 50 + 1)))
            grown.close()
            assert len(load(path)) == most + 1
        aside = [opened(other) for other in folder.glob(f"{name}.2*.map")]
        assert max([most, *aside]) >= least.get(name, 0), f"{name}.map holds {most}, {aside}; promised: {least}"


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_kill_after_any_call_costs_nothing_that_was_promised(life: list[Step], tmp_path: Path) -> None:
    """In a drive, at its end, in checkpoints, conversions, saves and while a map is set aside."""
    stride = max(1, round(len(life) / max(25, rounds(len(life)))))
    for end in range(3 + stride // 2, len(life) + 1, stride):
        check(left_by_kill(life[:end]), tmp_path / "left", promised(life[:end]))
    assert promised(life)["end"] == 1


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_power_cut_costs_nothing_that_was_promised(life: list[Step], tmp_path: Path) -> None:
    rng = generator()
    for _ in range(max(25, rounds(1000))):
        end = int(rng.integers(3, len(life) + 1))
        try:
            check(left_by_power_cut(life[:end], rng), tmp_path / "left", promised(life[:end]))
        except BaseException:
            print(f"after {end} of {len(life)} calls, the last of which was {life[end - 1].call} {life[end - 1].name}")
            raise


def test_the_record_is_what_was_written(life: list[Step]) -> None:
    """A recorder that misses calls would prove nothing."""
    files = left_by_kill(life)
    assert {name for name in files if name.endswith(".map")} >= {"x.map", "old.map", "copy.map"}
    assert {step.call for step in life} == {"create", "write", "sync", "truncate", "rename", "link", "unlink"}
    assert sum(step.call == "sync" and step.name.endswith("-wal") for step in life) > STEPS
    assert np.all([len(files[name]) for name in ("x.map", "old.map", "copy.map")])
