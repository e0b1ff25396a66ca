# SPDX-License-Identifier: Apache-2.0
"""Real LiDAR through the real node: bags made from real sequences, replayed over DDS into the launched process.

Every number is compared with the offline pipeline, fed from the same bag. Bags are played as fast as the node takes
them, so that nothing is dropped is asked for more than life does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_data import data_file
from untrained import save_untrained

pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")

from launched import launch_node

from vlad_ros import cli
from vlad_ros.cloud.decode import decode_message
from vlad_ros.config import RecognizerConfig, ReplayConfig
from vlad_ros.files import bags
from vlad_ros.files.sequence import Sequence, load_sequence, save_sequence
from vlad_ros.loops.described import Described
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.model.weights import default_weights_path, load_weights
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import from_quaternion
from vlad_ros.ros.tools import replay
from vlad_ros.ros.tools.node_client import NodeClient
from vlad_ros.stamps import stamp_of

pytestmark = [pytest.mark.slow, pytest.mark.ros, pytest.mark.timeout(900)]

FIRST, SAME, REVERSE = range(100), range(640, 690), range(1060, 1119)  # of loop_mid360: a stretch, and it seen again
PAUSE = 31.0  # s of stamps between the excerpts; in the recording it is minutes
EXCLUDE_TIME = 1.0  # s; the excerpts are seconds long, and a pause is no time that was driven
HARMLESS = {"odometry_jump", "pause", "no_odometry"}  # where an excerpt ends; a recording without poses
LAUNCH = {"points": "/points", "odom": "/odom", "use_sim_time": "true"}


@dataclass
class Run:
    """What the node said of a bag: descriptors, rows of candidates by stamp, its counters, and clouds played."""

    descriptors: list[tuple[int, str, np.ndarray]]
    closures: list[tuple[int, np.ndarray]]
    counts: dict[str, int]
    received: int
    played: int

    def rows(self, stamp: int) -> np.ndarray:
        """The candidates of one keyframe."""
        (rows,) = [rows for s, rows in self.closures if s == stamp]
        return rows


def run_node(folder: Path, bag: Path, quiet: float = 1.0, **parameters: Any) -> Run:
    """Launch the node, play the bag into it, deactivate it when it has said nothing for `quiet` seconds, end it."""
    folder.mkdir()
    with NodeClient() as watch, launch_node(folder, parameters, **LAUNCH) as node:
        watch.wait_active(node)
        report = replay.play(watch.node, bag, ReplayConfig(lossless=True), progress=False)
        watch.wait_quiet(quiet)
        watch.deactivate()
        received = int(watch.diagnostics["clouds received"])
        played = report.published["/points"]
        run = Run(watch.descriptors, watch.closures, watch.counts(), received, played)
        assert node.stop() == 0, node.tail()
    return run


def offline(bag: Path, weights: Path, is_keyframe: bool | None = None, **config: Any) -> list[Described]:
    """The same bag through the pipeline, without ROS."""
    recognizer = PlaceRecognizer.from_pretrained(weights, "cpu", RecognizerConfig(**config))
    poses: dict[int, np.ndarray] = {}
    described: list[Described] = []
    for topic, message in bags.read_messages(bag):
        stamp = stamp_of(message)
        if topic == "/odom":
            p, q = message.pose.pose.position, message.pose.pose.orientation
            poses[stamp] = from_quaternion(np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))
        else:
            points = decode_message(message)
            described += recognizer.step(points, stamp, None, poses.get(stamp), is_keyframe)
    return described + recognizer.finish()


def check_same(run: Run, expected: list[Described]) -> None:
    """Every keyframe's descriptor once, with the scan's stamp and frame, as offline; so its candidates."""
    assert run.received == run.played, "clouds were lost on the way"
    assert set(run.counts) <= HARMLESS, f"something was dropped: {run.counts}"
    assert [stamp for stamp, _, _ in run.descriptors] == [item.keyframe.stamp for item in expected]
    assert [stamp for stamp, _ in run.closures] == [item.keyframe.stamp for item in expected]
    assert {frame for _, frame, _ in run.descriptors} == {"lidar"}
    for (stamp, _, descriptor), item in zip(run.descriptors, expected, strict=True):
        assert np.linalg.norm(descriptor) == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(descriptor, item.keyframe.descriptor, atol=1e-5)
        # in the order of similarity: that of probability depends on how many a busy computer had the time to verify
        similarities = sorted((closure.similarity for closure in item.closures), reverse=True)
        np.testing.assert_allclose(by_similarity(run.rows(stamp))["similarity"], similarities, atol=1e-5)


def by_similarity(rows: np.ndarray) -> np.ndarray:
    """The rows, the most similar one first."""
    return rows[np.argsort(-rows["similarity"], kind="stable")]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped weights; before there are any, untrained ones serve all but the recognition itself."""
    if default_weights_path().exists():
        return default_weights_path()
    scans = load_sequence(data_file("loop_mid360.npz")).scans[::140]
    return save_untrained(tmp_path_factory.mktemp("weights") / "untrained.safetensors", scans, 0.5)


