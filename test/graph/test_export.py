# SPDX-License-Identifier: Apache-2.0
"""The exported pose graph, read and optimised by GTSAM: directions, order and information are GTSAM's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic_run import drifted_laps, laps, record, write

from vlad_ros import cli
from vlad_ros.config import ExportConfig
from vlad_ros.graph.edge_formats import PoseGraph, write_graph
from vlad_ros.poses import from_quaternion, inverse, rotation_angle
from vlad_ros.runs.pose_graph import pose_graph
from vlad_ros.runs.tables import Run
from vlad_ros.types import F64


@pytest.fixture(scope="module")
def drift(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, F64]:
    return drifted_laps(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def gtsam() -> Any:
    return pytest.importorskip("gtsam", reason="GTSAM is not installed (it has no wheel for CPython 3.10)")


def optimise(gtsam: Any, file: Path) -> F64:
    """Poses (N, 4, 4) of the graph in `file`, its first one held where it is."""
    graph, initial = gtsam.readG2o(str(file), True)
    graph.add(gtsam.PriorFactorPose3(0, initial.atPose3(0), gtsam.noiseModel.Isotropic.Sigma(6, 1e-4)))
    result = gtsam.LevenbergMarquardtOptimizer(graph, initial).optimize()
    return np.stack([result.atPose3(i).matrix() for i in range(initial.size())])


def rmse(poses: F64, truth: F64) -> float:
    """Of the positions [m]; both begin at the same pose, nothing is aligned."""
    return float(np.sqrt(np.mean(np.sum((poses[:, :3, 3] - truth[:, :3, 3]) ** 2, axis=1))))


def after(gtsam: Any, graph: PoseGraph, truth: F64, folder: Path) -> float:
    write_graph(folder / "graph.g2o", graph, "gtsam")
    return rmse(optimise(gtsam, folder / "graph.g2o"), truth)


def test_the_drifted_trajectory_comes_back(gtsam: Any, drift: tuple[Run, F64], tmp_path: Path) -> None:
    run, truth = drift
    graph = pose_graph(run, ExportConfig())
    before = rmse(graph.poses, truth)
    assert before > 2.0
    assert after(gtsam, graph, truth, tmp_path) <= 0.3


def test_one_wrong_direction_is_noticed(gtsam: Any, drift: tuple[Run, F64], tmp_path: Path) -> None:
    """So the test above would fail if a loop were written the other way round: its transform, or its ends."""
    run, truth = drift
    graph = pose_graph(run, ExportConfig())
    turned = [loop for loop in graph.loops if rotation_angle(loop.T) > 0.5]
    some = turned[:: len(turned) // 4]
    for number, loop in enumerate(some):
        for wrong in (dataclasses.replace(loop, T=inverse(loop.T)), dataclasses.replace(loop, i=loop.j, j=loop.i)):
            loops = [wrong if other is loop else other for other in graph.loops]
            assert after(gtsam, dataclasses.replace(graph, loops=loops), truth, tmp_path) > 0.3, number
    odometry = [
        dataclasses.replace(edge, T=inverse(edge.T)) if k == 100 else edge for k, edge in enumerate(graph.odometry)
    ]
    assert after(gtsam, dataclasses.replace(graph, odometry=odometry), truth, tmp_path) > 0.3


def test_information_is_gtsams_own(gtsam: Any, drift: tuple[Run, F64], tmp_path: Path) -> None:
    """At the true poses the squared error of an edge, in units of its information, averages six. With the order or the
    side mistaken it does not: the edges turn by 60 degrees, and are wide in one direction."""
    run, truth = drift
    graph = pose_graph(run, ExportConfig())
    write_graph(tmp_path / "graph.g2o", dataclasses.replace(graph, odometry=[]), "gtsam")
    factors, values = gtsam.readG2o(str(tmp_path / "graph.g2o"), True)
    assert values.size() == len(truth) and factors.size() == len(graph.loops)
    true = gtsam.Values()
    for i, T in enumerate(truth):
        true.insert(i, gtsam.Pose3(T))
    squared = 2.0 * factors.error(true) / factors.size()
    # The mean of n chi-squared numbers with 6 degrees of freedom deviates by sqrt(12 / n).
    assert squared == pytest.approx(6.0, abs=4 * np.sqrt(12 / factors.size()))
    loop, factor = graph.loops[3], factors.at(3)
    assert list(factor.keys()) == [loop.i, loop.j]
    np.testing.assert_allclose(factor.measured().matrix(), loop.T, atol=1e-9)


def test_g2o_reads_the_same_graph(drift: tuple[Run, F64], tmp_path: Path) -> None:
    """g2o's error, written out here: translation of T^-1 T_true and the vector part of its quaternion."""
    run, truth = drift
    graph = pose_graph(run, ExportConfig())
    write_graph(tmp_path / "graph.g2o", graph, "g2o")
    lines = [line.split() for line in (tmp_path / "graph.g2o").read_text().splitlines()]
    vertices = {int(w[1]): numbers(w[2:]) for w in lines if w[0] == "VERTEX_SE3:QUAT"}
    edges = [(int(w[1]), int(w[2]), numbers(w[3:])) for w in lines if w[0] == "EDGE_SE3:QUAT"]
    assert [w for w in lines if w[0] == "FIX"] == [["FIX", "0"]]
    assert len(vertices) == len(truth) and len(edges) == len(truth) - 1 + len(graph.loops)
    assert {len(values) for values in vertices.values()} == {7} and {len(e[2]) for e in edges} == {28}
    np.testing.assert_allclose(from_quaternion(vertices[7][:3], vertices[7][3:]), graph.poses[7], atol=1e-9)
    squared = []
    for i, j, values in edges[len(truth) - 1 :]:
        assert i < j, "from the match to the query"
        off = inverse(from_quaternion(values[:3], values[3:7])) @ inverse(truth[i]) @ truth[j]
        q = Rotation.from_matrix(off[:3, :3]).as_quat()
        e = np.concatenate([off[:3, 3], q[:3] * np.sign(q[3])])
        information = np.zeros((6, 6))
        information[np.triu_indices(6)] = values[7:]
        information += np.triu(information, 1).T
        squared.append(e @ information @ e)
    assert np.mean(squared) == pytest.approx(6.0, abs=4 * np.sqrt(12 / len(squared)))


