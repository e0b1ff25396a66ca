# SPDX-License-Identifier: Apache-2.0
"""The live pose graph on small drives of known truth: with wrong edges, resumed, relocalised, corrected by hand; and
with bad input."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_drives import Edge, corrupted, loops, odometry, rmse, town

gtsam: Any = pytest.importorskip("gtsam", reason="no wheel of gtsam for this Python")

from vlad_ros.covariance_conventions import gtsam_covariance  # noqa: E402
from vlad_ros.graph.chain import diagonal, walked  # noqa: E402
from vlad_ros.graph.edits import Edit, read_edits  # noqa: E402
from vlad_ros.graph.graph_file import resume, save_graph, write_tum  # noqa: E402
from vlad_ros.graph.pose_graph import LiveGraph, LoopEdge  # noqa: E402
from vlad_ros.graph_config import PoseGraphConfig  # noqa: E402
from vlad_ros.poses import from_quaternion, from_xyz_rpy, inverse, rotation_angle  # noqa: E402
from vlad_ros.types import F64  # noqa: E402

CONFIG = PoseGraphConfig()
STEP = 3  # m between the nodes
MS = 1_000_000


def stamp(k: int, start: int = 0) -> int:
    return start + (k + 1) * 300 * MS


def edge_of(edge: Edge, session: int = 0, match_session: int | None = None, start: int = 0) -> LoopEdge:
    match = (session if match_session is None else match_session, stamp(edge.i, start if match_session is None else 0))
    return LoopEdge(match, (session, stamp(edge.j, start)), edge.T, edge.covariance)


def drive(graph: LiveGraph, odo: F64, edges: list[Edge], session: int = 0, start: int = 0) -> LiveGraph:
    """Feed a drive, each loop right after its query's node."""
    for k, T in enumerate(odo):
        graph.add_node(stamp(k, start), T)
        for edge in edges:
            if edge.j == k:
                graph.add_loop(edge_of(edge, session, start=start))
        graph.upkeep()
    graph.upkeep(budget=30.0)
    return graph


def plain_least_squares(odo: F64, edges: list[Edge]) -> F64:
    """The independent reference: GTSAM's batch optimiser, every edge believed."""
    graph, initial = gtsam.NonlinearFactorGraph(), gtsam.Values()
    for k, T in enumerate(odo):
        initial.insert(k, gtsam.Pose3(T))
    graph.add(gtsam.PriorFactorPose3(0, gtsam.Pose3(odo[0]), gtsam.noiseModel.Isotropic.Sigma(6, 1e-3)))
    steps = [inverse(odo[k]) @ odo[k + 1] for k in range(len(odo) - 1)]
    for k, T in enumerate(steps):
        C = diagonal(*walked(float(np.linalg.norm(T[:3, 3])), CONFIG))
        _between(graph, k, k + 1, T, C)
    for edge in edges:
        _between(graph, edge.i, edge.j, edge.T, edge.covariance)
    result = gtsam.LevenbergMarquardtOptimizer(graph, initial).optimize()
    return np.stack([result.atPose3(k).matrix() for k in range(len(odo))])


def _between(graph: Any, i: int, j: int, T: F64, covariance: F64) -> None:
    noise = gtsam.noiseModel.Gaussian.Covariance(gtsam_covariance(covariance, T))
    graph.add(gtsam.BetweenFactorPose3(i, j, gtsam.Pose3(T), noise))


@pytest.fixture(scope="module", params=(0, 1, 2, 3, 103))
def world(request: pytest.FixtureRequest) -> tuple[int, F64, F64, list[Edge]]:
    """Seed, true poses, odometry that drifts by 1 % and 0.5 degrees in 10 m, and right loops."""
    seed = request.param
    poses = town(seed)[::STEP]
    return seed, poses, odometry(poses, seed), loops(poses, seed, spacing=1)


def test_without_wrong_edges_it_is_plain_least_squares(world: tuple[int, F64, F64, list[Edge]]) -> None:
    _, poses, odo, edges = world
    graph = drive(LiveGraph(CONFIG), odo, edges)
    plain, ours = rmse(plain_least_squares(odo, edges), poses), rmse(graph.poses(), poses)
    assert len(edges) > 200
    assert sum(loop.on for loop in graph.beliefs.loops) >= 0.98 * len(edges)
    assert ours == pytest.approx(plain, rel=0.02) and ours < 0.5 * rmse(odo, poses)


