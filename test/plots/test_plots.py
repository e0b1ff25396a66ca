# SPDX-License-Identifier: Apache-2.0
"""The pictures' data against the network's own answers and hand-made references; what is drawn against the data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from plotted import assert_readable, make_scans, panel, plot, save_drive
from real_data import data_file

from vlad_ros.config import BevConfig, ModelConfig
from vlad_ros.model.describer import Describer
from vlad_ros.model.netvlad import NetVLAD, NetVLADLoupe
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.plots import assignment, heads, variant_steps, vlad
from vlad_ros.plots.insides import Head, Insides, few_keypoints, look_inside


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_drive(tmp_path_factory.mktemp("plots"))


@pytest.fixture(scope="module")
def describer(folder: Path) -> Describer:
    return Describer.from_pretrained(folder / "w.safetensors", "cpu")[0]


@pytest.fixture(scope="module")
def inside(describer: Describer) -> Insides:
    return look_inside(describer, make_scans(1)[0])


def normalised(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def pooled_by_loops(head: Head) -> np.ndarray:
    """NetVLAD of what was caught, cluster by cluster, feature by feature."""
    rows = []
    for k, centroid in enumerate(head.centroids.astype(np.float64)):
        row = np.zeros(len(centroid))
        for i, feature in enumerate(head.features):
            row += float(head.weights[i]) * float(head.assignment[k, i]) * (feature - centroid)
        rows.append(normalised(row))
    return normalised(np.concatenate(rows))


def test_what_is_caught_inside_makes_the_descriptor(describer: Describer, inside: Insides) -> None:
    points = make_scans(1)[0]
    for head in (inside.fusion, inside.bev):
        np.testing.assert_allclose(pooled_by_loops(head), head.vlad, atol=1e-5)
    mixed = inside.share * inside.fusion.vlad + (1 - inside.share) * inside.bev.vlad
    np.testing.assert_allclose(normalised(mixed), inside.descriptor, atol=1e-6)
    own = describer.network.describe([describer.rasterize(points)])
    np.testing.assert_allclose(own.descriptor[0].numpy(), inside.descriptor, atol=1e-6)
    assert not any(module._forward_pre_hooks for module in describer.network.modules()), "the network is left as it was"


def test_the_assignment_is_netvlads(describer: Describer, inside: Insides) -> None:
    """Softmax of the rectified scores, keypoint by keypoint; it sums to K; the entropy lies in its bounds."""
    data = assignment.compute(inside)
    layer = describer.network.head_fusion.vlad
    assert isinstance(layer, NetVLAD)
    kernel, bias = layer.conv.weight.detach().numpy()[:, :, 0, 0], layer.conv.bias.detach().numpy()
    count = len(inside.score)
    assert data.matrix.shape == (4, count)
    for i in range(count):
        scores = np.exp(np.maximum(kernel @ inside.fusion.features[i] + bias, 0))
        np.testing.assert_allclose(data.matrix[:, i], scores / scores.sum(), atol=1e-5)
    assert data.totals.sum() == pytest.approx(count, abs=1e-3) and data.counts.sum() == count
    assert np.all(data.entropy >= 0) and np.all(data.entropy <= 2 + 1e-6)
    assert np.all(np.diff(inside.score) <= 0), "best score first"


def test_entropy_and_components_by_hand(inside: Insides) -> None:
    sure, torn, even = np.eye(4)[0], np.array([0.5, 0.5, 0, 0]), np.full(4, 0.25)
    matrix = np.stack([sure, torn, even], axis=1).astype(np.float32)
    data = assignment.compute(dataclasses.replace(inside, fusion=dataclasses.replace(inside.fusion, assignment=matrix)))
    np.testing.assert_allclose(data.entropy, [0, 1, 2], atol=1e-6)
    rows = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    components, explains = assignment.principal_components(rows)
    spread = np.sort(np.linalg.eigvalsh(np.cov(rows.T)))[::-1]
    np.testing.assert_allclose(explains, spread[:2] / spread.sum(), rtol=1e-4)
    np.testing.assert_allclose(components.var(axis=0, ddof=1), spread[:2], rtol=1e-4)


def test_the_assignments_picture_shows_its_data(inside: Insides, describer: Describer) -> None:
    data = assignment.compute(inside)
    figure = assignment.draw(data, inside, describer.bev.extent, "a scan")
    assert_readable(figure)
    np.testing.assert_array_equal(panel(figure, "assignment").images[0].get_array(), data.matrix)
    heights = [bar.get_height() for bar in panel(figure, "total weight").patches]
    np.testing.assert_allclose(heights, data.totals)
    assert panel(figure, "total weight").lines[0].get_ydata()[0] == pytest.approx(len(inside.score) / 4)
    painted = panel(figure, "bird's-eye")
    offsets = np.concatenate([points.get_offsets() for points in painted.collections])
    order = np.argsort(data.strongest, kind="stable")
    np.testing.assert_allclose(offsets, inside.xy[order][:, ::-1], atol=1e-6)
    assert painted.get_xlim()[0] > painted.get_xlim()[1], "left is left"
    sizes = np.concatenate([points.get_sizes() for points in painted.collections])
    assert sizes[order.tolist().index(0)] == sizes.max(), "the best keypoint is the largest"


def test_contributions_sum_to_the_similarity(describer: Describer, inside: Insides) -> None:
    other = look_inside(describer, make_scans(1, seed=8)[0])
    data = vlad.compute(inside, other, vlad.look_at_noisy(describer, make_scans(1)[0]))
    similarity = float(inside.descriptor @ other.descriptor)
    assert data.cosine == pytest.approx(similarity, abs=1e-6)
    assert data.contributions.sum() == pytest.approx(similarity, abs=1e-6) and len(data.contributions) == 4
    by_hand = [sum(float(x) * float(y) for x, y in zip(data.a[k], data.b[k], strict=True)) for k in range(4)]
    np.testing.assert_allclose(data.contributions, by_hand, atol=1e-6)
    assert data.compared == pytest.approx(similarity, abs=1e-6), "without a projection the descriptors are compared"
    same = vlad.compute(inside, inside, inside)
    assert same.cosine == pytest.approx(1, abs=1e-5) and same.contributions.min() >= 0
    np.testing.assert_allclose(same.gap, 0, atol=1e-6)
    np.testing.assert_allclose(data.gap, data.with_noise - data.other)
    figure = vlad.draw(data, inside, other, describer.bev.extent, ("a", "b"))
    assert_readable(figure)
    heights = sorted(bar.get_height() for bar in panel(figure, "contributions").patches)
    np.testing.assert_allclose(heights, np.sort(data.contributions))
    difference = panel(figure, "|A - B|")
    np.testing.assert_allclose(difference.images[0].get_array(), np.abs(data.a - data.b))
    assert f"{similarity:.3f}" in difference.get_title()
    assert f"{data.gap[0]:+.3f}" in vlad.lines(data)[1] and f"{data.gap[1]:+.3f}" in vlad.lines(data)[2]


def test_mean_pooling_and_noise_by_hand(inside: Insides) -> None:
    means = []
    for head in (inside.fusion, inside.bev):
        total = sum(float(w) * f.astype(np.float64) for w, f in zip(head.weights, head.features, strict=True))
        means.append(normalised(np.asarray(total)))
    by_hand = normalised(inside.share * means[0] + (1 - inside.share) * means[1])
    np.testing.assert_allclose(vlad.mean_pooled(inside), by_hand, atol=1e-9)
    points = np.zeros((20_000, 4), np.float32)
    noisy = vlad.add_noise(points)
    assert len(noisy) == pytest.approx(10_000, rel=0.05)
    np.testing.assert_allclose(noisy[:, :3].std(axis=0), 0.05, rtol=0.05)
    assert not noisy[:, 3].any() and not points.any(), "intensities and the scan itself stay"


def test_steps_are_those_that_run() -> None:
    """The last step's result is the module's answer; every parameter comes into one step; each is what it is called."""
    torch.manual_seed(0)
    x, weights = torch.randn(1, 11, 32), torch.rand(1, 11)
    for module, inputs, last in (
        (NetVLADLoupe(32, 4, 16).eval(), (x, weights), "context gating"),
        (NetVLAD(32, 4), (x.transpose(1, 2)[..., None], weights[..., None]), "normalisation"),
    ):
        ran = variant_steps.steps(module, *inputs)
        names = [name for _, name, _ in variant_steps.STEPS]
        assert [step.name for step in ran] == names[: names.index(last) + 1]
        torch.testing.assert_close(ran[-1].value, module(*inputs).detach())
        taken = [name for step in ran for name in step.parameters]
        assert sorted(taken) == sorted(name for name, _ in module.named_parameters())
        for step, meant in zip(ran, steps_by_hand(module, x[0].numpy(), weights[0].numpy()), strict=True):
            value = step.value[0].detach().numpy()
            np.testing.assert_allclose(value.reshape(meant.shape), meant, atol=1e-5, err_msg=step.name)


def steps_by_hand(module: NetVLAD | NetVLADLoupe, x: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """What the steps mean for features (N, C), in numpy and in each module's own layout."""
    loupe = isinstance(module, NetVLADLoupe)
    own = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    scale = 1 / np.sqrt(1 + 1e-5)  # of a batch norm that has seen nothing yet
    if loupe:
        scores, centroids = x @ own["cluster_weights"] * scale, own["centres"][0].T
    else:
        scores, centroids = np.maximum(x @ own["conv.weight"][:, :, 0, 0].T + own["conv.bias"], 0), own["centroids"]
    assignment = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    residuals = [
        sum(weights[i] * assignment[i, k] * (x[i] - centroid) for i in range(len(x)))
        for k, centroid in enumerate(centroids)
    ]
    intra = np.stack([normalised(row) for row in residuals])
    matrices = [assignment.T, (weights[:, None] * assignment).T, np.stack(residuals), intra]
    if not loupe:
        return [x.T, weights, *matrices, normalised(intra.ravel())]
    flat = normalised(intra.T.ravel())
    projection = flat @ own["hidden"] * scale
    gates = 1 / (1 + np.exp(-(projection @ own["gating"]) * scale))
    return [x, weights, *(matrix.T for matrix in matrices), flat, projection, gates, projection * gates]


