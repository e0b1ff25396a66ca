# SPDX-License-Identifier: Apache-2.0
"""The pipeline's promises, mostly with a stand-in for the network whose descriptors depend on the points alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from untrained import similarity_alone

from vlad_ros.bev import Bev
from vlad_ros.config import BevConfig, ModelConfig, RecognizerConfig
from vlad_ros.database import MapError
from vlad_ros.describer import Describer, resolve_device
from vlad_ros.geometry import inverse, transform
from vlad_ros.keyframes import Seen
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.model.weights import save_weights
from vlad_ros.pipeline import Described, PlaceRecognizer
from vlad_ros.types import POINT_SCALE, Geometry, LoopClosure, RejectReason

SECOND = 10**9
BEV = BevConfig(extent=40.0, resolution=1.0)
WORLD = np.random.default_rng(0).uniform([-60, -20, 0, 0], [60, 20, 5, 1], (2500, 4)).astype(np.float32)
REPOSITORY = Path(__file__).resolve().parent.parent


class StandIn(Describer):
    """Random Fourier features of the points (and the raster's mean) instead of a network."""

    def __init__(self, dim: int = 16, model_hash: str = "0" * 64) -> None:
        self.bev, self.dim, self.model_hash = BEV, dim, model_hash
        self.directions = np.random.default_rng(1).standard_normal((3, dim)).astype(np.float32)

    def rasterize(self, points, raster=None):
        raster = np.zeros((BEV.channels, BEV.size, BEV.size), np.float32) if raster is None else raster
        return Bev(raster, np.zeros(3), np.eye(3), 0.0, points)

    def see(self, points, raster=None):
        bev = self.rasterize(points, raster)
        features = np.cos(bev.points[:, :3] @ self.directions).mean(axis=0) + bev.raster.mean()
        return Seen(bev, (features / np.linalg.norm(features)).astype(np.float32), lambda: self.marks(points))

    @staticmethod
    def marks(points: np.ndarray) -> Geometry:
        """The points of least intensity as keypoints: no motion changes height and intensity, which tell them apart."""
        chosen = points[np.argsort(points[:, 3])[:100]]
        waves = np.random.default_rng(2).standard_normal((2, 32)) * [[3.0], [60.0]]
        features = np.cos(chosen[:, 2:] @ waves)
        features *= 127 / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-6)
        cloud = np.round(points[:, :3] / POINT_SCALE).astype(np.int16)
        return Geometry(chosen[:, :2].astype(np.float32), features.astype(np.int8), cloud, np.eye(4))


def recogniser(half: float = 0.5, use_bev: bool = False, model_hash: str = "0" * 64, **config) -> PlaceRecognizer:
    """Loops are as probable as 0.5 at a similarity of `half`; all are verified, however busy the computer."""
    config = RecognizerConfig(**{"verification_budget": 60.0} | config)
    return PlaceRecognizer(StandIn(model_hash=model_hash), similarity_alone(half), config, use_bev)


def pose(x: float, yaw: float = 0.0) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def view(T: np.ndarray) -> np.ndarray:
    """What a sensor at T sees of the world: all within 15 m."""
    points = transform(WORLD, inverse(T))
    return points[np.linalg.norm(points[:, :2], axis=1) < 15]


def drive(
    place: PlaceRecognizer, xs, start: float = 0.0, period: float = 0.5, odometry: bool = True
) -> list[Described]:
    out = []
    for i, x in enumerate(xs):
        T = pose(x)
        out += place.step(view(T), round((start + period * i) * SECOND), None, T if odometry else None)
    return out


def stamps(described: list[Described]) -> list[float]:
    return [one.keyframe.stamp / SECOND for one in described]


# -- windows ----------------------------------------------------------------------------------------------------------


def test_a_keyframe_is_answered_when_the_body_is_half_a_window_past_it():
    place = recogniser()
    for i in range(60):
        x = 0.5 * i
        answered = place.step(view(pose(x)), i * SECOND, None, pose(x))
        due = i - 10  # 5 m later
        assert stamps(answered) == ([due] if due >= 0 and due % 2 == 0 else [])
    assert stamps(place.finish()) == [50, 52, 54, 56, 58]
    assert place.finish() == []
    assert len(place.database) == 30