@pytest.mark.parametrize("first", [False, True], ids=["street somewhere", "street at the very first loops"])
def test_wrong_edges_do_not_bend_it(world: tuple[int, F64, F64, list[Edge]], first: bool) -> None:
    seed, poses, odo, edges = world
    wrong = corrupted(edges, poses, seed, first=first)
    assert sum(edge.wrong for edge in wrong) == round(0.1 * len(edges))
    graph = drive(LiveGraph(CONFIG), odo, wrong)
    assert rmse(graph.poses(), poses) < 1.2 * rmse(plain_least_squares(odo, edges), poses)
    if not first:  # where nothing true was there before, a step of odometry is given up, which costs no more than that
        assert not graph.counters["odometry_broken"]
    assert rmse(plain_least_squares(odo, wrong), poses) > 2.0  # m: what they would have done


def test_the_correction_is_that_of_the_newest_node() -> None:
    poses = town(0)[: 3 * 140 : STEP]
    odo = odometry(poses, 0)
    graph = drive(LiveGraph(CONFIG), odo, loops(poses, 0, spacing=1))
    assert graph.T_map_odom is not None
    np.testing.assert_allclose(graph.T_map_odom @ odo[-1], graph.poses()[-1], atol=1e-6)
    stamps, trajectory = graph.trajectory()
    assert stamps.tolist() == [stamp(k) for k in range(len(poses))]
    np.testing.assert_array_equal(trajectory, graph.poses())
    np.testing.assert_allclose(trajectory[0], np.eye(4), atol=1e-3)  # the map is its first pose's odometry frame


def small(seed: int = 0) -> tuple[F64, F64, list[Edge]]:
    """One block and a bit of the next round: 60 nodes."""
    away = town(seed)
    poses = np.concatenate([away[:400], away[820:1000]])[::STEP]  # the block, then the same block again
    return poses, odometry(poses, seed), loops(poses, seed, spacing=2)


def test_a_file_resumes_in_the_same_frame_and_a_second_session_goes_on(tmp_path: Path) -> None:
    poses, odo, edges = small()
    graph = drive(LiveGraph(CONFIG), odo, edges)
    save_graph(graph, tmp_path / "graph")
    again = resume(tmp_path / "graph", CONFIG)
    np.testing.assert_allclose(again.poses(), graph.poses(), atol=5e-3)
    assert [o.on for o in again.beliefs.loops] == [o.on for o in graph.beliefs.loops] and again.T_map_odom is None

    # The second session, in an odometry frame of its own, on the first 60 m of the same road.
    second, start = inverse(poses[5]) @ poses[5:30], 10**12
    rng = np.random.default_rng(3)
    for k, T in enumerate(second):
        again.add_node(stamp(k, start), T)
        if k >= 3:
            T_match_query = inverse(poses[5 + k]) @ poses[5 + k] @ from_xyz_rpy((*rng.normal(0, 0.03, 3), 0, 0, 0))
            again.add_loop(LoopEdge((0, stamp(5 + k)), (1, stamp(k, start)), T_match_query, edges[0].covariance))
        assert (again.T_map_odom is not None) == (k >= 5)  # three loops agree
    stamps, found = again.trajectory()
    assert len(stamps) == len(second) and again.sessions == {0: 0, 1: 1}
    np.testing.assert_allclose(found[:, :3, 3], graph.poses()[5:30, :3, 3], atol=0.3)
    assert any("was found in the map" in news for news in again.take_news())


def test_relocalisation_in_a_map_without_its_graph_moves_the_frame_there() -> None:
    poses, odo, edges = small()
    T_map_first = from_xyz_rpy((40.0, -7.0, 1.0, 0.0, 0.0, 2.0)) @ poses
    graph, C = LiveGraph(CONFIG), edges[0].covariance
    for k in range(40):
        graph.add_node(stamp(k), odo[k])
        if k in (8, 9, 20, 30):
            graph.add_loop(LoopEdge((0, 77), (5, stamp(k)), np.eye(4), C))  # into a session nobody knows
            used = graph.relocalise(stamp(k), T_map_first[k], C)
            assert used == (k != 9)  # too near to the last one to say anything new
    assert not graph.relocalise(stamp(12), T_map_first[12], C)  # its loops are in the graph
    np.testing.assert_allclose(graph.poses()[:, :3, 3], T_map_first[:40, :3, 3], atol=1.0)
    assert np.linalg.norm((graph.poses()[30] - T_map_first[30])[:3, 3]) < 0.1
    graph.add_loop(LoopEdge((0, 77), (5, stamp(39)), np.eye(4), C))
    assert not graph.relocalise(stamp(39), from_xyz_rpy((30, 0, 0, 0, 0, 0)) @ T_map_first[39], C)
    assert graph.counters["relocalisation_disagrees"] == 1 and graph.counters["unknown_session"] == 5


