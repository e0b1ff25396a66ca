# SPDX-License-Identifier: Apache-2.0
"""The projection to shorter descriptors: PCA against numpy's SVD, what is stored, and what a wrong size is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from untrained import similarity_alone

from vlad_ros.config import BevConfig, ModelConfig, RecognizerConfig
from vlad_ros.model.describer import Describer
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.model.projection import Projection, principal_directions
from vlad_ros.model.weights import load_weights, save_weights
from vlad_ros.pipeline import PlaceRecognizer

SMALL = ModelConfig(fea_size=16, width=8, num_clusters=4, num_keypoints=40)
BEV = BevConfig(extent=64.0, resolution=1.0)


def descriptors(count: int, dim: int) -> torch.Tensor:
    """Unit vectors that vary more in some directions than in others."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(count, dim, generator=generator) * torch.logspace(0, -1.5, dim)
    return torch.nn.functional.normalize(spread @ torch.linalg.qr(torch.randn(dim, dim, generator=generator))[0], dim=1)


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
def test_directions_agree_with_a_singular_value_decomposition(power: float) -> None:
    given = descriptors(300, 24)
    rows = principal_directions(given, 6, power).double().numpy()
    centred = given.double().numpy() - given.double().numpy().mean(axis=0)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    expected = right[:6] / (singular[:6, None] ** 2 / 299) ** power
    aligned = rows * np.sign((rows * expected).sum(axis=1, keepdims=True))
    assert np.abs(aligned - expected).max() < 1e-4 * np.abs(expected).max()


def test_whitening_evens_out_what_varies() -> None:
    given = descriptors(2000, 16)
    spread = [(given @ principal_directions(given, 16, power).T).std(dim=0) for power in (0.0, 0.25, 0.5)]
    ratios = [float(each.max() / each.min()) for each in spread]
    assert ratios[0] > 3 * ratios[1] > 6 * ratios[2]
    assert ratios[2] == pytest.approx(1.0, abs=1e-3)


def test_fewer_rows_are_the_first_of_more() -> None:
    given = descriptors(100, 24)
    projection = Projection(12, 24)
    projection.matrix.copy_(principal_directions(given, 12, 0.25))
    alone = principal_directions(given, 5, 0.25)
    short = projection(given, 5)
    assert torch.allclose(short, torch.nn.functional.normalize(given @ alone.T, dim=1), atol=1e-5)
    assert torch.allclose(short.norm(dim=1), torch.ones(100))


@pytest.mark.parametrize(("count", "size", "message"), [(100, 25, "1..24 rows, not 25"), (15, 8, "at least 16")])
def test_what_cannot_be_learnt_is_named(count: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        principal_directions(descriptors(count, 24), size, 0.25)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that make 64 numbers, or by their projection up to 12, 12 by default."""
    torch.manual_seed(3)
    network = PlaceNetwork(SMALL, BEV).eval()
    network.learn_projection(principal_directions(descriptors(100, 64), 12, 0.25), 12)
    path = tmp_path_factory.mktemp("projection") / "small.safetensors"
    save_weights(path, network, similarity_alone(0.5), {"data": "none"})
    return path


def scan(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.zeros((3000, 4), np.float32)
    points[:, :3] = rng.uniform([-25, -25, -1.5], [25, 25, 4], (3000, 3))
    points[:2000, 2] = -1.5
    return points


def test_weights_keep_it_and_descriptors_have_the_size_asked_for(file: Path) -> None:
    network, metadata = load_weights(file)
    assert metadata.model.projection == metadata.model.default_size == 12 and network.projection is not None
    whole, *short = (Describer.from_pretrained(file, "cpu", size)[0] for size in (64, 0, 12, 5))
    bev = whole.rasterize(scan(0))
    full = whole.describe(bev)
    assert whole.dim == 64 and np.linalg.norm(full) == pytest.approx(1.0, abs=1e-5)
    matrix = network.projection.matrix.numpy()
    for describer, size in zip(short, (12, 12, 5), strict=True):
        expected = matrix[:size] @ full
        assert describer.dim == size
        assert np.abs(describer.describe(bev) - expected / np.linalg.norm(expected)).max() < 1e-5


def test_a_size_that_the_weights_do_not_make_is_named(file: Path) -> None:
    with pytest.raises(ValueError, match=r"descriptor_size 32: these weights make 64 numbers or, .* up to 12"):
        Describer.from_pretrained(file, "cpu", 32)


def test_maps_of_other_sizes_are_refused(file: Path, tmp_path: Path) -> None:
    recognisers = [
        PlaceRecognizer.from_pretrained(file, "cpu", RecognizerConfig(descriptor_size=size)) for size in (0, 64)
    ]
    recognisers[0].process(scan(1), 10**9)
    recognisers[0].save_map(tmp_path / "map")
    recognisers[0].load_map(tmp_path / "map")
    with pytest.raises(ValueError, match="length 12; this network makes 64"):
        recognisers[1].load_map(tmp_path / "map")
