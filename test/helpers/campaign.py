# SPDX-License-Identifier: Apache-2.0
"""Long campaigns (kills, damaged files, mutations): whole under `make proof`, a seeded hundredth in `make test`."""

from __future__ import annotations

import os

import numpy as np


def is_proof() -> bool:
    """Whether this run is `make proof`."""
    return os.environ.get("VLAD_PROOF") == "1"


def share() -> float:
    """The part of a campaign that this run does: 1.0 or 0.01."""
    return 1.0 if is_proof() else 0.01


def rounds(whole: int) -> int:
    """This run's part of `whole` rounds, at least one."""
    return max(1, round(whole * share()))


def seed() -> int:
    """VLAD_SEED, or 0; printed, so that the report of a failure says how to repeat it."""
    chosen = int(os.environ.get("VLAD_SEED", "0"))
    print(f"VLAD_SEED={chosen} VLAD_PROOF={int(is_proof())} repeats this campaign")
    return chosen


def generator() -> np.random.Generator:
    """Random numbers of `seed()`."""
    return np.random.default_rng(seed())
