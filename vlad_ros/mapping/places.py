# SPDX-License-Identifier: Apache-2.0
"""Which keyframes show one place: each one that was found at another's joins that one's place."""

from __future__ import annotations

from array import array


class Places:
    """Members of each place in the order in which they came; a place is known by the id of its first one."""

    def __init__(self) -> None:
        self._place: dict[int, int] = {}  # of each keyframe that has joined one
        self._members: dict[int, array[int]] = {}  # of each place that one has joined

    def join(self, id: int, match: int) -> int:
        """Have `id`, which has no place yet, join the place of `match`; returns that place."""
        place = self._place.get(match, match)
        self._place[id] = place
        self._members.setdefault(place, array("q", [place])).append(id)
        return place

    def members(self, id: int) -> list[int]:
        """The keyframes at the place of `id`, those of old that were removed among them."""
        return list(self._members.get(self._place.get(id, id), [id]))
