# SPDX-License-Identifier: Apache-2.0
"""The pictures' data against the network's own answers and hand-made references; what is drawn against the data."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest
import torch
from conftest import data_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from untrained import save_untrained

from vlad_ros import cli
from vlad_ros.config import BevConfig, ModelConfig
from vlad_ros.database import KeyframeDatabase
from vlad_ros.describer import Describer
from vlad_ros.model.netvlad import NetVLAD, NetVLADLoupe
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.plots import assignment, closure, heads, style, vlad
from vlad_ros.plots.insides import Head, Insides, few_keypoints, look_inside
from vlad_ros.run import Run, read_run
from vlad_ros.sequence import Sequence, save_sequence
from vlad_ros.types import F32


def make_scans(count: int, seed: int = 3) -> list[F32]:
    """Scans of heaps on a plane, from places 1.5 m apart on a line."""
    rng = np.random.default_rng(seed)
    heaps = [rng.normal(c, (0.8, 0.8, 0.8), (150, 3)) for c in rng.uniform(-30, 30, (60, 3)) * (1, 1, 0)]
    world = np.concatenate([*heaps, np.c_[rng.uniform(-40, 40, (3000, 2)), np.full(3000, -1.6)]])
    shifted = [world - (1.5 * k, 0.0, 0.0) for k in range(count)]
    return [np.c_[points, np.zeros(len(points))].astype(np.float32) for points in shifted]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive of 6 places, driven twice, and weights."""
    where, scans = tmp_path_factory.mktemp("plots"), make_scans(6)
    poses = np.tile(np.eye(4), (12, 1, 1))
    poses[:, 0, 3] = 1.5 * np.tile(np.arange(6), 2)
    stamps = np.concatenate([1.0 + np.arange(6.0), 40.0 + np.arange(6.0)])
    rng = np.random.default_rng(1)
    again = [scan + rng.normal(0, 0.01, scan.shape).astype(np.float32) for scan in scans]
    save_sequence(where / "drive.npz", Sequence("drive", [*scans, *again], poses, stamps))
    save_untrained(where / "w.safetensors", scans, 0.5)
    return where


@pytest.fixture(scope="module")
def describer(folder: Path) -> Describer:
    return Describer.from_pretrained(folder / "w.safetensors", "cpu")[0]


@pytest.fixture(scope="module")
def inside(describer: Describer) -> Insides:
    return look_inside(describer, make_scans(1)[0])


def plot(folder: Path, *words: str) -> int:
    network = [] if words[0] == "closure" else ["--weights", str(folder / "w.safetensors")]
    return cli.main(["plot", *words, *network])


def assert_readable(figure: Figure) -> None:
    """Every axes with data says what is on it and in which unit, and no legend lies over data."""
    figure.canvas.draw()
    for axes in figure.findobj(Axes):
        if not axes.axison:
            continue
        is_bar = axes.get_label() == "<colorbar>"  # which has but one axis
        for axis in (axes.yaxis,) if is_bar else (axes.xaxis, axes.yaxis):
            named = any(character.isalpha() for tick in axis.get_ticklabels() for character in plain(tick.get_text()))
            assert "[" in axis.get_label_text() or named, f"{axes.get_title()}: an axis without a unit"
        legend = axes.get_legend()
        if legend is not None:
            box = legend.get_window_extent()
            for line in axes.lines:
                inside = box.count_contains(line.get_transform().transform(line.get_xydata()))
                assert inside == 0, f"{axes.get_title()}: the legend covers a line"
            for patch in axes.patches:
                assert not box.overlaps(patch.get_window_extent()), f"{axes.get_title()}: the legend covers a bar"


def plain(text: str) -> str:
    """A tick's text without the markup of its number."""
    return text.replace("$\\mathdefault", "")


def panel(figure: Figure, title: str) -> Axes:
    found = [axes for axes in figure.findobj(Axes) if title in axes.get_title()]
    assert len(found) == 1, f"{len(found)} panels are called {title!r}"
    return found[0]


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
    """The last step's shape is the module's answer; every layer of the module is among the steps."""
    torch.manual_seed(0)
    x, weights = torch.randn(1, 11, 32), torch.rand(1, 11)
    loupe = NetVLADLoupe(32, 4, 16).eval()
    ran = heads.steps(loupe, x, weights)
    assert ran[0] == heads.Step("x", "input", (1, 11, 32)) and ran[-1].shape == tuple(loupe(x, weights).shape)
    layers = [step.name.split(":")[0] for step in ran if step.kind == "layer"]
    assert layers == ["assignment_norm", "hidden_norm", "gating_norm"]
    plain = NetVLAD(32, 4)
    ran = heads.steps(plain, x.transpose(1, 2)[..., None], weights[..., None])
    assert ran[-1].shape == (1, 128) and [s.shape for s in ran if s.name == "softmax"] == [(1, 4, 11)]
    assert [step.name for step in ran if step.kind == "layer"] == ["conv: Conv2d", "relu: ReLU"]


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
    assert f"1 x {loupe_size}" in texts and "sigmoid" in texts


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


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    words = ["run", str(folder / "drive.npz"), "-o", str(folder / "run"), "--weights", str(folder / "w.safetensors")]
    assert cli.main([*words, "--device", "cpu", "--no-odometry", "--every-scan", "--exclude-time", "20"]) == 0
    return read_run(folder / "run")