@dataclass
class Drive:
    """Excerpts of loop_mid360: the true positions by stamp, the bags, and what node and pipeline say of them."""

    positions: dict[int, np.ndarray]
    expected: list[Described]
    run: Run
    again: Run
    map: Path
    weights: Path


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Drive:
    """Import, play and save the map; then play the revisits alone into a new process that has loaded the map."""
    folder = tmp_path_factory.mktemp("loop")
    whole = load_sequence(data_file("loop_mid360.npz"))
    part, again = excerpts(whole, FIRST, SAME, REVERSE), excerpts(whole, FIRST, SAME, REVERSE, skip=len(FIRST))
    for name, sequence in (("part", part), ("again", again)):
        save_sequence(folder / f"{name}.npz", sequence)
        assert cli.main(["import", str(folder / f"{name}.npz"), str(folder / name)]) == 0
    map_path = folder / "places.map"
    common = {"weights": str(weights), "map_path": str(map_path), "exclude_time": EXCLUDE_TIME}
    first = run_node(folder / "first", folder / "part", **common)
    asking = {"map_mode": "localise", "top_k": 1000, "verification_budget": 0.0}
    second = run_node(folder / "second", folder / "again", **asking, **common)
    assert part.poses is not None
    positions = dict(zip(part.stamps_ns(), part.poses[:, :3, 3], strict=True))
    return Drive(
        positions, offline(folder / "part", weights, exclude_time=EXCLUDE_TIME), first, second, map_path, weights
    )


def excerpts(whole: Sequence, *parts: range, skip: int = 0) -> Sequence:
    """The scans of these parts with PAUSE between them, without the first `skip` scans."""
    assert whole.poses is not None and whole.stamps is not None
    index, stamps = np.concatenate([np.array(part) for part in parts]), []
    for part in parts:
        start = stamps[-1][-1] + PAUSE if stamps else whole.stamps[part[0]]
        stamps.append(whole.stamps[part] - whole.stamps[part[0]] + start)
    scans = [whole.scans[i] for i in index]
    return Sequence(whole.name, scans[skip:], whole.poses[index][skip:], np.concatenate(stamps)[skip:])


def test_loop_equals_the_offline_pipeline(drive: Drive) -> None:
    assert len(drive.expected) > 80 and sum(item.keyframe.is_local_map for item in drive.expected) > 80
    check_same(drive.run, drive.expected)


def test_candidates_obey_the_exclusion_window(drive: Drive) -> None:
    config, stamps = RecognizerConfig(), sorted(drive.positions)
    path = np.array([drive.positions[stamp] for stamp in stamps])
    walked = dict(zip(stamps, np.r_[0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))], strict=True))
    found = 0
    for stamp, rows in drive.run.closures:
        for row in rows:
            match = int(row["match_sec"]) * 10**9 + int(row["match_nanosec"])
            assert stamp - match >= EXCLUDE_TIME * 1e9
            assert walked[stamp] - walked[match] >= config.exclude_distance
            found += 1
    assert found > 300