def test_a_person_forces_and_forbids_and_the_reason_is_kept(tmp_path: Path) -> None:
    _, odo, edges = small()
    graph = drive(LiveGraph(CONFIG), odo, edges)
    first = edge_of(edges[0])
    apart = LoopEdge((0, stamp(3)), (0, stamp(30)), from_xyz_rpy((1.0, 0, 0, 0, 0, 0)), edges[0].covariance)
    graph.remember(apart)
    assert (
        graph.set_edits([Edit(first.match, first.query, False, "two gates"), Edit(*apart[:2], True, "I was there")])
        == 2
    )
    by_ends = {(loop.i, loop.j): loop for loop in graph.beliefs.loops}
    assert not by_ends[edges[0].i, edges[0].j].on and by_ends[3, 30].on
    assert np.linalg.norm((inverse(graph.poses()[3]) @ graph.poses()[30])[:3, 3]) < 20.0  # bent, as he said
    save_graph(graph, tmp_path / "graph")
    again = resume(tmp_path / "graph", CONFIG)
    assert [edit.reason for edit in again.edits.values()] == ["two gates", "I was there"]
    graph.set_edits([])
    assert by_ends[edges[0].i, edges[0].j].on and not by_ends[3, 30].on


def test_the_file_of_decisions_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "edits.yaml"
    good = "{match: [0, 1], query: [0, 2], decision: force, reason: a gate, T_match_query: [1, 0, 0, 0, 0, 0, 1]}"
    path.write_text(f"- {good}\n")
    (edit,) = read_edits(path)
    assert edit[:4] == ((0, 1), (0, 2), True, "a gate")
    np.testing.assert_array_equal(edit.T_match_query, from_xyz_rpy((1, 0, 0, 0, 0, 0)))
    for old, new, words in (
        ("reason: a gate", "reason: ''", "reason"),
        ("force", "maybe", "force or forbid"),
        ("[0, 2]", "[0, 2.5]", "session, stamp"),
        ("match:", "mach:", "match, query"),
        ("0, 0, 1]", "0, 0, 3]", "unit length"),
        ("[1, 0,", "[.nan, 0,", "finite"),
    ):
        path.write_text(f"- {good}\n- {good.replace(old, new)}\n")
        with pytest.raises(ValueError, match=r"edits.yaml, entry 2") as refused:
            read_edits(path)
        assert words in str(refused.value)


def test_damaged_files_are_refused_and_named(tmp_path: Path) -> None:
    _, odo, _ = small()
    save_graph(drive(LiveGraph(CONFIG), odo[:10], []), tmp_path / "graph")
    data = bytearray((tmp_path / "graph").read_bytes())
    for change in (bytes(data[:100]), bytes(data[:-9]), b"pickled", bytes(data[:-20]) + bytes(20)):
        (tmp_path / "broken").write_bytes(change)
        with pytest.raises(ValueError, match="broken"):
            resume(tmp_path / "broken", CONFIG)
    with pytest.raises(ValueError, match="no graph file"):
        resume(tmp_path / "nowhere", CONFIG)


def test_a_trajectory_is_exported_as_tum(tmp_path: Path) -> None:
    poses = town(0)[:5]
    write_tum(tmp_path / "t.tum", np.array([1_700_000_000_123_456_789 + k for k in range(5)]), poses)
    lines = (tmp_path / "t.tum").read_text().splitlines()
    assert lines[0].startswith("1700000000.123456789 ") and lines[4].startswith("1700000000.123456793 ")
    numbers = np.array([[float(x) for x in line.split()[1:]] for line in lines])
    np.testing.assert_allclose(from_quaternion(numbers[:, :3], numbers[:, 3:]), poses, atol=1e-8)


# Bad input.


def test_loops_without_their_nodes_wait_and_are_counted() -> None:
    _, odo, edges = small()
    graph, edge = drive(LiveGraph(CONFIG), odo[:-1], []), edge_of(dataclasses.replace(edges[-1], j=len(odo) - 1))
    graph.add_loop(edge)  # before its query's node
    assert len(graph.waiting) == 1 and not graph.beliefs.loops
    graph.add_node(stamp(len(odo) - 1), odo[-1])
    assert not graph.waiting and graph.beliefs.loops[0].on
    graph.add_loop(edge)
    assert graph.counters["repeated_loop"] == 1
    graph.add_loop(edge._replace(match=(7, 5)))
    assert graph.counters["unknown_session"] == 1 and not graph.waiting
    for k in range(1001):
        graph.add_loop(edge._replace(query=(0, 5 + k)))
    assert len(graph.waiting) == 1000 and graph.counters["unknown_node"] == 1
    assert len(graph.beliefs.loops) == 1