def numbers(words: list[str]) -> F64:
    return np.array(words, np.float64)


def test_odometry_edges_are_as_wide_as_it_drifts(drift: tuple[Run, F64]) -> None:
    run, truth = drift
    graph = pose_graph(run, ExportConfig(drift_translation=0.02))
    assert [(edge.i, edge.j) for edge in graph.odometry] == [(k, k + 1) for k in range(len(truth) - 1)]
    off = [np.linalg.norm(e.T[:3, 3] - (inverse(truth[e.i]) @ truth[e.j])[:3, 3]) for e in graph.odometry]
    said = [np.sqrt(edge.covariance[0, 0]) for edge in graph.odometry]
    assert 0.5 < np.sqrt(np.mean(np.square(off))) / np.mean(said) < 2.0


def test_only_accepted_loops_are_exported(drift: tuple[Run, F64]) -> None:
    run, _ = drift
    refused = dataclasses.replace(run.closures, accepted=np.arange(len(run.closures)) < 5)
    assert len(pose_graph(dataclasses.replace(run, closures=refused), ExportConfig()).loops) == 5


def test_a_second_session_starts_where_its_first_loop_puts_it(drift: tuple[Run, F64]) -> None:
    """Its odometry has its own origin; no odometry edge leads across."""
    run, truth = drift
    session = (np.arange(len(truth)) >= 80).astype(np.int64)
    moved = run.keyframes.T_odom_base.copy()
    moved[80:] = np.array([inverse(truth[80]) @ T for T in truth[80:]])
    keyframes = dataclasses.replace(run.keyframes, session=session, T_odom_base=moved)
    graph = pose_graph(dataclasses.replace(run, keyframes=keyframes), ExportConfig())
    assert (79, 80) not in [(edge.i, edge.j) for edge in graph.odometry]
    first = graph.loops[0]
    np.testing.assert_allclose(graph.poses[first.j], graph.poses[first.i] @ first.T, atol=1e-9)


def test_a_run_without_odometry_is_no_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(record(laps(1), None, {}), tmp_path / "run")
    assert cli.main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "x.g2o")]) == 2
    assert "without odometry" in capsys.readouterr().err
    assert not (tmp_path / "x.g2o").exists()


@pytest.mark.parametrize("format", ["g2o", "gtsam"])
def test_the_command(format: str, drift: tuple[Run, F64], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, truth = drift
    file = tmp_path / "graph.g2o"
    assert cli.main(["export", str(run.path), "-o", str(file), "--format", format]) == 0
    assert (
        f"{len(truth)} keyframes, {len(truth) - 1} odometry edges, {len(run.closures)} loops" in capsys.readouterr().out
    )
    assert len(file.read_text().splitlines()) >= 2 * len(truth) - 1 + len(run.closures)
