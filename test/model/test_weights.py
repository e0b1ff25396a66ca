# SPDX-License-Identifier: Apache-2.0
"""Weights files: what is written comes back; what is missing, cut, foreign, damaged or of another shape is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from untrained import similarity_alone

from vlad_ros.config import BevConfig, ModelConfig
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.model.weights import WeightsError, default_weights_path, load_weights, read_metadata, save_weights

SMALL = ModelConfig(fea_size=16, width=8, num_clusters=4)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, PlaceNetwork(SMALL, BevConfig()), similarity_alone(0.75), {"data": "none", "seed": 1})
    return path


def test_round_trip(file: Path) -> None:
    network, metadata = load_weights(file)
    assert metadata.model == SMALL and metadata.bev == BevConfig()
    assert metadata.calibration == similarity_alone(0.75) and metadata.info == {"data": "none", "seed": 1}
    assert not network.training
    again = file.with_name("again.safetensors")
    save_weights(again, network, metadata.calibration, metadata.info)
    assert read_metadata(again).sha256 == metadata.sha256
    for name, tensor in load_weights(again)[0].state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_missing_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors: no such weights file"):
        load_weights(tmp_path / "nowhere.safetensors")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fraction=st.floats(0, 0.999))
def test_truncated_anywhere(file: Path, fraction: float, tmp_path: Path) -> None:
    data = file.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(WeightsError, match=r"cut\.safetensors"):
        load_weights(cut)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 0.9999), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_tensors(file: Path, where: float, bit: int, tmp_path: Path) -> None:
    data = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[header + int((len(data) - header) * where)] ^= 1 << bit
    flipped = tmp_path / "flipped.safetensors"
    flipped.write_bytes(data)
    with pytest.raises(WeightsError, match="hash"):
        load_weights(flipped)


def test_foreign_and_mismatched(file: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(3)}, foreign)
    with pytest.raises(WeightsError, match=r"foreign\.safetensors.*another program"):
        load_weights(foreign)
    text = tmp_path / "text.safetensors"
    text.write_text("not weights at all")
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load_weights(text)
    network = PlaceNetwork(SMALL, BevConfig())
    network.config = ModelConfig(fea_size=16, width=16, num_clusters=4)
    other = tmp_path / "other.safetensors"
    save_weights(other, network, None, {})
    with pytest.raises(WeightsError, match="do not fit"):
        load_weights(other)


def test_the_shipped_weights_say_where_they_come_from() -> None:
    if not default_weights_path().exists():
        pytest.skip("no trained weights in this tree yet")
    metadata = read_metadata()
    assert "simulated" in metadata.info["data"]
    assert {"recipe", "commit", "parameters"} <= set(metadata.info)
    assert metadata.calibration is not None and metadata.calibration.error <= 0.05
    assert default_weights_path().stat().st_size <= 12 * 2**20
    assert metadata.info["parameters"] <= 3_000_000
