# SPDX-License-Identifier: Apache-2.0
"""The thread that asks the fleet where the vehicle is, and fetches the surroundings of what was right."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vlad_ros.fleet.client import FleetClient, Hit
from vlad_ros.fleet.names import Key, RefusedError
from vlad_ros.fleet.packed import Packed
from vlad_ros.fleet.verification import FleetVerifier
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Keyframe

END = 2.0  # s
PERIOD = 1.0  # s; the least time between two questions
KEPT = 256  # keyframes, some megabytes
CANDIDATES = 10  # per question
NEAR = 10.0  # m; candidates of one session this near to each other show one place
AROUND = 50.0  # m of travel on both sides of a match that are fetched
AROUND_TIME = 30 * SECOND  # where travel is not known


class More(NamedTuple):
    """The surroundings, up to `around` [m], of a keyframe that the vehicle's map holds already."""

    key: Key
    travel: float | None
    around: float


class Asker(threading.Thread):
    """Answers the newest question, at most one each PERIOD; older ones are dropped. It is where a keyframe was taken,
    or for more of what is there. `has` says which keyframes the vehicle's map holds already; `deliver` gets others, of
    one session, by stamp; `asked` counts."""

    def __init__(
        self,
        client: FleetClient,
        robot: str,
        verifier: FleetVerifier,
        has: Callable[[Key], bool],
        deliver: Callable[[list[Packed]], None],
    ) -> None:
        super().__init__(name="vlad_fleet_ask", daemon=True)
        self.trouble, self.asked = "", 0
        self._client, self._robot, self._verifier, self._has, self._deliver = client, robot, verifier, has, deliver
        self._changed = threading.Condition()
        self._question: Keyframe | More | None = None
        self._closed = False
        self._kept: OrderedDict[Key, Packed] = OrderedDict()  # what was fetched last

    def ask(self, question: Keyframe | More) -> None:
        """Ask this next, in place of what still waits."""
        with self._changed:
            self._question = question
            self._changed.notify_all()

    def run(self) -> None:
        """Until it is closed, or the fleet refuses this vehicle for good."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._question is not None)
                question, self._question = self._question, None
            if question is None:
                break
            begun = time.monotonic()
            try:
                self._answer(question)
                self.trouble = ""
            except RefusedError as error:
                self.trouble = str(error)
                break
            except ValueError as error:
                self.trouble = str(error)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, max(0.0, begun + PERIOD - time.monotonic()))
        self._client.close()

    def close(self) -> None:
        """End after the call in hand; that is waited for no longer than END."""
        with self._changed:
            self._closed, self._question = True, None
            self._changed.notify_all()
        self.join(END)

    def _answer(self, question: Keyframe | More) -> None:
        self.asked += 1
        if isinstance(question, More):
            self._deliver(self._surroundings(question.key, question.travel, question.around))
            return
        hits = self._client.search(question.descriptor, question.is_local_map, self._robot, CANDIDATES)
        hits = [hit for hit in hits if not self._has(hit.key)]  # of those the own map has said what it can
        if not any(clusters(hits)):
            return
        for found in self._verifier.found(question, self._fetch([hit.key for hit in hits])):
            self._deliver(self._surroundings(found.key, found.travel, AROUND))

    def _surroundings(self, key: Key, travel: float | None, around: float) -> list[Packed]:
        name, at, reach = ("stamp", key.stamp, AROUND_TIME) if travel is None else ("travel", travel, around)
        keys = self._client.window(key.robot, key.session, name, at - reach, at + reach)
        return self._fetch([one for one in keys if not self._has(one)])

    def _fetch(self, keys: list[Key]) -> list[Packed]:
        """Whole keyframes, by session and stamp; one candidate is often that of the next question, too."""
        self._kept.update(
            (packed.key, packed) for packed in self._client.fetch([k for k in keys if k not in self._kept])
        )
        found = [self._kept[key] for key in sorted(keys) if key in self._kept]
        for packed in found:
            self._kept.move_to_end(packed.key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found


def clusters(hits: Sequence[Hit]) -> list[bool]:
    """(N,) whether another hit of the same session lies near. The keyframes along a way all look like one that was
    taken there; where nobody has been, what looks alike lies here and there, and its geometry is not worth fetching."""
    return [any(one is not other and _are_near(one, other) for other in hits) for one in hits]


def _are_near(one: Hit, other: Hit) -> bool:
    if one.key[:2] != other.key[:2] or one.T_odom_base is None or other.T_odom_base is None:
        return False
    return distance(one.T_odom_base, other.T_odom_base) <= NEAR


def distance(A: F64, B: F64) -> float:
    """Between the origins of two poses (4, 4) [m]."""
    return float(np.linalg.norm(A[:3, 3] - B[:3, 3]))
