# SPDX-License-Identifier: Apache-2.0
"""Loop closures as the recogniser accepts them, but for what a test says of them."""

from __future__ import annotations

from typing import Any

from vlad_ros.types import F64, LoopClosure


def accepted_loop(
    query_stamp: int, match_stamp: int, T_match_query: F64, covariance: F64, /, **changes: Any
) -> LoopClosure:
    """An accepted edge within session 0."""
    values: dict[str, Any] = {
        "query_id": 1,
        "match_id": 0,
        "query_session": 0,
        "match_session": 0,
        "query_stamp": query_stamp,
        "match_stamp": match_stamp,
        "similarity": 0.9,
        "probability": 0.99,
        "T_match_query": T_match_query,
        "covariance": covariance,
        "accepted": True,
    }
    return LoopClosure(**{**values, **changes})