@pytest.mark.parametrize("spoiled", ["T", "covariance", "pose"])
def test_what_is_not_finite_is_refused_and_changes_nothing(spoiled: str) -> None:
    _, odo, edges = small()
    graph = drive(LiveGraph(CONFIG), odo, edges[:5])
    before, edge = graph.poses(), edge_of(edges[6])
    with pytest.raises(ValueError, match=r"finite|positive definite"):
        if spoiled == "pose":
            graph.add_node(stamp(len(odo)), np.full((4, 4), np.nan))
        elif spoiled == "T":
            graph.add_loop(edge._replace(T_match_query=np.full((4, 4), np.nan)))
        else:
            graph.add_loop(edge._replace(covariance=np.zeros((6, 6))))
    np.testing.assert_array_equal(graph.poses(), before)


def test_odometry_that_jumps_keeps_the_trajectory_and_the_loop_ties_it() -> None:
    _, odo, _ = small()
    graph, jump = LiveGraph(CONFIG), from_xyz_rpy((50.0, -20.0, 3.0, 0.0, 0.0, 1.0))
    for k in range(20):
        graph.add_node(stamp(k), odo[k])
    before = graph.poses()
    for k in range(20, 40):
        graph.add_node(stamp(k), jump @ odo[k], part=1)
    np.testing.assert_allclose(graph.poses()[:20], before, atol=1e-3)
    assert graph.counters["odometry_jump"] == 1 and "jumped by" in graph.take_news()[-1]
    assert np.linalg.norm((graph.poses()[20] - before[19])[:3, 3]) < 0.1  # the vehicle did not jump
    for k in (30, 31):
        T = inverse(odo[2]) @ odo[k]  # as if it were there again
        graph.add_loop(LoopEdge((0, stamp(2)), (0, stamp(k)), T, diagonal(0.05, 0.005)))
    np.testing.assert_allclose(graph.poses()[20:40, :3, 3], odo[20:40, :3, 3], atol=0.5)
    assert rotation_angle(inverse(graph.poses()[30]) @ odo[30]) < 0.02


def test_a_clock_set_back_begins_a_drive_and_a_late_node_is_counted() -> None:
    _, odo, _ = small()
    graph = drive(LiveGraph(CONFIG), odo[:20], [])
    assert not graph.add_node(stamp(18) + 5, odo[18]) and graph.counters["late_node"] == 1
    before = graph.poses()
    assert graph.add_node(stamp(2), odo[2]) and graph.drive == 1
    assert graph.T_map_odom is None and not len(graph.trajectory()[0])
    np.testing.assert_allclose(graph.poses()[:20], before, atol=1e-6)


def test_without_gtsam_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gtsam", None)
    with pytest.raises(ValueError, match="needs gtsam, which is not installed: pip install gtsam"):
        LiveGraph(CONFIG)


# -- other robots -----------------------------------------------------------------------------------------------------


RED, BLUE = 7, 0  # sessions
RED_START = from_xyz_rpy((300.0, -50.0, 2.0, 0.0, 0.0, 1.0))  # its odometry frame, as this robot cannot know


def apart() -> tuple[F64, F64, F64, F64, list[Edge]]:
    """A robot that goes from one end of a block to the other far away around it, and another that has taken the short
    way: the truth and the odometry of both, and edges (i of the other, j of the one) where both have been."""
    whole = town(0)
    blue, red = whole[:330:STEP], whole[402:318:-STEP]  # the block's fourth side, and a bit of the first and third
    red = np.concatenate([whole[40:0:-STEP], red])
    blue_odo, red_odo = odometry(blue, 11, scale=0.02, yaw=1.0), RED_START @ odometry(red, 12)
    rng, edges = np.random.default_rng(4), []
    for j, T in enumerate(blue):
        away = np.linalg.norm(red[:, :2, 3] - T[:2, 3], axis=1)
        if (i := int(np.argmin(away))) >= 0 and away[i] < 2.5:
            off = from_xyz_rpy((*rng.normal(0, 0.05, 3), 0.0, 0.0, float(rng.normal(0, 0.003))))
            edges.append(Edge(i, j, off @ inverse(red[i]) @ T, np.diag([0.06] * 3 + [0.004] * 3) ** 2))
    return blue, blue_odo, red, red_odo, edges