def test_revisits_are_recognised_from_both_directions(drive: Drive) -> None:
    """Of the keyframes with an earlier one within 5 m, 9 of 10 have their most similar candidate within 5 m."""
    if drive.weights != default_weights_path():
        pytest.skip("no trained weights in this checkout")
    stamps = [stamp for stamp, _, _ in drive.run.descriptors]
    asked, right = 0, 0
    for stamp in stamps:
        earlier = [s for s in stamps if stamp - s >= RecognizerConfig().exclude_time * 1e9]
        if not any(np.linalg.norm(drive.positions[stamp] - drive.positions[s]) <= 5.0 for s in earlier):
            continue
        asked += 1
        best = by_similarity(drive.run.rows(stamp))[0]
        match = int(best["match_sec"]) * 10**9 + int(best["match_nanosec"])
        right += bool(np.linalg.norm(drive.positions[stamp] - drive.positions[match]) <= 5.0)
    print(f"{right} of {asked} revisits")
    assert asked > 40
    assert right >= 0.9 * asked


def test_a_new_process_answers_the_same_from_the_saved_map(drive: Drive) -> None:
    """In the new process the old answers are among the map's, in the same order, with the same similarities.

    There the whole first session may be matched, the queries' own earlier selves too; those that the first process was
    not allowed to match are left out before comparing.
    """
    _, metadata = load_weights(drive.weights)
    config = RecognizerConfig()
    dim = metadata.model.size(0)
    database = KeyframeDatabase.load(drive.map, dim=dim, model_hash=metadata.sha256, bev=metadata.bev, kind="points")
    rows = [database.keyframe(i) for i in range(len(database))]
    assert [row.stamp for row in rows] == [stamp for stamp, _, _ in drive.run.descriptors]
    by_stamp = {row.stamp: row for row in rows}
    asked = [stamp for stamp, _, _ in drive.again.descriptors]
    assert len(asked) > 40 and set(asked) <= set(by_stamp)
    for stamp in asked:
        query, old, new = by_stamp[stamp], by_similarity(drive.run.rows(stamp)), by_similarity(drive.again.rows(stamp))
        assert set(new["match_session"]) <= {0, 1} and set(new["query_session"]) == {1}
        allowed = [
            row
            for row in new[new["match_session"] == 0]
            if query.stamp - rows[row["match_id"]].stamp >= config.exclude_time * 1e9
            and query.travel - rows[row["match_id"]].travel >= config.exclude_distance  # type: ignore[operator]
        ][: len(old)]
        np.testing.assert_allclose([row["similarity"] for row in allowed], old["similarity"], atol=1e-5)
        assert [row["match_id"] for row in allowed[:1]] == [row["match_id"] for row in old[:1]]


def test_courtyard_equals_the_offline_pipeline(tmp_path: Path, weights: Path) -> None:
    """A narrow field of view, hand-held."""
    source = data_file("courtyard_livox_avia.npz")
    assert cli.main(["import", str(source), str(tmp_path / "bag"), "--drift"]) == 0
    run = run_node(tmp_path / "node", tmp_path / "bag", weights=str(weights))
    expected = offline(tmp_path / "bag", weights)
    assert len(expected) > 40
    check_same(run, expected)


def test_full_clouds_without_odometry(tmp_path: Path, weights: Path) -> None:
    """120,000 points a scan, no poses: every scan is a keyframe because keyframe_source says so.

    The last scans wait for odometry, which never comes, until the node takes the silence for the end of the bag.
    """
    source = data_file("kitti00_hdl64_fullres.npz")
    assert cli.main(["import", str(source), str(tmp_path / "bag"), "--rate", "10"]) == 0
    run = run_node(tmp_path / "node", tmp_path / "bag", quiet=8.0, weights=str(weights), keyframe_source="all")
    expected = offline(tmp_path / "bag", weights, is_keyframe=True)
    assert len(expected) == 16
    check_same(run, expected)
