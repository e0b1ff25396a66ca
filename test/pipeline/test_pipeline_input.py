# SPDX-License-Identifier: Apache-2.0
"""What the pipeline takes: clouds, rasters, weights and devices; and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_in import BEV, CLOUD, SECOND, drive, pose, recogniser, stamps, view
from untrained import similarity_alone

from vlad_ros.config import ModelConfig, RecognizerConfig
from vlad_ros.model.describer import resolve_device
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.model.weights import save_weights
from vlad_ros.pipeline import PlaceRecognizer

REPOSITORY = Path(__file__).resolve().parents[2]


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


# -- the real thing ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = ModelConfig(width=8, fea_size=16, num_clusters=4, num_keypoints=20)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, PlaceNetwork(model, BEV), similarity_alone(0.25), {})
    return path


def test_from_pretrained_describes_with_the_network(weights):
    place = PlaceRecognizer.from_pretrained(weights, "cpu", RecognizerConfig(scan_descriptor_distance=0.0))
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
