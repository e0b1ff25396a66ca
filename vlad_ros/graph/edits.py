# SPDX-License-Identifier: Apache-2.0
"""Loops forced or forbidden by hand, each with its reason, in a YAML file:

- {match: [0, 1700000012000000000], query: [0, 1700000100500000000], decision: forbid, reason: two equal garages}
- {match: [0, 1700000012000000000], query: [1, 1800000000000000000], decision: force, reason: the same gate,
   T_match_query: [1.2, 0.1, 0.0, 0.0, 0.0, 0.38, 0.925]}

Keys are session and stamp [ns]; `T_match_query` (x y z [m], quaternion x y z w) may be left out where the place node
has announced the loop, accepted or not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from vlad_ros.graph.chain import diagonal
from vlad_ros.poses import decode
from vlad_ros.types import F64

BY_HAND = diagonal(0.3, np.radians(2.0))  # of a transform that a person has written down
KNOWN = {"match", "query", "decision", "reason", "T_match_query"}

Key = tuple[int, int]  # session and stamp [ns]


class Edit(NamedTuple):
    """A person's decision about the loop between two keyframes; `T_match_query` (4, 4) where it was written down."""

    match: Key
    query: Key
    forced: bool
    reason: str
    T_match_query: F64 | None = None


def read_edits(path: str | os.PathLike[str]) -> list[Edit]:
    """The file's decisions. ValueError, naming file and entry, for whatever it does not understand."""
    try:
        entries = yaml.safe_load(Path(path).read_text("utf-8")) or []
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path}: a list of loops is needed")
    edits = []
    for number, entry in enumerate(entries, 1):
        try:
            edits.append(edit_of(entry))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, entry {number}: {error}") from error
    return edits


def edit_of(entry: Any) -> Edit:
    """One entry as a mapping; ValueError for whatever it does not understand."""
    if not isinstance(entry, dict) or set(entry) - KNOWN or KNOWN - {"T_match_query"} - set(entry):
        raise ValueError(f"it needs match, query, decision and reason, and may have T_match_query: {entry!r}")
    if entry["decision"] not in ("force", "forbid"):
        raise ValueError(f"decision must be force or forbid, not {entry['decision']!r}")
    if not str(entry["reason"] or "").strip():
        raise ValueError("a decision by hand needs its reason")
    match, query = (_key(entry[end]) for end in ("match", "query"))
    numbers = entry.get("T_match_query")
    T = None
    if numbers is not None:
        numbers = np.asarray(numbers, np.float64)
        if numbers.shape != (7,):
            raise ValueError(f"T_match_query must be x y z and a quaternion x y z w, not {entry['T_match_query']!r}")
        T = decode(numbers[:3], numbers[3:])
    return Edit(match, query, entry["decision"] == "force", str(entry["reason"]).strip(), T)


def _key(pair: Any) -> Key:
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(number) is int for number in pair):
        raise ValueError(f"a keyframe is [session, stamp in nanoseconds], not {pair!r}")
    return pair[0], pair[1]
