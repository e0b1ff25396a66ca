# SPDX-License-Identifier: Apache-2.0
"""The numbers of a run, from its tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlad_ros.runs.tables import ClosureTable, KeyframeTable


def summarise(keyframes: KeyframeTable, closures: ClosureTable, has_truth: bool) -> dict[str, dict[str, Any]]:
    """The numbers of a run, `{name: {"value": ..., "unit": ...}}`; a ratio with a zero denominator is None.

    precision: share of the accepted edges that are right; recall: share of the revisits with a right accepted edge.
    """
    counts = {"keyframes": len(keyframes), "candidates": len(closures), "accepted": int(closures.accepted.sum())}
    numbers = {name: {"value": value, "unit": name} for name, value in counts.items()}
    numbers["accepted"]["unit"] = "edges"
    if not has_truth:
        return numbers
    right = closures.accepted & closures.is_right
    closed = np.zeros(len(keyframes), bool)
    closed[closures.query[right]] = True
    revisits = int(keyframes.is_revisit.sum())
    closed_revisits = int((closed & keyframes.is_revisit).sum())
    numbers |= {
        "false_edges": {"value": int((closures.accepted & ~closures.is_right).sum()), "unit": "edges"},
        "revisits": {"value": revisits, "unit": "keyframes"},
        "closed_revisits": {"value": closed_revisits, "unit": "keyframes"},
        "precision": {"value": _share(int(right.sum()), counts["accepted"]), "unit": "share, 0..1"},
        "recall": {"value": _share(closed_revisits, revisits), "unit": "share, 0..1"},
    }
    for name, errors in (("m", closures.error_m[right]), ("deg", closures.error_deg[right])):
        for percent in (50, 95):
            value = float(np.percentile(errors, percent)) if len(errors) else None
            numbers[f"error_{name}_p{percent}"] = {"value": value, "unit": f"{name}, of right accepted edges"}
    return numbers


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
