# SPDX-License-Identifier: Apache-2.0
"""Training: losses against known answers, the recipe's checks, and a run that goes on exactly where it was killed."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vlad_ros.cloud.raster import rasterize
from vlad_ros.config import BevConfig, ModelConfig
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.poses import turn
from vlad_ros.simulation.views import make_views, save_views
from vlad_ros.training.batches import Places, draw, joined
from vlad_ros.training.clusters import spherical_kmeans
from vlad_ros.training.losses import correspond, distances, graded_loss, relative, turn_loss, within
from vlad_ros.training.objective import Objective
from vlad_ros.training.recipe import Recipe, StageRecipe, ViewsRecipe, load_recipe
from vlad_ros.training.trainer import Trainer

BEV = BevConfig(extent=64.0, resolution=1.0)
MODEL = ModelConfig(fea_size=16, width=8, num_clusters=4, num_keypoints=40)


def small_recipe() -> Recipe:
    dense = StageRecipe(name="dense", steps=6, places=3)
    merged = StageRecipe(name="merged", views="far", steps=6, places=4, worlds=1, anchors=2, merge=2, global_weight=1.0)
    return Recipe(0, MODEL, BEV, {"near": ViewsRecipe(), "far": ViewsRecipe()}, ViewsRecipe(), [dense, merged])


def one_step() -> Recipe:
    """One step of dense supervision: a loss that the heads are no part of."""
    recipe = small_recipe()
    return dataclasses.replace(recipe, stages=[dataclasses.replace(recipe.stages[0], steps=1)])


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("views") / "views.npz"
    save_views(path, make_views("near", worlds=2, places=6, views=4, seed=3))
    return path


def test_relative_agrees_with_matrices() -> None:
    rng = np.random.default_rng(0)
    a, b, xy = rng.normal(size=3) * 5, rng.normal(size=3) * 5, rng.normal(size=(20, 2)) * 10

    def matrix(pose: np.ndarray) -> np.ndarray:
        c, s = np.cos(pose[2]), np.sin(pose[2])
        return np.array([[c, -s, pose[0]], [s, c, pose[1]], [0, 0, 1]])

    expected = (np.linalg.inv(matrix(b)) @ matrix(a) @ np.c_[xy, np.ones(20)].T).T[:, :2]
    got = relative(torch.tensor(a), torch.tensor(b), torch.tensor(xy)).numpy()
    assert np.abs(got - expected).max() < 1e-9


def test_corresponding_cells_are_the_same_thing(views: Path) -> None:
    """One cloud seen from two poses: nearly every cell that lies in both rasters is found again."""
    places = Places(views)
    points = places.points(0)
    angle, shift = 0.7, np.array([3.0, -2.0])
    moved = turn(points, angle)  # the sensor turned by -angle, then moved
    moved[:, :2] += shift.astype(np.float32)
    c, s = np.cos(angle), np.sin(angle)
    pose_a, pose_b = (
        torch.zeros(3),
        torch.tensor([*(-np.array([[c, s], [-s, c]]) @ shift), -angle], dtype=torch.float32),
    )
    seen = [torch.as_tensor(rasterize(p, BEV).raster)[1:].any(dim=0) for p in (points, moved)]
    torch.manual_seed(0)
    xy_a, _, found = correspond(seen[0], seen[1], pose_a, pose_b, BEV)
    assert len(xy_a) > 50
    assert found.float().mean() > 0.9
    wrong = correspond(seen[0], seen[1], pose_a, torch.tensor([8.0, 8.0, 1.0]), BEV)[2]
    assert wrong.float().mean() < 0.7


def test_joined_views_lie_on_each_other(views: Path) -> None:
    """Two views joined in the frame of the first: the second's walls fall onto the first's."""
    places = Places(views)
    rng = np.random.default_rng(1)
    rates = []
    for members in places.of_place[:6]:
        both = rasterize(joined(places, members[:2], BEV, rng), BEV).raster[1:].any(axis=0)
        alone = rasterize(joined(places, members[:1], BEV, rng), BEV).raster[1:].any(axis=0)
        rates.append((both & alone).sum() / alone.sum())
    assert np.median(rates) > 0.75


def test_batches_pair_two_visits_and_repeat(views: Path) -> None:
    places, stage = Places(views), small_recipe().stages[1]
    batch, again = (draw(places, stage, BEV, np.random.default_rng(5)) for _ in range(2))
    half = stage.places * stage.anchors
    assert len(batch.bevs) == 2 * half
    assert (batch.group[:half] // 2 == batch.group[half:] // 2).all()
    assert (batch.group[:half] != batch.group[half:]).all()
    assert (batch.world[:half] == batch.world[half:]).all()
    for one, other in zip(batch.bevs, again.bevs, strict=True):
        assert np.array_equal(one.raster, other.raster)


def test_anchors_may_be_one_cloud_under_several_headings(views: Path) -> None:
    """The same number of points above ground, seen from the same position; their difference is what is taught."""
    stage = dataclasses.replace(small_recipe().stages[1], turn_weight=1.0)
    batch = draw(Places(views), stage, BEV, np.random.default_rng(5))
    for group in np.unique(batch.group):
        first, second = np.flatnonzero(batch.group == group)
        assert np.array_equal(batch.pose[first, :2], batch.pose[second, :2])
        assert batch.pose[first, 2] != batch.pose[second, 2]
        assert len(batch.bevs[first].points) == len(batch.bevs[second].points)
    descriptor = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), dim=1)
    groups = torch.tensor([0, 0, 1, 1])
    assert float(turn_loss(descriptor, groups)) == pytest.approx((1 - 0.5**0.5) / 2, abs=1e-6)
    assert float(turn_loss(descriptor, torch.arange(4))) == 0.0


def test_a_stage_may_keep_a_share_of_what_it_began_with(views: Path, tmp_path: Path) -> None:
    """Half of it kept: its weights lie half way between those before and those that it leaves otherwise."""
    networks = []
    for name, keep in (("all", 0.0), ("half", 0.5)):
        recipe = one_step()
        recipe = dataclasses.replace(recipe, stages=[dataclasses.replace(recipe.stages[0], steps=2, keep=keep)])
        torch.manual_seed(0)
        before = PlaceNetwork(MODEL, BEV)
        beginning = {key: value.clone() for key, value in before.state_dict().items()}
        trainer = Trainer(recipe, tmp_path / name, {"near": Places(views)}, Places(views), network=before)
        networks.append(trainer.run().state_dict())
        saved = load_file(trainer.checkpoint)
        assert all(torch.equal(value, saved[f"network.{key}"]) for key, value in networks[-1].items())
    for key, value in beginning.items():
        if value.is_floating_point():
            assert torch.allclose(networks[1][key], (value + networks[0][key]) / 2, atol=1e-6), key
    assert not torch.equal(networks[0]["backbone.out.weight"], beginning["backbone.out.weight"])


def test_graded_loss_prefers_the_near_and_ignores_its_own_group() -> None:
    pose = torch.tensor([[0.0, 0, 0], [1, 0, 0], [9, 0, 0], [0, 0, 0]])
    distance = distances(pose, torch.tensor([0, 0, 0, 1]))
    group = torch.tensor([0, 1, 2, 3])
    right = torch.eye(4)[[0, 0, 1, 2]]
    wrong = torch.eye(4)[[0, 1, 0, 1]]
    assert graded_loss(right, distance, group, 2.0) < 0.1 < 5 < graded_loss(wrong, distance, group, 2.0)
    assert within(right, distance, group) == 1.0 and within(wrong, distance, group) == 0.0
    own = torch.tensor([0, 0, 1, 2])
    assert graded_loss(right, distance, own, 2.0).item() == 0.0  # the only neighbour is of the same group


def test_kmeans_finds_separate_clusters() -> None:
    torch.manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(4, 16), dim=1)
    features = torch.nn.functional.normalize(truth.repeat(50, 1) + 0.05 * torch.randn(200, 16), dim=1)
    centres = spherical_kmeans(features, 12, seed=1)
    assert ((centres @ truth.T).max(dim=0).values > 0.98).all()


def test_the_shipped_recipe_is_whole_and_misspellings_are_named(tmp_path: Path) -> None:
    recipe = load_recipe()
    assert recipe.stages[0].global_weight == 0 and recipe.stages[-1].merge > 1
    text = Path(sys.modules[load_recipe.__module__].__file__ or "").with_name("recipe.yaml").read_text()
    for old, new, message in (
        ("steps:", "stepz:", "stepz.*did you mean steps"),
        ("seed: 0", "seeds: 0", "unknown setting seeds"),
        ("views: far", "views: fra", "fra"),
        ("spread: far", "spread: wide", "spread must be one of near, far"),
    ):
        path = tmp_path / "recipe.yaml"
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=rf"recipe\.yaml: .*{message}"):
            load_recipe(path)


RUN = """
import sys; sys.path.insert(0, {here!r})
from pathlib import Path
import torch; torch.set_num_threads(1)
import vlad_ros.training.trainer as trainer
from test_training import one_step, small_recipe
trainer.SAVE_EVERY = 2
from vlad_ros.training.batches import Places
from vlad_ros.training.ranks import joined_processes
views = Places(Path(sys.argv[1]))
recipe = small_recipe() if len(sys.argv) < 4 else one_step()
with joined_processes(torch.device("cpu")):
    trainer.Trainer(recipe, Path(sys.argv[2]), {{"near": views, "far": views}}, views).run()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_exactly(views: Path, tmp_path: Path) -> None:
    """kill -9 after some steps, run again: the same tensors as the run that was left alone."""
    command = [sys.executable, "-c", RUN.format(here=str(Path(__file__).parent)), str(views)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    killed = subprocess.Popen(
        [*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint, deadline = tmp_path / "killed" / "checkpoint.safetensors", time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    whole = load_file(tmp_path / "whole" / "checkpoint.safetensors")
    again = load_file(checkpoint)
    assert whole.keys() == again.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


@pytest.mark.usefixtures("one_thread")  # as the two processes have: bfloat16 rounds by the order of summation
def test_two_processes_average_their_gradients(views: Path, tmp_path: Path) -> None:
    """`torchrun` on two CPU processes: the optimiser has seen the mean of the gradients of both batches."""
    script = tmp_path / "run.py"
    script.write_text(RUN.format(here=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    arguments = [str(script), str(views), str(tmp_path / "both"), "one"]
    subprocess.run([*command, *arguments], check=True, capture_output=True, env=environment)
    found = load_file(tmp_path / "both" / "checkpoint.safetensors")

    recipe, places = one_step(), Places(views)
    torch.manual_seed(recipe.seed)
    network = PlaceNetwork(recipe.model, recipe.bev)
    network.precision = torch.bfloat16
    objective = Objective(network, recipe.stages[0]).train()
    optimiser = Trainer(recipe, tmp_path, {"near": places}, places, network=network)._optimiser(recipe.stages[0])
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    gradients = []
    for own in ((), (1,)):
        batch = draw(places, recipe.stages[0], recipe.bev, np.random.default_rng([recipe.seed, 0, 0, *own]))
        torch.manual_seed(hash((recipe.seed, 0, 0, *own)))
        gradients.append(torch.autograd.grad(objective(batch)[0], parameters, allow_unused=True))
    used = [index for index, gradient in enumerate(gradients[0]) if gradient is not None]
    mean = {index: (gradients[0][index] + gradients[1][index]) / 2 for index in used}
    size = torch.cat([gradient.flatten() for gradient in mean.values()]).norm()
    assert 0 < len(used) < len(parameters)
    assert {int(name.split(".")[1]) for name in found if name.startswith("optimiser.")} == set(used)
    for index, gradient in mean.items():
        first_moment = found[f"optimiser.{index}.exp_avg"]
        assert torch.allclose(first_moment, 0.1 * gradient * min(1.0, 5.0 / float(size)), atol=1e-4 * float(size))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_losses_agree_on_the_gpu(views: Path) -> None:
    """The same batch, network and random cells: CPU and GPU differ by rounding only."""
    recipe, places = small_recipe(), Places(views)
    torch.manual_seed(0)
    network = PlaceNetwork(recipe.model, recipe.bev).train()
    batch = draw(places, recipe.stages[1], recipe.bev, np.random.default_rng(0))
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(1)
        found.append(Objective(network.to(device), recipe.stages[1])(batch)[1])
    for name in ("dense", "score", "global", "global_bev"):
        assert found[0][name] == pytest.approx(found[1][name], rel=2e-2)


def test_recipes_can_be_told_apart() -> None:
    recipe = small_recipe()
    assert recipe.as_dict() != dataclasses.replace(recipe, seed=1).as_dict()