def test_both_heads_side_by_side(describer: Describer, tmp_path: Path) -> None:
    clouds = [make_scans(1)[0], make_scans(1, seed=8)[0]]
    both, shares = heads.make(describer, clouds, ["one", "two"], tmp_path / "new folder" / "heads.png")
    assert [(v.name, v.trained) for v in both] == [("NetVLAD", True), ("NetVLADLoupe", False)]
    assert sum(both[0].parameters.values()) == 32 * 4 + 4 + 4 * 32
    loupe_size = describer.network.config.loupe_dim
    assert both[1].parameters["hidden"] == 128 * loupe_size
    assert both[0].counts == (30, 256) and all(ms > 0 for v in both for ms in v.milliseconds)
    np.testing.assert_allclose(shares.contributions.sum(axis=1), 1, atol=1e-6)
    one = look_inside(describer, clouds[0])
    parts = [one.share * one.fusion.vlad, (1 - one.share) * one.bev.vlad]
    length = np.linalg.norm(sum(parts))
    np.testing.assert_allclose(shares.contributions[0], [p @ one.descriptor / length for p in parts], atol=1e-5)
    figure = heads.draw(both, shares, ["one", "two"])
    assert_readable(figure)
    widths = [bar.get_width() for bar in panel(figure, "each branch").patches]
    np.testing.assert_allclose(widths, shares.contributions.T.ravel())
    texts = [text.get_text() for text in panel(figure, "NetVLADLoupe (untrained)").texts]
    assert f"{loupe_size}" in texts and "32 x 4" in texts and "residuals to the centroids" in texts


