# SPDX-License-Identifier: Apache-2.0
"""`vlad run --rerun`: the file, read back with rerun's own reader where that is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from circuit import circuit
from untrained import save_untrained

from vlad_ros import cli
from vlad_ros.files.sequence import save_sequence
from vlad_ros.runs.tables import read_run

pytestmark = pytest.mark.usefixtures("one_thread")


def played(folder: Path, *options: str) -> int:
    drive = circuit()
    save_sequence(folder / "circuit.npz", drive)
    save_untrained(folder / "w.safetensors", drive.scans[:6], 0.5)
    words = ["run", str(folder / "circuit.npz"), "-o", str(folder / "run"), "--weights", str(folder / "w.safetensors")]
    return cli.main([*words, "--rerun", str(folder / "drive.rrd"), *options])


class Recording:
    """By entity: stamps [s], and the values of a component."""

    def __init__(self, path: Path) -> None:
        from rerun.chunk import RrdReader

        self.rows: dict[tuple[str, str], list[tuple[float, Any]]] = {}
        for chunk in RrdReader(path).stream():
            batch = chunk.to_record_batch().to_pydict()
            for name in batch:
                if "stamp" in batch and ":" in name:
                    stamps = [np.datetime64(stamp).astype("M8[ns]").astype(np.int64) * 1e-9 for stamp in batch["stamp"]]
                    self.rows.setdefault((chunk.entity_path, name), []).extend(zip(stamps, batch[name], strict=True))

    def last(self, entity: str, component: str) -> Any:
        return sorted(self.rows[entity, component], key=lambda row: row[0])[-1][1]  # of equal stamps the later row


def test_trajectories_edges_and_clouds_over_time(tmp_path: Path) -> None:
    pytest.importorskip(
        "rerun", reason="rerun-sdk is not installed: pip install rerun-sdk, in an environment of its own"
    )
    pytest.importorskip("gtsam", reason="no wheel of gtsam for this Python")
    assert played(tmp_path, "--drift", "--drift-scale", "0.05") == 0
    run, recording = read_run(tmp_path / "run"), Recording(tmp_path / "drive.rrd")
    keyframes, stamps = run.keyframes, run.keyframes.stamp * 1e-9
    before = np.array(recording.last("/map/before", "LineStrips3D:strips")[0])
    np.testing.assert_allclose(before, keyframes.T_odom_base[:, :3, 3], atol=1e-4)
    strips = recording.rows["/map/after", "LineStrips3D:strips"]
    for stamp, strip in strips:
        assert len(strip[0]) == np.sum(stamps <= stamp + 1e-6)  # what was known by then
    after = np.array(recording.last("/map/after", "LineStrips3D:strips")[0])
    truth = keyframes.T_world_base[:, :3, 3]
    second = [np.linalg.norm((line - truth)[34:] - (line - truth)[:34], axis=1).max() for line in (before, after)]
    assert second[0] > 0.25 and second[1] < 0.5 * second[0], second  # the second lap lies on the first one
    accepted = recording.last("/map/edges/accepted", "LineStrips3D:strips")
    assert len(accepted) == run.closures.accepted.sum() > 10
    assert len(recording.last("/map/edges/accepted", "LineStrips3D:colors")) == len(accepted)
    for k in range(len(keyframes)):
        assert len(recording.last(f"/map/keyframes/{k}", "Points3D:positions")) > 100
        place = np.ravel(recording.last(f"/map/keyframes/{k}", "Transform3D:translation"))
        assert np.abs(place - after[k]).max() < 0.03


def test_without_the_wheel_it_says_so_before_the_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)  # as Python itself marks a module that must not be found
    assert played(tmp_path) == 2
    said = capsys.readouterr().err
    assert "pip install rerun-sdk" in said and not (tmp_path / "run").exists()
    assert played(tmp_path, "--no-odometry") == 2
    assert "--rerun needs odometry" in capsys.readouterr().err


def test_by_odometry_alone_where_there_is_no_pose_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    pytest.importorskip(
        "rerun", reason="rerun-sdk is not installed: pip install rerun-sdk, in an environment of its own"
    )
    monkeypatch.setitem(sys.modules, "gtsam", None)
    assert played(tmp_path, "--drift") == 0
    assert "by odometry alone: the pose graph needs gtsam" in capsys.readouterr().out
    run, recording = read_run(tmp_path / "run"), Recording(tmp_path / "drive.rrd")
    for name in ("before", "after"):
        line = np.array(recording.last(f"/map/{name}", "LineStrips3D:strips")[0])
        np.testing.assert_allclose(line, run.keyframes.T_odom_base[:, :3, 3], atol=1e-4)
