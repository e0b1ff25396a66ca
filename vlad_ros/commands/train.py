# SPDX-License-Identifier: Apache-2.0
"""`vlad train`: train a weights file from a recipe; run again after an interruption, it resumes.

``torchrun --nproc-per-node 4 -m vlad_ros.cli train weights.safetensors`` trains on four GPUs: each process draws
its own batches of the recipe's size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vlad_ros.config import FinetuneConfig, RunConfig
from vlad_ros.options import add_options, from_options
from vlad_ros.provenance import commit

if TYPE_CHECKING:
    import torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vlad train`."""
    parser.add_argument("out", type=Path, metavar="WEIGHTS", help="the .safetensors file to write")
    parser.add_argument("--recipe", type=Path, help="YAML recipe (default: the one of the shipped weights)")
    parser.add_argument("--bag", type=Path, help="fine-tune on this drive: a rosbag2, or a sequence (.npz)")
    parser.add_argument("--folder", type=Path, default=Path("runs/train"), help="data, checkpoint and logs")
    parser.add_argument("--uncalibrated", action="store_true", help="do not calibrate; vlad calibrate does it later")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    tuning = parser.add_argument_group("with --bag")
    tuning.add_argument("--weights", type=Path, help="weights to start from (default: the shipped ones)")
    add_options(tuning, FinetuneConfig)
    add_options(tuning, RunConfig, ("drift", "points_topic", "odom_topic"))


def run(args: argparse.Namespace) -> int:
    """Train, alone or as one of the processes of `torchrun`; the first process writes."""
    import torch

    from vlad_ros.model.describer import resolve_device
    from vlad_ros.training.ranks import joined_processes, own_device

    if args.threads:
        torch.set_num_threads(args.threads)
    device = own_device(resolve_device(args.device))
    if args.bag and args.recipe:
        raise ValueError("--recipe trains from simulation and --bag on a drive; leave one of them out")
    with joined_processes(device):
        return from_drive(args, device) if args.bag else from_simulation(args, device)


def from_drive(args: argparse.Namespace, device: torch.device) -> int:
    """Fine-tune on a drive, and write the weights unless they recognise less of the held-out part than before."""
    from vlad_ros.model.weights import save_weights
    from vlad_ros.runs.labelled_drive import read_drive
    from vlad_ros.training.finetune import finetune
    from vlad_ros.training.ranks import rank

    config = from_options(FinetuneConfig, args)
    drive = read_drive(args.bag, config, from_options(RunConfig, args))
    done = finetune(drive, args.weights, args.folder, config, device)
    if rank():
        return 0
    print(f"before: {done.before}\nafter:  {done.after}")
    if done.after.recall < done.before.recall:
        print(
            f"{args.out}: not written, for these weights recognise less than before; a smaller --learning-rate may help"
        )
        return 1
    save_weights(args.out, done.network, done.base.calibration, {**done.info, "commit": commit() or "unknown"})
    print(f"{args.out}: written with the old calibration; make a new one with `vlad calibrate {args.out}`")
    return 0


def from_simulation(args: argparse.Namespace, device: torch.device) -> int:
    """Simulate, train, learn the projection, calibrate on other simulated drives, write the weights."""
    import torch

    from vlad_ros.commands.calibrate import calibrate_weights
    from vlad_ros.model.weights import save_weights
    from vlad_ros.training.batches import Places
    from vlad_ros.training.projection import learn_projection
    from vlad_ros.training.ranks import rank, wait
    from vlad_ros.training.recipe import load_recipe
    from vlad_ros.training.simulate import views_file
    from vlad_ros.training.trainer import Trainer

    recipe = load_recipe(args.recipe)
    if rank():
        wait()  # the first process simulates
    jobs = torch.get_num_threads()
    views = {name: Places(views_file(args.folder, each, jobs)) for name, each in recipe.views.items()}
    held_out = Places(views_file(args.folder, recipe.held_out, jobs))
    if rank() == 0:
        wait()
    trainer = Trainer(recipe, args.folder, views, held_out, device)
    network = trainer.run()
    if rank():
        return 0
    if recipe.projection.size:
        learn_projection(network, list(views.values()), recipe.projection, recipe.seed)
    save_weights(args.out, network, None, trainer.provenance(commit() or "unknown"))
    print(f"{args.out}: held-out recall@1 {trainer.validation['descriptor']:.3f}")
    if not args.uncalibrated:
        calibrate_weights(args.out, args.out)
    return 0
