# SPDX-License-Identifier: Apache-2.0
"""`vlad train`: from nothing but a recipe to a weights file; run again after an interruption, it goes on."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vlad train`."""
    parser.add_argument("out", type=Path, metavar="WEIGHTS", help="the .safetensors file to write")
    parser.add_argument("--recipe", type=Path, help="YAML recipe (default: the one of the shipped weights)")
    parser.add_argument("--folder", type=Path, default=Path("runs/train"), help="data, checkpoint and logs")
    parser.add_argument("--uncalibrated", action="store_true", help="leave the calibration to vlad calibrate")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")


def run(args: argparse.Namespace) -> int:
    """Simulate, train, calibrate on other simulated drives, write the weights."""
    import torch

    from vlad_ros.commands.calibrate import calibrate_weights
    from vlad_ros.model.weights import save_weights
    from vlad_ros.training.recipe import load_recipe
    from vlad_ros.training.simulate import views_file
    from vlad_ros.training.trainer import Trainer

    recipe = load_recipe(args.recipe)
    if args.threads:
        torch.set_num_threads(args.threads)
    jobs = torch.get_num_threads()
    views = {name: views_file(args.folder, each, jobs) for name, each in recipe.views.items()}
    trainer = Trainer(recipe, args.folder, views, views_file(args.folder, recipe.held_out, jobs))
    network = trainer.run()
    info = trainer.provenance(commit())
    save_weights(args.out, network, None, info)
    print(f"{args.out}: held-out recall@1 {trainer.validation['descriptor']:.3f}")
    if not args.uncalibrated:
        calibrate_weights(args.out, args.out)
    return 0


def commit() -> str:
    """The checkout's commit, or "unknown" for an installed copy."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
