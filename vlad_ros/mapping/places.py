# SPDX-License-Identifier: Apache-2.0
"""Which keyframes show one place: each one that was found at another's joins that one's place."""

from __future__ import annotations

from array import array


class Places:
    """Members of each place in the order in which they came; a place is known by the id of its first one."""

    def __init__(self) -> None:
        self._place = array("q")  # of each id, its own where it has joined none
        self._next = array("q")  # the next member, -1 for none
        self._last = array("q")  # of each place, the newest member

    def join(self, id: int, match: int) -> int:
        """Have `id`, which has no place yet, join the place of `match`; returns that place."""
        self._grow(max(id, match))
        place = self._place[match]
        self._next[self._last[place]] = self._last[place] = id
        self._place[id] = place
        return place

    def members(self, id: int) -> list[int]:
        """The keyframes at the place of `id`, those of old that were removed among them."""
        self._grow(id)
        at, found = self._place[id], list[int]()
        while at >= 0:
            found.append(at)
            at = self._next[at]
        return found

    def _grow(self, id: int) -> None:
        if id >= len(self._place):
            new = range(len(self._place), id + 1)
            self._next.extend([-1] * len(new))
            self._place.extend(new)
            self._last.extend(new)
