# SPDX-License-Identifier: Apache-2.0
"""The aggregations against explicit loops in numpy, their sizes and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlad_ros.model.netvlad import NetVLAD, NetVLADLoupe


def softmax(values: np.ndarray) -> np.ndarray:
    exponents = np.exp(values - values.max())
    return exponents / exponents.sum()


def unit(values: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(values)
    return values / norm if norm > 1e-12 else values


def netvlad_reference(layer: NetVLAD, x: np.ndarray, weights: np.ndarray, divide: bool = False) -> np.ndarray:
    """One map (C, H, W), as the paper writes it: cluster by cluster, place by place."""
    kernel = layer.conv.weight.detach().numpy()[:, :, 0, 0].astype(np.float64)
    bias, centroids = layer.conv.bias.detach().numpy(), layer.centroids.detach().numpy()
    clusters, channels = centroids.shape
    out, mass = np.zeros((clusters, channels)), np.zeros(clusters)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            feature = x[:, i, j].astype(np.float64)
            assignment = softmax(np.maximum(kernel @ feature + bias, 0.0))
            for k in range(clusters):
                out[k] += weights[i, j] * assignment[k] * (feature - centroids[k])
                mass[k] += weights[i, j] * assignment[k]
    if divide:
        out /= mass[:, None]
    return unit(np.concatenate([unit(row) for row in out]))


def random_layer(seed: int, **sizes: int) -> NetVLAD:
    torch.manual_seed(seed)
    return NetVLAD(**sizes)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 5), width=st.integers(1, 5))
def test_netvlad_equals_explicit_loops(seed: int, height: int, width: int) -> None:
    layer = random_layer(seed, fea_size=12, num_clusters=5)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 12, height, width)).astype(np.float32)
    weights = rng.uniform(size=(2, height, width)).astype(np.float32)
    got = layer(torch.from_numpy(x), torch.from_numpy(weights)).detach().numpy()
    for b in range(2):
        assert np.abs(got[b] - netvlad_reference(layer, x[b], weights[b])).max() < 1e-5


def test_netvlad_has_the_promised_size_and_names() -> None:
    layer = NetVLAD(fea_size=128, num_clusters=16)
    assert sum(p.numel() for p in layer.parameters()) == 4112
    assert layer.centroids.shape == (16, 128)
    assert isinstance(layer.conv, torch.nn.Conv2d) and isinstance(layer.relu, torch.nn.ReLU)
    x = torch.randn(3, 128, 7, 5)
    out = layer(x)
    assert out.shape == (3, 2048)
    assert torch.allclose(out.norm(dim=1), torch.ones(3), atol=1e-5)
    reference = netvlad_reference(layer, x[1].numpy(), np.ones((7, 5)))
    assert np.abs(out[1].detach().numpy() - reference).max() < 1e-5


def test_dividing_by_the_sum_of_assignments_cancels() -> None:
    """The method's text divides each cluster by its mass; the normalisation of each cluster takes that back."""
    layer = random_layer(4, fea_size=16, num_clusters=4)
    x, weights = np.random.default_rng(4).normal(size=(16, 6, 6)).astype(np.float32), np.ones((6, 6))
    plain, divided = netvlad_reference(layer, x, weights), netvlad_reference(layer, x, weights, divide=True)
    assert np.abs(plain - divided).max() < 1e-12
    got = layer(torch.from_numpy(x)[None])[0].detach().numpy()
    assert np.abs(got - divided).max() < 1e-5


def test_weight_zero_means_absent_and_all_zero_gives_zeros() -> None:
    layer = random_layer(1, fea_size=8, num_clusters=3)
    x = torch.randn(1, 8, 1, 6)
    weights = torch.tensor([[[1.0, 1, 1, 0, 0, 0]]])
    assert torch.allclose(layer(x, weights), layer(x[..., :3]), atol=1e-6)
    assert torch.equal(layer(x, torch.zeros(1, 1, 6)), torch.zeros(1, 24))


def test_residual_tensor_is_never_made() -> None:
    """The largest tensor that the forward pass makes is the feature map, not K times as much."""
    layer, x, sizes = NetVLAD(128, 16), torch.randn(1, 128, 40, 40), []

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor))
            return out

    with Record(), torch.no_grad():
        layer(x)
    assert sizes and max(sizes) <= x.numel()


def test_netvlad_gradients() -> None:
    layer = random_layer(2, fea_size=5, num_clusters=3).double()
    x = torch.randn(2, 5, 2, 3, dtype=torch.double, requires_grad=True)
    weights = torch.rand(2, 2, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x, weights))


def loupe_reference(layer: NetVLADLoupe, x: np.ndarray) -> np.ndarray:
    """(B, N, C) in eval mode, with explicit loops."""

    def norm(module: torch.nn.BatchNorm1d, values: np.ndarray) -> np.ndarray:
        mean, var = module.running_mean.numpy(), module.running_var.numpy()
        scale, shift = module.weight.detach().numpy(), module.bias.detach().numpy()
        return (values - mean) / np.sqrt(var + module.eps) * scale + shift

    clusters, centres = layer.cluster_weights.detach().numpy(), layer.centres.detach().numpy()[0]
    out = []
    for cloud in x.astype(np.float64):
        vlad = np.zeros((cloud.shape[1], clusters.shape[1]))
        for feature in cloud:
            assignment = softmax(norm(layer.assignment_norm, feature @ clusters))
            for k in range(clusters.shape[1]):
                vlad[:, k] += assignment[k] * (feature - centres[:, k])
        flat = unit(np.stack([unit(vlad[:, k]) for k in range(vlad.shape[1])], axis=1).ravel())
        projected = norm(layer.hidden_norm, flat @ layer.hidden.detach().numpy())
        gates = 1 / (1 + np.exp(-norm(layer.gating_norm, projected @ layer.gating.detach().numpy())))
        out.append(projected * gates)
    return np.stack(out)


def test_loupe_equals_explicit_loops() -> None:
    torch.manual_seed(0)
    layer = NetVLADLoupe(feature_size=12, cluster_size=4, output_dim=6)
    layer(torch.randn(8, 9, 12))  # gives the batch norms something to have measured
    layer.eval()
    x = np.random.default_rng(0).normal(size=(3, 9, 12)).astype(np.float32)
    assert np.abs(layer(torch.from_numpy(x)).detach().numpy() - loupe_reference(layer, x)).max() < 1e-5


def test_loupe_has_the_promised_size() -> None:
    layer = NetVLADLoupe(feature_size=128, cluster_size=16, output_dim=256).eval()
    assert sum(p.numel() for p in layer.parameters()) == 594_976
    x = torch.randn(2, 30, 128)
    assert layer(x).shape == (2, 256)
    masked = layer(x, torch.cat([torch.ones(2, 20), torch.zeros(2, 10)], dim=1))
    assert torch.allclose(masked, layer(x[:, :20]), atol=1e-5)


def test_loupe_gradients() -> None:
    torch.manual_seed(3)
    layer = NetVLADLoupe(feature_size=4, cluster_size=3, output_dim=5).double().eval()
    x = torch.randn(2, 6, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize("head", [NetVLAD(6, 2), NetVLADLoupe(6, 2, 4).eval()])
def test_order_of_the_places_does_not_matter(head: torch.nn.Module) -> None:
    x = torch.randn(1, 7, 6)
    order = torch.randperm(7)
    if isinstance(head, NetVLAD):
        a, b = head(x.transpose(1, 2)[..., None]), head(x[:, order].transpose(1, 2)[..., None])
    else:
        a, b = head(x), head(x[:, order])
    assert torch.allclose(a, b, atol=1e-5)
