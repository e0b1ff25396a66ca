# SPDX-License-Identifier: Apache-2.0
"""From the evidence for a loop to a decision: accepted, or rejected for a named reason."""

from __future__ import annotations

from vlad_ros.types import Candidate, Keyframe, LoopClosure, RejectReason


def judge(query_id: int, query: Keyframe, match: Candidate, min_similarity: float) -> LoopClosure:
    """Accept a candidate that is at least as similar as `min_similarity`; nothing has verified it."""
    accepted = match.similarity >= min_similarity
    return LoopClosure(
        query_id=query_id,
        match_id=match.id,
        query_session=query.session,
        match_session=match.session,
        query_stamp=query.stamp,
        match_stamp=match.stamp,
        similarity=match.similarity,
        accepted=accepted,
        reject_reason=RejectReason.NONE if accepted else RejectReason.LOW_SIMILARITY,
    )
