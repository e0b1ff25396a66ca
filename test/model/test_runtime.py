# SPDX-License-Identifier: Apache-2.0
"""What runs the backbone: all compute the same, leave the network as it is, and say what is missing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from real_data import data_file

from vlad_ros.cli import main
from vlad_ros.cloud.thin import join
from vlad_ros.config import BevConfig
from vlad_ros.files.sequence import load_sequence
from vlad_ros.model.describer import Describer
from vlad_ros.model.runtime import INPUT, OPSET, OUTPUTS, PACKAGES, make_runtime, resolve_inference
from vlad_ros.model.weights import load_weights
from vlad_ros.simulation.pairs import make_pairs

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


def has(name: str) -> bool:
    return all(importlib.util.find_spec(package) for package in PACKAGES.get(name, ()))


RUNTIMES = [
    pytest.param(name, marks=pytest.mark.skipif(not has(name), reason=f"{name} is not installed"))
    for name in ("torch", "onnx", "openvino")
]


@pytest.fixture(scope="module")
def scans() -> list[np.ndarray]:
    pairs = make_pairs(3, seed=900, maps=False)
    return [cloud for pair in pairs for cloud in (pair.query, pair.match)]


def test_the_same_weights_are_traced_once() -> None:
    """PyTorch keeps what it has traced: each configure and cleanup of a node would leave another copy behind."""
    backbone = load_weights(None, "cpu")[0].backbone
    runs = [make_runtime("torch", backbone, BevConfig(), CPU) for _ in range(2)]
    assert runs[0] is runs[1] is not None
    with torch.no_grad():
        next(backbone.parameters()).add_(1.0)
    assert make_runtime("torch", backbone, BevConfig(), CPU) is not runs[0]


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_descriptors_and_keypoints_are_those_of_the_plain_network(name: str, scans: list[np.ndarray]) -> None:
    network, metadata = load_weights(None, "cpu")
    describer, _ = Describer.from_pretrained(None, "cpu", inference=name)
    assert describer.inference == name and network.runtime is None and describer.model_hash == metadata.sha256
    for scan in scans:
        bev = describer.rasterize(scan)
        plain, other = network.describe([bev]), describer.describe_all(bev)
        assert float((plain.descriptor * other.descriptor).sum()) >= 0.9999
        a, b = (d.keypoints.xy[0][d.keypoints.valid[0]] for d in (plain, other))
        assert len(a) == len(b) and (torch.cdist(a, b).min(dim=1).values < 1e-3).float().mean() > 0.99
        features = (plain.feature_map * other.feature_map).sum(dim=1)
        assert float(features.min()) >= 0.9999


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_map_made_by_one_answers_another(name: str) -> None:
    drive = load_sequence(data_file("loop_mid360.npz"))
    poses = drive.poses_to("judge")
    ours, theirs = (Describer.from_pretrained(None, "cpu", inference=each)[0] for each in ("torch", name))
    asked = range(40, 140, 5)
    known = np.stack([ours.see(join([drive.scans[i]], [np.eye(4)], 0.25)).descriptor for i in range(30, 150, 6)])
    queries = [theirs.see(join([drive.scans[i]], [np.eye(4)], 0.25)).descriptor for i in asked]
    same = [ours.see(join([drive.scans[i]], [np.eye(4)], 0.25)).descriptor for i in asked]
    places = poses[30:150:6, :3, 3]
    found = [int(np.argmax(known @ query)) for query in queries]
    assert found == [int(np.argmax(known @ query)) for query in same]
    assert np.mean([np.linalg.norm(places[f] - poses[i, :3, 3]) < 5.0 for f, i in zip(found, asked, strict=True)]) > 0.9


def test_the_network_is_left_as_it_is() -> None:
    network, _ = load_weights(None, "cpu")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Describer(network, "0" * 64, "cpu")
    after = network.state_dict()
    assert network.runtime is not None and before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="inference must be auto, torch, openvino or onnx, not 'tensorrt'"):
        resolve_inference("tensorrt", CPU)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="inference onnx needs onnx and onnxruntime: pip install onnx onnxruntime"):
        resolve_inference("onnx", CPU)
    assert resolve_inference("auto", CPU) == "torch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match="openvino runs on the CPU"):
        resolve_inference("openvino", torch.device("cuda:0"))


@pytest.mark.skipif(not has("onnx"), reason="onnx is not installed")
def test_the_exported_model_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    path = tmp_path / "backbone.onnx"
    assert main(["export-model", str(path)]) == 0
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    bev, metadata = BevConfig(), {entry.key: entry.value for entry in model.metadata_props}
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        INPUT: [1, bev.channels, bev.size, bev.size],
        OUTPUTS[0]: [1, 128, bev.size // 4, bev.size // 4],
        OUTPUTS[1]: [1, bev.size, bev.size],
    }
    assert metadata == {"model_hash": load_weights(None, "cpu")[1].sha256, "opset": str(OPSET)}
    assert model.opset_import[0].version == OPSET and "row 0 the farthest +x" in model.doc_string
    assert metadata["model_hash"][:12] in capsys.readouterr().out


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["export-model", str(tmp_path / "backbone.onnx")]) == 2
    assert "pip install onnx" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_bench_prints_a_row_for_each_runtime() -> None:
    argv = [sys.executable, "bench/runtime.py", "--threads", "1", "--repeat", "1"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert [row[1] for row in rows] == ["plain", *(name for name in ("torch", "onnx", "openvino") if has(name))]
    assert all(float(row[-1]) >= 0.9999 for row in rows)