def test_the_local_map_is_centred_on_the_keyframe_and_in_its_body_frame():
    place = recogniser()
    described = drive(place, np.arange(0, 30, 0.5)) + place.finish()
    one = next(one for one in described if one.keyframe.travel == 15.0)
    assert one.keyframe.is_local_map and not one.keyframe.partial
    assert np.array_equal(one.keyframe.T_odom_base, pose(15.0))
    points = one.bev.points
    assert points[:, 0].min() < -19 and points[:, 0].max() > 19  # 15 m of sight, 5 m of travel both ways
    near, seen = transform(WORLD, inverse(pose(15.0))), np.linalg.norm
    expected = near[seen(near[:, :2], axis=1) < 15]
    distance = seen(expected[:, None, :3] - points[None, :, :3], axis=2).min(axis=1)
    assert distance.max() < 0.25 * 3**0.5  # each point of the world is there, but for the thinning
    assert np.allclose(one.keyframe.scan_descriptor, place.describe(view(pose(15.0))), atol=1e-6)
    assert not np.allclose(one.keyframe.descriptor, one.keyframe.scan_descriptor, atol=1e-3)


def test_keyframes_with_less_than_half_a_window_are_flagged():
    place = recogniser()
    described = drive(place, np.arange(0, 20.1, 0.5)) + place.finish()
    assert not any(one.keyframe.partial for one in described)  # the first and last ones see 5 m to one side
    place = recogniser()
    described = drive(place, np.arange(0, 3.1, 0.5)) + place.finish()
    assert [one.keyframe.partial for one in described] == [True] * 4


