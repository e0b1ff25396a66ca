# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning on one drive: which labels odometry is trusted with, what is held back, and what is written when."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from untrained import save_untrained

from vlad_ros.cli import main
from vlad_ros.config import FinetuneConfig, ImportConfig, RunConfig
from vlad_ros.drive.travel import path_length
from vlad_ros.files.bags import sequence_scans, write_bag
from vlad_ros.files.sequence import Sequence, load_sequence, save_sequence
from vlad_ros.model.weights import load_weights, read_metadata
from vlad_ros.runs.labelled_drive import read_drive
from vlad_ros.simulation.routes import make_drive
from vlad_ros.simulation.sensors import spinning
from vlad_ros.training import finetune as module
from vlad_ros.training.finetune import DrivePlaces, Measured, doubtful, split

SETTINGS = ["--steps", "2", "--held-out", "0.4", "--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated drive as a sequence, and weights to start from."""
    folder = tmp_path_factory.mktemp("finetune")
    sensor, back = spinning(16, 180), ("opposite",)
    drive = make_drive("street", 5, sensor=sensor, seed=5, spacing=1.5, revisits=back, length=90.0, shape="line")
    save_sequence(folder / "drive.npz", drive)
    save_untrained(folder / "base.safetensors", drive.scans[:6], 0.5)
    return folder


def command(folder: Path, out: str, drive: str = "drive.npz") -> list[str]:
    paths = ["--bag", str(folder / drive), "--weights", str(folder / "base.safetensors"), "--folder", str(folder)]
    return ["train", str(folder / out), *paths, *SETTINGS]


def test_both_figures_are_printed_and_the_weights_say_what_they_saw(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "measure", lambda network, held_out: Measured(9, 0.5, 0.4, 0.6))
    assert main(command(folder, "tuned.safetensors")) == 0
    printed = capsys.readouterr().out
    assert "before: recall@1 0.500 (95 %: 0.400..0.600) of 9 queries" in printed
    assert "after:  recall@1 0.500" in printed and "vlad calibrate" in printed
    metadata, base = (read_metadata(folder / f"{name}.safetensors") for name in ("tuned", "base"))
    assert metadata.sha256 != base.sha256 and metadata.calibration == base.calibration
    assert metadata.info["finetune"]["weights"] == base.sha256
    assert metadata.info["finetune"]["after"]["recall"] == 0.5
    assert "fine-tuned on the drive drive" in metadata.info["data"]
    assert metadata.info["finetune"]["steps"] == 2
    tuned, start = load_weights(folder / "tuned.safetensors")[0], load_weights(folder / "base.safetensors")[0]
    assert not torch.equal(tuned.backbone.out.weight, start.backbone.out.weight)


def test_weights_that_recognise_less_are_not_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([Measured(9, 0.5, 0.4, 0.6), Measured(9, 0.4, 0.3, 0.5)])
    monkeypatch.setattr(module, "measure", lambda network, held_out: next(answers))
    assert main(command(folder, "worse.safetensors")) == 1
    assert "not written, for these weights recognise less than before" in capsys.readouterr().out
    assert not (folder / "worse.safetensors").exists()


def test_a_bag_gives_the_same_drive_as_its_sequence(folder: Path) -> None:
    sequence = load_sequence(folder / "drive.npz")
    write_bag(folder / "bag", sequence_scans(sequence, 10.0), ImportConfig())
    config = FinetuneConfig(spacing=2.0)
    ours, theirs = (read_drive(folder / name, config, RunConfig()) for name in ("bag", "drive.npz"))
    assert ours.poses is not None and theirs.poses is not None and sequence.poses is not None
    assert len(ours) == len(theirs) < len(sequence)
    assert np.abs(ours.poses - theirs.poses).max() < 1e-6
    assert np.diff(path_length(ours.poses)).min() >= 2.0
    assert all(np.allclose(a[:, :3], b[:, :3], atol=1e-3) for a, b in zip(ours.scans, theirs.scans, strict=True))


def test_measuring_asks_turned_and_thinned_queries(folder: Path) -> None:
    """The small untrained network on the part held back: as many queries as the protocol draws, and an interval."""
    network, _ = load_weights(folder / "base.safetensors")
    held_out = split(read_drive(folder / "drive.npz", FinetuneConfig(), RunConfig()), 0.4)[1]
    found = module.measure(network, held_out)
    assert found.queries == len(range(2, len(held_out), 4))
    assert 0 <= found.low <= found.recall <= found.high <= 1


def test_the_end_is_held_back_and_a_border_between() -> None:
    poses = np.tile(np.eye(4), (200, 1, 1))
    poses[:, 0, 3] = np.arange(200.0)
    drive = Sequence("straight", [np.zeros((1, 4), np.float32)] * 200, poses)
    train, held_out = split(drive, 0.3)
    assert train.poses is not None and held_out.poses is not None
    assert train.poses[0, 0, 3] == 0.0 and held_out.poses[-1, 0, 3] == 199.0
    assert held_out.poses[0, 0, 3] - train.poses[-1, 0, 3] >= 20.0
    assert len(held_out) == pytest.approx(60, abs=1)
    with pytest.raises(ValueError, match="straight: 200 scans over 199 m are too few"):
        split(drive, 0.9)


def test_odometry_is_trusted_only_for_what_was_passed_soon_after() -> None:
    """There and back along a line of 150 m: the turning point is trusted, the start met again after 300 m is not."""
    along = np.arange(0.0, 301.0, 10.0)
    positions = np.c_[np.minimum(along, 300.0 - along), np.zeros(len(along))]
    found = doubtful(positions, along[:, None])
    for i, a in enumerate(along):
        for j, b in enumerate(along):
            assert found[i, j] == (abs(positions[i, 0] - positions[j, 0]) < 30 and 0.02 * abs(a - b) > 2.0)
    assert found[0, -1] and not found[14, 16] and not found.diagonal().any()


def test_places_of_unknown_distance_never_meet_in_a_batch() -> None:
    poses = np.tile(np.eye(4), (400, 1, 1))
    poses[:, 0, 3] = np.minimum(np.arange(400), 400 - np.arange(400))  # there and back
    places = DrivePlaces(Sequence("line", [np.ones((5, 4), np.float32)] * 400, poses))
    stage = dataclasses.replace(module.STAGE, places=6)
    assert places.doubtful.any()
    for seed in range(20):
        chosen = places.draw_places(stage, 12, np.random.default_rng(seed))
        assert 1 < len(chosen) <= 12 and len(set(chosen)) == len(chosen)
        assert not places.doubtful[np.ix_(chosen, chosen)].any()


@pytest.mark.parametrize(
    ("extra", "message"),
    [(["--recipe", "r.yaml"], "leave one of them out"), (["--held-out", "0.9"], "too few")],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    folder: Path, extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(folder, "none.safetensors"), *extra]) == 2
    assert message in capsys.readouterr().err