def test_weights_with_the_loupe_head() -> None:
    torch.manual_seed(0)
    config = ModelConfig(fea_size=32, num_clusters=4, width=16, num_keypoints=30, rotations=1, head="loupe")
    describer = Describer(PlaceNetwork(config, BevConfig(extent=64.0, resolution=1.0)), "hash")
    assert [variant.trained for variant in heads.variants(describer.network, (30,))] == [False, True]
    np.testing.assert_allclose(heads.branches(describer, make_scans(1)).contributions.sum(), 1, atol=1e-6)
    with pytest.raises(ValueError, match="loupe head"):
        look_inside(describer, make_scans(1)[0])


def test_simulated_scans_stand_in_where_none_is_named() -> None:
    scans, names = heads.simulated_scans()
    assert len(scans) == len(names) == 4 and min(len(scan) for scan in scans) > 2000
    assert all(name.startswith("simulated ") for name in names)


def test_few_keypoints_are_said_and_none_is_an_error(
    folder: Path, describer: Describer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ground = np.c_[np.random.default_rng(0).uniform(-20, 20, (2000, 2)), np.full(2000, -1.6)]
    post = np.c_[np.full((40, 2), 5.0), np.linspace(-1.6, 1.0, 40)]
    np.save(tmp_path / "ground.npy", ground.astype(np.float32))
    np.save(tmp_path / "post.npy", np.concatenate([ground, post]).astype(np.float32))
    assert plot(folder, "assignment", str(tmp_path / "ground.npy"), "-o", str(tmp_path / "a.png")) == 2
    said = capsys.readouterr().err
    assert "finds no keypoint in this scan" in said and not (tmp_path / "a.png").exists()
    assert plot(folder, "assignment", str(tmp_path / "post.npy"), "-o", str(tmp_path / "a.png")) == 0
    said = capsys.readouterr()
    assert "has 1 keypoints of the 30" in said.err and len(said.err.strip().splitlines()) == 1
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG" and len(list(tmp_path.glob("*.tmp"))) == 0
    full = look_inside(describer, make_scans(1)[0])
    assert (few_keypoints(full, "it") is None) == (len(full.score) == 30)


def test_a_real_scan(describer: Describer) -> None:
    from vlad_ros.files.scan_file import read_scan

    inside = look_inside(describer, read_scan(f"{data_file('loop_mid360.npz')}:100"))
    data = assignment.compute(inside)
    assert data.totals.sum() == pytest.approx(len(inside.score), abs=1e-3)
    assert_readable(assignment.draw(data, inside, describer.bev.extent, "loop_mid360:100"))
