# SPDX-License-Identifier: Apache-2.0
"""Whole maps to a fleet and whole drives from it, and what it holds: `vlad fleet`."""

from __future__ import annotations

import itertools
from uuid import UUID

import numpy as np

from vlad_ros.fleet.client import FleetClient
from vlad_ros.fleet.guests import Guests
from vlad_ros.fleet.names import FleetError, Key, check_robot
from vlad_ros.fleet.packed import Packed, pack
from vlad_ros.fleet.uploader import MOST
from vlad_ros.mapping.database import KeyframeDatabase, made
from vlad_ros.types import Bar


def push(database: KeyframeDatabase, uri: str, robot: str, bar: Bar = iter) -> int:
    """Send the keyframes of a robot's own sessions up; those that are there already are replaced. Returns how many.
    ValueError for an impossible name, FleetError when the fleet cannot be used."""
    check_robot(robot)
    client = FleetClient(uri, database.store.make)
    own = {session for session, (_, name) in database.identities.items() if name in ("", robot)}
    ids = (id for id in bar(database.ids().tolist()) if database.keyframe(id).session in own)
    count = 0
    while batch := [_packed(database, id, robot) for id in itertools.islice(ids, MOST)]:
        client.put(batch)
        count += len(batch)
    client.close()
    return count


def pull(uri: str, robot: str, session: UUID) -> KeyframeDatabase:
    """A map of one drive, in its own frame. FleetError when the fleet cannot be used, or has nothing of it."""
    client = FleetClient(uri, None)
    keys = client.session_keys(robot, session)
    if not keys:
        raise FleetError(
            f"the fleet {uri} holds no keyframes of {robot}/{session}; vlad fleet info lists what it holds"
        )
    database = KeyframeDatabase(**made(client.make))
    guests = Guests(database, "")
    guests.take(client.fetch(keys), np.eye(4), 0)
    client.close()
    if faults := client.faults + guests.faults:
        raise FleetError(f"{len(faults)} keyframes of {robot}/{session} cannot be read: {faults[0]}")
    return database


def info(uri: str) -> str:
    """What a fleet holds, for people to read."""
    client = FleetClient(uri, None)
    lines = [f"{uri}: {client.count()} keyframes, on disk there with their geometry"]
    lines += [f"{name:<14}{client.make[key]}" for name, key in (("made from", "kind"), ("weights", "model_hash"))]
    lines.append(f"descriptor    {client.make['dim']} numbers")
    lines += [f"{robot}/{session}  {client.count(robot, session)} keyframes" for robot, session in client.sessions()]
    client.close()
    return "\n".join(lines + client.faults)


def _packed(database: KeyframeDatabase, id: int, robot: str) -> Packed:
    keyframe = database.whole(id)
    uuid, _ = database.identities[keyframe.session]
    return pack(Key(robot, uuid, keyframe.stamp), keyframe, database.corrections.told(id))
