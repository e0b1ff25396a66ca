# SPDX-License-Identifier: Apache-2.0
"""The network: what it promises of any input, trained or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlad_ros.cloud.raster import Bev, rasterize
from vlad_ros.config import BevConfig, ModelConfig
from vlad_ros.model.keypoints import cell_centres, sample, select
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.model.points import neighbourhoods

BEV = BevConfig()


def street(seed: int, count: int = 6000) -> np.ndarray:
    """A ground, two facades and some posts: (N, 4), the sensor 1.5 m above ground."""
    rng = np.random.default_rng(seed)
    ground = np.c_[rng.uniform(-38, 38, (count // 2, 2)), np.full(count // 2, -1.5)]
    along = rng.uniform(-38, 38, count // 4)
    wall = np.c_[
        along, np.where(rng.random(count // 4) < 0.5, -9.0, 7.0) + np.sin(along), rng.uniform(-1.5, 6, count // 4)
    ]
    posts = rng.uniform(-25, 25, (12, 2))
    post = np.c_[posts[rng.integers(0, 12, count // 4)], rng.uniform(-1.5, 4, count // 4)]
    xyz = np.concatenate([ground, wall, post])
    return np.c_[xyz, np.zeros(len(xyz))].astype(np.float32)


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    out, c, s = points.copy(), np.cos(angle), np.sin(angle)
    out[:, :2] = points[:, :2] @ np.array([[c, s], [-s, c]], np.float32)
    return out


@pytest.fixture(scope="module")
def network() -> PlaceNetwork:
    torch.manual_seed(0)
    net = PlaceNetwork(ModelConfig(), BEV)
    net.attention.mix[2].weight.data.normal_(0, 0.05)  # zero at first, so that every branch takes part
    net.head_bev.range_encoding.linear.weight.data.normal_(0, 0.05)
    return net.eval()


def test_shapes_and_norms(network: PlaceNetwork) -> None:
    out = network.describe([rasterize(street(k), BEV) for k in range(3)])
    assert out.descriptor.shape == out.vlad_bev.shape == out.vlad_fusion.shape == (3, 2048)
    assert out.feature_map.shape == (3, 128, 40, 40) and out.features.shape == (3, 150, 128)
    for values in (out.descriptor, out.vlad_bev, out.vlad_fusion):
        assert torch.allclose(values.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(out.feature_map.norm(dim=1), torch.ones(3, 40, 40), atol=1e-5)


def test_fusion_is_the_formula_and_w_starts_at_zero(network: PlaceNetwork) -> None:
    assert PlaceNetwork(ModelConfig(), BEV).fusion.w.item() == 0.0
    out = network.describe([rasterize(street(1), BEV)])
    share = 1 / (1 + np.exp(-network.fusion.w.item()))
    mixed = share * out.vlad_fusion.numpy() + (1 - share) * out.vlad_bev.numpy()
    assert np.abs(out.descriptor.numpy() - mixed / np.linalg.norm(mixed)).max() < 1e-6


def test_one_and_many_give_the_same(network: PlaceNetwork) -> None:
    bevs = [rasterize(street(k, 300 * (k + 1)), BEV) for k in range(6)]
    many = network.describe(bevs).descriptor
    for k, bev in enumerate(bevs):
        assert (network.describe([bev]).descriptor[0] - many[k]).abs().max() < 1e-5


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_quarter_turn_changes_nothing(network: PlaceNetwork, quarter: int) -> None:
    a = network.describe([rasterize(street(3), BEV)]).descriptor
    b = network.describe([rasterize(turned(street(3), quarter * np.pi / 2), BEV)]).descriptor
    assert float((a * b).sum()) > 0.999


def test_feature_map_turns_with_the_raster(network: PlaceNetwork) -> None:
    """Exact by construction: also shows that the strided convolutions leave no copy off centre."""
    raster = torch.as_tensor(rasterize(street(5), BEV).raster)[None]
    with torch.inference_mode():
        features, scores = network.backbone(raster)
        turned_features, turned_scores = network.backbone(torch.rot90(raster, 1, (2, 3)))
    assert torch.allclose(turned_features, torch.rot90(features, 1, (2, 3)), atol=1e-5)
    assert torch.allclose(turned_scores, torch.rot90(scores, 1, (1, 2)), atol=1e-4)


def test_every_strided_convolution_is_centred(network: PlaceNetwork) -> None:
    """A mirror image of the receptive field: mirrored kernels on a mirrored raster give the mirrored map."""
    for conv in (network.backbone.fine[0], network.backbone.coarse[0][0]):
        x = torch.randn(1, conv.in_channels, 16, 16)
        mirrored = torch.nn.functional.conv2d(x.flip(3), conv.weight.flip(3), stride=conv.stride, padding=conv.padding)
        assert torch.allclose(mirrored.flip(3), conv(x), atol=1e-5)


@pytest.mark.parametrize("points", [0, 1, 7])
def test_few_points_are_masked_never_nan(network: PlaceNetwork, points: int) -> None:
    raster = np.zeros((5, 160, 160), np.float32)
    cells = np.random.default_rng(points).choice(160, (points, 2))
    raster[0, cells[:, 0], cells[:, 1]] = 2.0
    raster[2, cells[:, 0], cells[:, 1]] = 1.0
    bev = Bev(raster, np.zeros(3), np.eye(3), 0.0, np.zeros((0, 4), np.float32))
    out = network.describe([bev])
    assert int(out.keypoints.valid.sum()) <= points
    assert (out.keypoints.score[~out.keypoints.valid] == 0).all()
    for values in (out.descriptor, out.vlad_bev, out.vlad_fusion, out.features):
        assert torch.isfinite(values).all()
    if points:
        assert abs(float(out.descriptor.norm()) - 1) < 1e-5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0.001, 0.5), radius=st.floats(0.5, 4.0))
def test_keypoints_are_occupied_apart_and_best_first(seed: int, density: float, radius: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 40, 40, generator=generator)
    occupancy = torch.rand(2, 40, 40, generator=generator) < density
    bev = BevConfig(extent=20.0, resolution=0.5)
    found = select(logits, occupancy, 50, radius, bev)
    centres = cell_centres(40, 0.5)
    for b in range(2):
        xy = found.xy[b][found.valid[b]]
        cells = torch.cdist(xy, centres[occupancy[b]]).min(dim=1).values if len(xy) else torch.zeros(0)
        assert (cells < 1e-5).all()
        apart = torch.cdist(xy, xy, p=torch.inf) + 99 * torch.eye(len(xy))
        assert (apart > max(1, round(radius / 0.5)) * 0.5).all()
        assert (found.score[b][:-1] >= found.score[b][1:]).all()


def test_sample_reads_the_cell_under_the_position() -> None:
    bev = BevConfig(extent=16.0, resolution=0.5)
    feature_map = torch.randn(1, 4, 8, 8)
    centres = cell_centres(8, 2.0)
    assert centres[0, 0].tolist() == [7.0, 7.0]  # row 0 the farthest +x, column 0 the farthest +y
    got = sample(feature_map, centres.flatten(0, 1)[None], bev)[0]
    expected = torch.nn.functional.normalize(feature_map[0].flatten(1).T, dim=1)
    assert torch.allclose(got, expected, atol=1e-5)


def test_neighbourhoods_hold_the_points_around_each_keypoint() -> None:
    config = ModelConfig(points_per_keypoint=512)
    cloud = street(7)
    cloud[:, 2] += 1.5
    keypoints = select(torch.randn(1, 160, 160), torch.rand(1, 160, 160) < 0.02, 150, 1.0, BEV)
    offsets, mask = neighbourhoods([cloud], keypoints, config, BEV)
    high = cloud[cloud[:, 2] >= BEV.slices[0]]
    for k in range(150):
        delta = offsets[0, k][mask[0, k]].numpy()
        assert (np.hypot(delta[:, 0], delta[:, 1]) < config.point_radius + 1e-4).all()
        near = np.linalg.norm(high[:, :2] - keypoints.xy[0, k].numpy(), axis=1) < config.point_radius
        assert len(delta) <= near.sum()
        assert (len(delta) > 0) == bool(near.any())


def test_the_points_matter(network: PlaceNetwork) -> None:
    bev = rasterize(street(9), BEV)
    bare = Bev(bev.raster, bev.plane, bev.R_level_body, bev.ground, np.zeros((0, 4), np.float32))
    with_points, without = network.describe([bev]), network.describe([bare])
    assert (with_points.vlad_fusion - without.vlad_fusion).abs().max() > 1e-4
    assert torch.equal(with_points.vlad_bev, without.vlad_bev)


def test_the_loupe_head_sets_the_size_everywhere() -> None:
    net = PlaceNetwork(ModelConfig(head="loupe", loupe_dim=64), BEV).eval()
    assert net.config.descriptor_dim == 64
    out = net.describe([rasterize(street(2), BEV), rasterize(street(3), BEV)])
    assert out.descriptor.shape == (2, 64)
    assert torch.allclose(out.descriptor.norm(dim=1), torch.ones(2), atol=1e-5)


def test_describe_refuses_training_mode() -> None:
    net = PlaceNetwork(ModelConfig(), BEV)
    with pytest.raises(ValueError, match="eval"):
        net.describe([rasterize(street(2), BEV)])


def test_cuda_gives_the_same_descriptor(network: PlaceNetwork) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    bevs = [rasterize(street(k), BEV) for k in range(4)]
    expected = network.describe(bevs).descriptor
    on_gpu = PlaceNetwork(network.config, BEV)
    on_gpu.load_state_dict(network.state_dict())
    on_gpu.precision = torch.float16
    got = on_gpu.eval().cuda().describe(bevs).descriptor.cpu()
    assert float((got * expected).sum(dim=1).min()) >= 0.9999