def test_a_closure_is_explained_by_what_the_run_has_kept(run: Run) -> None:
    database = KeyframeDatabase.open(run.map_path)
    verified = np.flatnonzero(np.isfinite(run.closures.T_match_query[:, 0, 0]))
    assert len(verified), "no loop of the drive could be verified"
    id = int(verified[0])
    data = closure.explain(run, id, database)
    assert 1 / (1 + math.exp(-sum(data.terms.values()))) == pytest.approx(run.closures.probability[id], rel=1e-6)
    query, match = (database.geometry(int(ids[id])) for ids in (run.closures.query, run.closures.match))
    assert query is not None and match is not None
    T = match.T_level_body @ run.closures.T_match_query[id]
    by_hand = [(T @ np.append(point.astype(np.float64), 1.0))[:2] for point in query.points[:50]]
    np.testing.assert_allclose(data.query[:50], by_hand, atol=1e-6)
    assert data.found.inliers == run.closures.evidence["inliers"][id]
    assert data.rasters[0].shape == (5, 64, 64) and data.rasters[0].any()
    figure = closure.draw(data)
    assert_readable(figure)
    lines = figure.findobj(ConnectionPatch)
    colours = [matplotlib.colors.to_hex(line.get_edgecolor()).upper() for line in lines]
    assert len(lines) == data.found.matches and colours.count(style.TRUE) == data.found.inliers
    pair = data.found.pairs[data.found.is_inlier][-1]
    np.testing.assert_allclose(lines[-1].xy1, query.keypoints[pair[0]][::-1], atol=1e-6)
    np.testing.assert_allclose(lines[-1].xy2, match.keypoints[pair[1]][::-1], atol=1e-6)
    bars = [bar.get_width() for bar in panel(figure, "evidence").patches]
    np.testing.assert_allclose(bars, list(data.terms.values()))


def test_the_reason_and_the_truth_in_words(run: Run) -> None:
    """Each row's own reason, whatever it is, and nothing on what is not known."""
    database = KeyframeDatabase.open(run.map_path)
    refused = dataclasses.replace(
        run.closures,
        accepted=np.zeros(len(run.closures), bool),
        reason=np.full(len(run.closures), 3),
        probability=np.zeros(len(run.closures)),
        T_match_query=np.full_like(run.closures.T_match_query, np.nan),
        evidence={name: np.full(len(run.closures), np.nan) for name in run.closures.evidence},
    )
    data = closure.explain(dataclasses.replace(run, closures=refused), 0, database)
    assert "no transform brings more keypoints together than chance" in data.verdict
    assert data.evidence is None and data.terms == {}
    assert_readable(closure.draw(data))
    assert closure.lines(data) == [data.heading, data.verdict]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["assignment", "{}/none.npz:3"], "no such file"),
        (["assignment", "{}/drive.npz"], "say which scan"),
        (["assignment", "{}/drive.npz:99"], "there is no scan 99"),
        (["vlad", "{}/drive.npz:0", "{}/w.safetensors"], "not a known kind of scan"),
        (["closure", "{}/none", "0"], "there is no such run"),
        (["closure", "{}/run", "100000"], "there is no closure 100000"),
        (["closure", "{}/run", "-1"], "there is no closure -1"),
    ],
)
def test_bad_input_is_one_sentence(
    folder: Path, run: Run, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plot(folder, *(word.format(folder) for word in words)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("vlad plot: ") and sentence in said[0]


def test_an_older_and_an_empty_run(folder: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text((run.path / "run.json").read_text().replace('"version": 1', '"version": 0'))
    assert plot(folder, "closure", str(tmp_path), "0") == 2
    assert "a run of an older version" in capsys.readouterr().err
    none = dataclasses.replace(run.closures, query=run.closures.query[:0])
    with pytest.raises(ValueError, match="it has none"):
        closure.explain(dataclasses.replace(run, closures=none), 0, KeyframeDatabase.open(run.map_path))


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


def test_default_names_and_printed_numbers(
    folder: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scans = [f"{folder}/drive.npz:0", f"{folder}/drive.npz:4"]
    assert plot(folder, "assignment", scans[0]) == plot(folder, "vlad", *scans) == plot(folder, "heads", *scans) == 0
    assert plot(folder, "closure", str(run.path), "0") == 0
    names = ["closure_0.png", "netvlad_soft_assignment.png", "netvlad_variants.png", "netvlad_vlad_structure.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    printed = capsys.readouterr().out
    assert "gap" in printed and "NetVLADLoupe (untrained)" in printed and "median" in printed


def test_clusters_and_verdicts_never_look_alike() -> None:
    assert len({style.cluster_style(cluster) for cluster in range(64)}) == 64
    grey = [np.dot(matplotlib.colors.to_rgb(colour), (0.30, 0.59, 0.11)) for colour in (style.QUERY, style.MATCH)]
    assert abs(grey[0] - grey[1]) > 0.2, "told apart without any colour"


def test_a_real_scan(describer: Describer) -> None:
    from vlad_ros.scan_file import read_scan

    inside = look_inside(describer, read_scan(f"{data_file('loop_mid360.npz')}:100"))
    data = assignment.compute(inside)
    assert data.totals.sum() == pytest.approx(len(inside.score), abs=1e-3)
    assert_readable(assignment.draw(data, inside, describer.bev.extent, "loop_mid360:100"))
