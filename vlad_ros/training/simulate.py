# SPDX-License-Identifier: Apache-2.0
"""The simulated data of a recipe, made once and kept beside the run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from vlad_ros import simulation
from vlad_ros.simulation.views import make_views, save_views
from vlad_ros.training.recipe import ViewsRecipe


def views_file(folder: Path, recipe: ViewsRecipe, jobs: int) -> Path:
    """The file of a set of views in `folder`, made there unless these settings and simulator have made it before."""
    settings = asdict(recipe)
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for source in sorted(Path(simulation.__file__).parent.glob("*.py")):
        key.update(source.read_bytes())
    path = folder / f"views_{recipe.spread}_{recipe.seed}_{key.hexdigest()[:12]}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_views(path, make_views(**settings, jobs=jobs))
    return path
