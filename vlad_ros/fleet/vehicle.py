# SPDX-License-Identifier: Apache-2.0
"""One vehicle's part in the fleet: its keyframes go up, and what others have seen of its surroundings comes down."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import numpy as np

from vlad_ros.fleet.asker import Asker, More
from vlad_ros.fleet.client import FleetClient
from vlad_ros.fleet.guests import Guests
from vlad_ros.fleet.names import Key, check_robot
from vlad_ros.fleet.packed import Packed, pack
from vlad_ros.fleet.queue import UploadQueue
from vlad_ros.fleet.uploader import Uploader
from vlad_ros.fleet.verification import FleetVerifier
from vlad_ros.loops.described import Described
from vlad_ros.loops.memory import PlaceMemory
from vlad_ros.mapping.codec import pack_pose
from vlad_ros.mapping.database import KeyframeDatabase, made
from vlad_ros.mapping.tables import Correction, Session
from vlad_ros.poses import inverse, rotation_angle
from vlad_ros.stopwatch import stage
from vlad_ros.types import F64, Ints

UNANSWERED = 3  # keyframes in a row that the vehicle's own map does not answer
EDGE, GROW = 25.0, 100.0  # m; a stretch whose end is this near grows by what lies this far around
TOLD = 20  # sessions named in diagnostics
MOVED, TURNED = 0.1, 0.01  # m, rad; a pose corrected by less does not go up again


class Voice(NamedTuple):
    """How the fleet speaks: `warn` and `inform` are told a sentence, from any thread; `later` has the thread that owns
    the map do something; `met` is told the odometry of another robot in there: its session's number, stamps (N,) [ns]
    and poses (N, 4, 4)."""

    warn: Callable[[str], None]
    inform: Callable[[str], None]
    later: Callable[[Callable[[], None]], None]
    met: Callable[[int, Ints, F64], None] = lambda session, stamps, poses: None


class Fleet:
    """Feed it each described keyframe, in the thread that owns `memory`. What has to go up is on disk when `observe`
    returns, and nothing there ever waits for the network. ValueError, with nothing held, when name, address or queue
    cannot be used."""

    def __init__(self, uri: str, robot: str, memory: PlaceMemory, voice: Voice) -> None:
        self._robot, self._memory, self._voice = check_robot(robot), memory, voice
        database = memory.database
        make = dict(database.store.make)
        clients = [FleetClient(uri, make) for _ in range(2)]
        self._queue = UploadQueue(queue_path(robot), make)
        self._uploader = Uploader(self._queue, clients[0], self._on_trouble, self._on_recovery)
        self._verifier = FleetVerifier(memory.calibration, memory.config, lambda: KeyframeDatabase(**made(make)))
        self._asker = Asker(clients[1], robot, self._verifier, lambda key: self._guests.has(key), self._on_found)
        self._clients = clients
        self._unanswered, self._asked, self._closed = 0, -1, False
        self._attend(database)
        self._uploader.start()
        self._asker.start()

    @stage("fleet")
    def observe(self, described: Described) -> None:
        """Send a keyframe up; ask about it if it is the first of its session, or the own map leaves several in a row
        without an answer."""
        keyframe, database = described.keyframe, self._memory.database
        if database is not self._database:
            self._attend(database)
        uuid = self._name(keyframe.session)
        key = Key(self._robot, uuid, keyframe.stamp)
        self._queue.put(pack(key, keyframe, database.corrections.told(described.keyframe_id)))
        accepted = [closure for closure in described.closures if closure.accepted]
        self._unanswered = 0 if accepted else self._unanswered + 1
        more = next(filter(None, (self._more(closure.match_id) for closure in accepted)), None)
        if more is not None:
            self._asker.ask(more)
        elif keyframe.session != self._asked or self._unanswered >= UNANSWERED:
            self._asked = keyframe.session
            self._asker.ask(keyframe)

    def values(self) -> dict[str, str]:
        """Values shown in diagnostics: of the sessions of other robots, those that came last."""
        if self._closed:
            return {}
        values = {
            "fleet": self._uploader.trouble or self._asker.trouble or self._queue.trouble or "answers",
            "waiting for the fleet": str(len(self._queue)),
            "questions to the fleet": str(self._asker.asked),
        }
        numbers = sorted(number for some in list(self._guests.numbers.values()) for number in some)
        for number in numbers[-TOLD:]:
            uuid, name = self._database.identities[number]
            values[f"session {number}"] = f"{name}/{uuid}"
        return values

    def close(self) -> None:
        """End both threads; what has not gone up waits on disk for the next start. A call to a server that does not
        answer may hold the queue for some seconds more."""
        self._closed = True
        self._database.on_corrected = lambda news: None
        self._asker.close()
        self._uploader.close()

    def faults(self) -> list[str]:
        """A sentence for each row of the fleet that was of no use, since the last call."""
        lists = [self._verifier.faults, self._guests.faults, *(client.faults for client in self._clients)]
        told = [fault for some in lists for fault in some]
        for some in lists:
            some.clear()
        return told

    def _attend(self, database: KeyframeDatabase) -> None:
        """A map has been opened."""
        self._database, self._guests = database, Guests(database, self._robot)
        self._unanswered, self._asked = 0, -1
        self._told: dict[int, F64] = {}  # corrected poses by keyframe, as they went up
        database.on_corrected = self._on_corrected
        for number in itertools.chain.from_iterable(self._guests.numbers.values()):
            self._tell(number, database.ids(number).tolist())

    def _name(self, session: int) -> UUID:
        """The UUID of the vehicle's own session, which is named after it."""
        uuid, name = self._database.identities[session]
        if name != self._robot:
            self._database.introduce(session, Session(uuid, self._robot, self._database.sessions[session]))
        return uuid

    def _more(self, match: int) -> More | None:
        """What to fetch next when a loop leads near an end of what is here of another's session."""
        row = self._database.keyframe(match)
        robot = self._guests.robot_of(row.session)
        if not robot:
            return None
        ids = self._database.rows.ids[row.session]
        ends = [self._database.keyframe(id).travel for id in (ids[0], ids[-1])]
        if row.travel is not None and all(end is None or abs(end - row.travel) > EDGE for end in ends):
            return None
        uuid, _ = self._database.identities[row.session]
        return More(Key(robot, uuid, row.stamp), row.travel, GROW)

    def _on_corrected(self, news: list[Correction]) -> None:
        for id, T_map_base, _ in news:
            session = self._database.keyframe(id).session
            uuid, name = self._database.identities[session]
            before = self._told.get(id)
            if name == self._robot and (before is None or has_moved(before, T_map_base)):
                self._told[id] = T_map_base
                self._queue.correct(Key(name, uuid, self._database.keyframe(id).stamp), pack_pose(T_map_base))

    def _on_found(self, keyframes: list[Packed]) -> None:
        self._voice.later(lambda: self._take(keyframes))

    def _take(self, keyframes: list[Packed]) -> None:
        """Have what was found in the own map, unless another one has just been opened."""
        if self._memory.database is not self._database:
            return
        known = set(self._guests.numbers)
        grown = self._guests.take(keyframes, None, self._memory.session + 1)
        if grown and keyframes[0].key.session not in known:
            robot, session, _ = keyframes[0].key
            self._voice.inform(
                f"the fleet knows this place: robot {robot}'s session {session} is {min(grown)} of this map"
            )
        for number, ids in grown.items():
            self._tell(number, ids)

    def _tell(self, session: int, ids: list[int]) -> None:
        """The odometry of keyframes of another robot, unless its place in the map is known: then a pose there tells
        more."""
        if self._database.sessions[session] is not None:
            return
        rows = [self._database.keyframe(id) for id in ids]
        poses = [(row.stamp, row.T_odom_base) for row in rows if row.T_odom_base is not None]
        if poses:
            self._voice.met(session, np.array([at for at, _ in poses]), np.stack([T for _, T in poses]))

    def _on_trouble(self, sentence: str) -> None:
        self._voice.warn(f"{sentence}; keyframes wait in {self._queue.path}, and go up when it answers")

    def _on_recovery(self) -> None:
        self._voice.inform(f"the fleet answers again; {len(self._queue)} keyframes and poses still wait")


def queue_path(robot: str) -> Path:
    """Where a robot's keyframes wait: in ROS's folder, for the map may be read-only, or have no file."""
    home = Path(os.environ.get("ROS_HOME") or Path.home() / ".ros")
    return home / "vlad_fleet" / f"{robot}.queue"


def has_moved(before: F64, after: F64) -> bool:
    """Whether a pose (4, 4) has changed by more than MOVED or TURNED."""
    error = inverse(before) @ after
    return bool(np.linalg.norm(error[:3, 3]) > MOVED or rotation_angle(error) > TURNED)