def test_a_standing_vehicle_waits_no_longer_than_the_timeout():
    place = recogniser(accumulation_timeout=3.0)
    answers = []
    for i, x in enumerate([0.0, 0.5, 1.0] + [1.0] * 20):
        answers += [(at, i / 2) for at in stamps(place.step(view(pose(x)), i * SECOND // 2, None, pose(x)))]
    assert answers == [(0.0, 3.0), (1.0, 4.0)]


@pytest.mark.parametrize("beyond", [pose(8.0), pose(4.0, np.radians(31)), None])
def test_a_jump_or_a_missing_pose_closes_the_window(beyond):
    place = recogniser()
    assert drive(place, np.arange(0, 4.1, 0.5)) == []
    closed = place.step(view(pose(4.0)), 5 * SECOND, None, beyond)
    assert place.counters == {"no_odometry" if beyond is None else "odometry_jump": 1}
    assert stamps(closed)[:5] == [0, 1, 2, 3, 4]
    assert all(one.keyframe.partial for one in closed[:5])  # 4 m are less than half of 10
    # what comes afterwards is not joined with what came before
    x = 4.0 if beyond is None else beyond[0, 3]
    after = drive(place, [x + 0.5, x + 1.0], start=6.0) + place.finish()
    assert after and all(np.linalg.norm(one.bev.points[:, :2], axis=1).max() < 15 + 1.1 for one in after)


@pytest.mark.parametrize("config", [{"accumulation_m": 0.0}, {"use_bev": True}])
def test_without_accumulation_a_keyframe_is_answered_at_once(config):
    place = recogniser(**config)
    for i in range(10):
        described = place.step(view(pose(float(i))), i * SECOND, None, pose(float(i)))
        assert stamps(described) == [i]
        keyframe = described[0].keyframe
        assert not keyframe.is_local_map and keyframe.descriptor is keyframe.scan_descriptor
        assert keyframe.travel == float(i)
        assert np.array_equal(keyframe.descriptor, place.describe(view(pose(float(i)))))
    assert place.finish() == []


def test_without_odometry_a_keyframe_is_answered_at_once():
    place = recogniser(keyframe_similarity=1.0)
    described = drive(place, np.arange(0, 60, 2.0), period=1.0, odometry=False)
    assert stamps(described) == list(range(30))
    assert described[5].keyframe.T_odom_base is None and described[5].keyframe.travel is None
    assert place.counters == {}


def test_a_parked_car_does_not_fill_the_map():
    place = recogniser()
    assert len(drive(place, [0.0] * 100, odometry=False)) == 1
    assert len(drive(place, [0.0] * 100, start=20.0) + place.finish()) == 1  # the first with a pose


# -- exactly once -----------------------------------------------------------------------------------------------------

EVENTS = st.tuples(
    st.sampled_from(["go", "go", "go", "go", "jump", "blind", "again", "late", "restart", "flush", "empty"]),
    st.sampled_from([0.0, 0.4, 0.9, 1.9]),
    st.sampled_from([True, False]),
    st.sampled_from([0.1, 0.5, 12.0]),
)


@given(st.lists(EVENTS, max_size=60))
@settings(max_examples=60, deadline=None)
def test_every_keyframe_gets_exactly_one_answer_in_order(events):
    place = recogniser()
    x, now, session, expected, got = 0.0, 1e6, 0, [], []
    for kind, step, is_keyframe, period in events:
        stamp = now + period
        if kind == "flush":
            got += place.finish()
            continue
        if kind == "empty":
            with pytest.raises(ValueError):
                place.step(np.zeros((0, 4), np.float32), round(stamp * SECOND), None, pose(x))
            continue
        if kind in ("again", "late") and now > 1e6:
            stamp = now if kind == "again" else now - 0.5
            assert place.step(CLOUD, round(stamp * SECOND), None, pose(x), True) == []
            continue
        if kind == "restart" and now > 1e6:
            stamp = now - 1000.0
            session += bool({key for key in expected if key[0] == session})  # an id is used once something has it
        x = x + (50.0 if kind == "jump" else step)
        got += place.step(
            view(pose(x % 30)), round(stamp * SECOND), None, None if kind == "blind" else pose(x), is_keyframe
        )
        now = stamp
        if is_keyframe:
            expected.append((session, round(stamp * SECOND)))
    got += place.finish()
    assert [(one.keyframe.session, one.keyframe.stamp) for one in got] == expected
    assert [one.keyframe_id for one in got] == list(range(len(expected)))
    for one in got:
        for closure in one.closures:
            assert closure.match_id < closure.query_id == one.keyframe_id
            assert place.database.keyframe(closure.match_id).stamp == closure.match_stamp
            recent = one.keyframe.stamp - closure.match_stamp < 30 * SECOND
            assert closure.match_session != closure.query_session or not recent


def test_process_and_flush_are_step_and_finish():
    one, other = recogniser(), recogniser()
    xs = np.concatenate([np.arange(0, 30, 0.5), np.arange(30, 0, -0.5)])
    flat: list[LoopClosure] = []
    rich: list[LoopClosure] = []
    for i, x in enumerate(xs):
        flat += one.process(view(pose(x)), i * SECOND, T_odom_base=pose(x))
        for described in other.step(view(pose(x)), i * SECOND, T_odom_base=pose(x)):
            rich += described.closures
    flat += one.flush()
    rich += [closure for described in other.finish() for closure in described.closures]
    assert len(flat) == len(rich) > 100
    for a, b in zip(*(sorted(each, key=lambda c: (c.query_id, c.match_id)) for each in (flat, rich)), strict=True):
        assert (a.query_id, a.match_id, a.similarity) == (b.query_id, b.match_id, b.similarity)
        # threads sum in any order
        assert a.probability == pytest.approx(b.probability, abs=1e-3)


def test_a_revisit_is_found_and_the_answer_names_both_places():
    place = recogniser(half=0.98)
    xs = np.concatenate([np.arange(0, 30, 0.5), np.arange(30, 0, -0.5)])
    described = drive(place, xs, period=1.0) + place.finish()
    back = [one for one in described if one.keyframe.stamp > 95 * SECOND]
    assert len(back) > 8
    for one in back:
        best = one.closures[0]
        there = place.database.keyframe(best.match_id)
        assert abs(there.T_odom_base[0, 3] - one.keyframe.T_odom_base[0, 3]) <= 1.0
        assert best.similarity > 0.99 and best.accepted and best.reject_reason is RejectReason.NONE
        assert best.probability >= 0.9 and best.evidence.inliers > 10 and best.covariance.shape == (6, 6)
        assert np.allclose(best.T_match_query, inverse(there.T_odom_base) @ one.keyframe.T_odom_base, atol=0.05)
        assert (best.query_session, best.match_session) == (0, 0)
        assert best.query_stamp == one.keyframe.stamp and best.match_stamp == there.stamp
        assert len(one.closures) <= 10
        said = [c.probability for c in one.closures]
        assert said == sorted(said, reverse=True)


def test_min_probability_met_exactly_accepts():
    first, second = view(pose(0.0)), view(pose(2.0))
    similarity = float(StandIn().see(first).descriptor @ StandIn().see(second).descriptor)

    def closure(**config) -> LoopClosure:
        place = recogniser(half=similarity, **config)
        place.step(first, 0)
        return place.step(second, 60 * SECOND)[0].closures[0]

    exact = closure().probability
    met, missed = closure(min_probability=exact), closure(min_probability=np.nextafter(exact, 2.0))
    assert met.accepted and met.reject_reason is RejectReason.NONE
    assert not missed.accepted and missed.reject_reason is RejectReason.LOW_SIMILARITY


# -- input ------------------------------------------------------------------------------------------------------------

CLOUD = view(pose(0.0))


@pytest.mark.parametrize(
    "bad",
    [
        {"points": np.zeros((0, 4), np.float32)},
        {"points": np.full((10, 4), np.nan, np.float32)},
        {"points": np.ones((10, 2), np.float32)},
        {"points": np.full((10, 4), 1e30)},
        {"points": np.full((10, 4), 30.0, np.float32)},  # in range, but outside of the raster
        {"points": np.zeros(12)},
        {"stamp": 1.5},
        {"stamp": -5},
        {"T_odom_base": np.full((4, 4), np.nan)},
        {"T_odom_base": 3 * np.eye(4)},
        {"bev": np.zeros((BEV.channels, BEV.size, BEV.size), np.float32)},
    ],
)
def test_input_that_nothing_can_be_made_of_changes_nothing(bad):
    place, untouched = recogniser(), recogniser()
    xs = np.arange(0, 8, 0.5)
    a, b = drive(place, xs), drive(untouched, xs)
    with pytest.raises(ValueError):
        place.step(**({"points": CLOUD, "stamp": 99 * SECOND, "T_odom_base": pose(500.0)} | bad))
    a += drive(place, xs + 8, start=8.0) + place.finish()
    b += drive(untouched, xs + 8, start=8.0) + untouched.finish()
    assert stamps(a) == stamps(b) and place.counters == untouched.counters == {}
    assert all(np.array_equal(p.keyframe.descriptor, q.keyframe.descriptor) for p, q in zip(a, b, strict=True))


def test_describe_neither_accumulates_nor_remembers():
    place, untouched = recogniser(), recogniser()
    first = place.describe(CLOUD)
    drive(place, np.arange(0, 8, 0.5))
    assert np.array_equal(place.describe(CLOUD), first)
    assert first.shape == (16,) and first.dtype == np.float32 and np.linalg.norm(first) == pytest.approx(1.0, abs=1e-6)
    rest = drive(place, np.arange(8, 16, 0.5), start=8.0) + place.finish()
    drive(untouched, np.arange(0, 8, 0.5))
    reference = drive(untouched, np.arange(8, 16, 0.5), start=8.0) + untouched.finish()
    assert [one.keyframe_id for one in rest] == [one.keyframe_id for one in reference]


def test_three_columns_and_doubles_are_a_cloud():
    place = recogniser()
    assert np.allclose(place.describe(CLOUD[:, :3].astype(np.float64)), place.describe(CLOUD), atol=1e-6)


def test_a_bev_from_outside_makes_the_descriptor():
    place = recogniser(use_bev=True)
    raster = np.full((BEV.channels, BEV.size, BEV.size), 0.5, np.float32)
    with_bev = place.step(CLOUD, 0, raster, pose(0.0))[0]
    assert np.array_equal(with_bev.bev.raster, raster)
    assert np.array_equal(with_bev.keyframe.descriptor, place.describe(CLOUD, raster))
    without = place.step(CLOUD, SECOND, None, pose(2.0))[0]  # its BEV never came
    assert np.array_equal(without.keyframe.descriptor, place.describe(CLOUD))
    assert not np.allclose(place.describe(CLOUD), place.describe(CLOUD, raster), atol=1e-3)
    for wrong in (raster[:-1], raster[:, :-1], raster * np.nan):
        with pytest.raises(ValueError, match="BEV must be"):
            place.step(CLOUD, 2 * SECOND, wrong)


def test_a_recogniser_that_makes_its_own_rasters_takes_none():
    raster = np.zeros((BEV.channels, BEV.size, BEV.size), np.float32)
    with pytest.raises(ValueError, match="use_bev"):
        recogniser().describe(CLOUD, raster)


# -- sessions and maps ------------------------------------------------------------------------------------------------


def test_a_bag_played_again_opens_a_session_and_keeps_the_map():
    place = recogniser(half=0.98)
    first = drive(place, np.arange(0, 12, 0.5), start=50.0)
    again = place.step(view(pose(0.0)), 50 * SECOND, None, pose(0.0))
    assert place.counters == {"session_opened": 1}
    assert stamps(first + again) == list(range(50, 62))  # the waiting ones of the old session were answered
    assert {one.keyframe.session for one in first + again} == {0}
    second = drive(place, np.arange(0.5, 12, 0.5), start=50.5) + place.finish()
    assert {one.keyframe.session for one in second} == {1}
    assert all(one.closures[0].match_session == 0 and one.closures[0].accepted for one in second)
    assert second[0].keyframe.travel == 0.0
    assert len(place.database) == 24 and place.session == 1


def test_late_and_repeated_stamps_are_dropped_and_counted():
    place = recogniser(accumulation_m=0.0)
    assert len(place.step(CLOUD, 10 * SECOND, is_keyframe=True)) == 1
    for stamp in (10 * SECOND, 10 * SECOND, 9 * SECOND):
        assert place.step(CLOUD, stamp, is_keyframe=True) == []
    assert place.counters == {"repeated_stamp": 2, "late_stamp": 1}
    assert len(place.database) == 1


def test_is_keyframe_overrules_the_selection():
    place = recogniser(accumulation_m=0.0)
    assert place.step(CLOUD, 0, is_keyframe=False) == []
    assert len(place.step(CLOUD, 1, is_keyframe=True)) == 1
    assert len(place.step(CLOUD, 2, is_keyframe=True)) == 1  # whatever the rate


def test_a_saved_map_answers_a_new_recogniser(tmp_path):
    place = recogniser()
    drive(place, np.arange(0, 30, 0.5), start=1000.0)
    place.finish()
    place.save_map(tmp_path / "x.map")
    fresh = recogniser()
    fresh.load_map(tmp_path / "x.map")
    assert fresh.session == 1 and len(fresh.database) == 30
    answers = drive(fresh, np.arange(0, 30, 0.5)) + fresh.finish()
    assert [one.closures[0].match_id for one in answers] == list(range(30))
    assert {one.closures[0].match_session for one in answers} == {0}
    assert answers[0].keyframe_id == 30


def test_a_map_that_cannot_be_loaded_leaves_everything_as_it_is(tmp_path):
    path = tmp_path / "x.map"
    other = recogniser(model_hash="1" * 64)
    other.step(CLOUD, 0)
    place, untouched = recogniser(), recogniser()
    a, b = (drive(p, np.arange(0, 8, 0.5)) for p in (place, untouched))
    for refused in (lambda: None, lambda: other.save_map(path), lambda: path.write_bytes(path.read_bytes()[:-1])):
        refused()
        with pytest.raises(MapError):
            place.load_map(path)
    with pytest.raises(MapError):
        place.save_map(tmp_path / "nowhere" / "x.map")
    a, b = a + place.finish(), b + untouched.finish()
    assert [(p.keyframe_id, p.keyframe.stamp) for p in a] == [(q.keyframe_id, q.keyframe.stamp) for q in b]


def test_a_map_of_bevs_and_one_of_clouds_do_not_mix(tmp_path):
    place = recogniser(use_bev=True)
    place.step(CLOUD, 0)
    place.save_map(tmp_path / "x.map")
    with pytest.raises(MapError, match="made from bev, not from points"):
        recogniser().load_map(tmp_path / "x.map")


def test_the_drive_goes_on_in_a_loaded_and_in_a_cleared_map(tmp_path):
    """Keyframes waiting for their windows meet the map that is there when they close, as its newest session."""
    old = recogniser()
    drive(old, np.arange(0, 6, 0.5), start=500.0)
    old.finish()
    old.save_map(tmp_path / "x.map")
    place = recogniser()
    before = drive(place, np.arange(0, 8, 0.5))
    place.load_map(tmp_path / "x.map")
    after = place.finish()
    assert stamps(before + after) == list(range(8))
    assert [one.keyframe.session for one in before + after] == [0] * len(before) + [1] * len(after)
    assert [one.keyframe_id for one in after] == list(range(6, 6 + len(after)))
    assert all(one.closures for one in after)
    drive(place, np.arange(8, 10, 0.5), start=8.0)
    place.clear_map()
    assert len(place.database) == 0 and place.session == 0
    assert [(one.keyframe.session, one.keyframe_id) for one in place.finish()] == [(0, 0), (0, 1)]


# -- the real thing ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = ModelConfig(width=8, fea_size=16, num_clusters=4, num_keypoints=20)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, PlaceNetwork(model, BEV), similarity_alone(0.25), {})
    return path


def test_from_pretrained_describes_with_the_network(weights):
    place = PlaceRecognizer.from_pretrained(weights, "cpu")
    assert place.calibration == similarity_alone(0.25)
    described = drive(place, [0, 1, 2, 3, 2, 1, 0], period=40.0) + place.finish()
    assert stamps(described) == [0, 40, 80, 120, 160, 200, 240]
    for one in described:
        assert one.keyframe.is_local_map
        for descriptor in (one.keyframe.descriptor, one.keyframe.scan_descriptor):
            assert descriptor.shape == (64,) and descriptor.dtype == np.float32
            assert np.linalg.norm(descriptor) == pytest.approx(1.0, abs=1e-5)
        alone = place.describe(view(one.keyframe.T_odom_base))
        assert np.allclose(alone, one.keyframe.scan_descriptor, atol=1e-6)
    assert place.flush() == []


def test_weights_without_a_calibration_are_refused(tmp_path):
    save_weights(tmp_path / "bare.safetensors", PlaceNetwork(ModelConfig(width=8, fea_size=16), BEV), None, {})
    with pytest.raises(ValueError, match=r"bare.*vlad calibrate"):
        PlaceRecognizer.from_pretrained(tmp_path / "bare.safetensors", "cpu")


def test_the_recognisers_own_raster_fed_back_gives_the_same_descriptor(weights):
    own = PlaceRecognizer.from_pretrained(weights, "cpu", RecognizerConfig(accumulation_m=0.0))
    fed = PlaceRecognizer.from_pretrained(weights, "cpu", use_bev=True)
    one = own.step(CLOUD, 0)[0]
    assert np.array_equal(fed.step(CLOUD, 0, one.bev.raster)[0].keyframe.descriptor, one.keyframe.descriptor)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "CPU", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(ValueError, match=name):
        resolve_device(name)


def test_auto_is_what_there_is():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_public_names_work_without_ros():
    script = """
import sys
class NoRos:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("rclpy", "sensor_msgs", "sensor_msgs_py", "nav_msgs", "geometry_msgs", "std_msgs"):
            raise ImportError(name)
sys.meta_path.insert(0, NoRos())
from vlad_ros import PlaceRecognizer
from vlad_ros.model.netvlad import NetVLAD, NetVLADLoupe
print(PlaceRecognizer.__name__, NetVLAD.__name__, NetVLADLoupe.__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["PlaceRecognizer", "NetVLAD", "NetVLADLoupe"]