def meeting(graph: LiveGraph, blue_odo: F64, red_odo: F64, edges: list[Edge], chunk: int = 9) -> LiveGraph:
    """The one drives; the other's odometry comes down in pieces, before the edges into it."""
    down = 0
    for j, T in enumerate(blue_odo):
        graph.add_node(stamp(j), T)
        for edge in (edge for edge in edges if edge.j == j):
            while edge.i >= down:
                own = slice(down, down + chunk)
                graph.add_guests(RED, [stamp(k, 10**13) for k in range(len(red_odo))][own], red_odo[own])
                down += chunk
            graph.add_loop(LoopEdge((RED, stamp(edge.i, 10**13)), (BLUE, stamp(j)), edge.T, edge.covariance))
        graph.upkeep()
    graph.upkeep(budget=30.0)
    return graph


def test_edges_into_another_robots_session_are_edges_like_any_other(tmp_path: Path) -> None:
    """They close a loop that the robot itself has not driven, by the other's odometry."""
    blue, blue_odo, _, red_odo, edges = apart()
    assert {edge.j < 40 for edge in edges} == {True, False}  # at both ends of its way
    graph = meeting(LiveGraph(CONFIG), blue_odo, red_odo, edges)
    stamps, found = graph.trajectory()
    assert stamps.tolist() == [stamp(j) for j in range(len(blue))]  # nothing of the other's is in it
    alone, ends = np.linalg.norm(blue_odo[-1, :3, 3] - (inverse(blue[0]) @ blue[-1])[:3, 3]), found[-1]
    assert np.linalg.norm(ends[:3, 3] - (inverse(blue[0]) @ blue[-1])[:3, 3]) < 0.5 * alone and alone > 3.0
    assert sum(loop.on for loop in graph.beliefs.loops) > 0.9 * len(edges) and not graph.counters
    assert any("another robot's drive 1 was found in the map" in news for news in graph.take_news())
    save_graph(graph, tmp_path / "graph")
    again = resume(tmp_path / "graph", CONFIG)
    np.testing.assert_allclose(again.poses(), graph.poses(), atol=5e-3)
    assert again.guests == {1} and again.sessions == {BLUE: 0, RED: 1} and again.drive == 2
    number = len(again.chain)
    again.add_guests(RED, [stamp(k, 10**13) for k in range(len(red_odo))], red_odo)
    assert len(again.chain) >= number and len(again.chain.drive(1)) == len(red_odo)


def test_edges_into_it_at_one_end_alone_or_wrong_ones_do_no_harm() -> None:
    blue, blue_odo, _, red_odo, edges = apart()
    aside = from_xyz_rpy((0.0, 30.0, 0.0, 0.0, 0.0, 1.0))
    wrong = [dataclasses.replace(edge, T=aside @ edge.T) if edge.j >= 40 else edge for edge in edges]
    for some in ([edge for edge in edges if edge.j < 40], wrong):
        graph = meeting(LiveGraph(CONFIG), blue_odo, red_odo, some)
        believed = {graph.chain.nodes[loop.j].stamp for loop in graph.beliefs.loops if loop.on}
        assert len(believed) > 5 and max(believed) < stamp(40)
        assert rmse(graph.trajectory()[1], blue) < 1.1 * rmse(blue_odo, blue)


def test_where_keyframes_of_another_robot_are_missing_its_odometry_says_nothing() -> None:
    _, blue_odo, _, red_odo, _ = apart()
    graph = LiveGraph(CONFIG)
    graph.add_node(stamp(0), blue_odo[0])
    graph.add_guests(RED, [1, 2, 3], red_odo[[0, 1, 11]])
    a, b, c = graph.chain.drive(1)
    assert graph.chain.way(a, b) is not None and graph.chain.way(b, c) is None


def test_bad_odometry_of_another_robot_is_refused() -> None:
    _, blue_odo, _, red_odo, _ = apart()
    graph = LiveGraph(CONFIG)
    graph.add_node(stamp(0), blue_odo[0])
    graph.add_node(stamp(1), blue_odo[1])
    graph.add_loop(LoopEdge((BLUE, stamp(0)), (BLUE, stamp(1)), np.eye(4), np.eye(6)))
    with pytest.raises(ValueError, match="session 0 is the vehicle's own"):
        graph.add_guests(BLUE, [5], red_odo[:1])
    bad = red_odo[:2].copy()
    bad[1, 0, 0] = 3.0
    with pytest.raises(ValueError, match="a pose of another robot"):
        graph.add_guests(RED, [5, 6], bad)
    assert len(graph.chain) == 2
