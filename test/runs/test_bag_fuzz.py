# SPDX-License-Identifier: Apache-2.0
"""Mutated messages in bags, and damaged bags: `vlad run` and `vlad replay` use what is sound and name the rest."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bag_builder import START, STEP, STORAGE, Heard, Message, Raw, cloud, pose, static, write
from campaign import rounds, seed
from mutations import mutated, spoil

from vlad_ros.files.bags import TYPES, cloud_message, odometry_message, open_bag
from vlad_ros.files.storage import BagError

pytestmark = pytest.mark.campaign

LENGTH, TAIL = 120, 25  # scans of a bag; the sound ones at its end: a stamp up to a second ahead is believed so long
REFUSED = ("zero_stamp", "wrong_stamp", "late_stamp", "repeated_stamp", "frame_changed", "unusable")


def make(topic: str, k: int) -> Any:
    """The k-th message of the topic."""
    stamp = START + k * STEP
    if topic == "/odom":
        return odometry_message(stamp, pose(k % 40), "odom", "lidar")
    if topic == "/points":
        return cloud_message(stamp, cloud(k % 7, 12), "lidar")
    return static(("base_link", "lidar", (1.0, 0.0, 0.5, 0.0, 0.1, 0.0)))[2]


def raw(message: Any) -> bytes:
    return bytes(TYPES.serialize_cdr(message, message.__msgtype__))


def spoilt(rng: random.Random, share: float) -> Iterator[tuple[Message, bool]]:
    """A bag's messages and whether each is mutated, as `share` of all but its first and last scans' are."""
    yield ("/tf_static", START, Raw(raw(make("/tf_static", 0)), "tf2_msgs/msg/TFMessage")), False
    for k in range(LENGTH):
        for topic in ("/odom", "/points"):
            bad = 10 < k < LENGTH - TAIL and rng.random() < share
            data = mutated(lambda t=topic, k=k: make(t, k), raw, rng, 200) if bad else raw(make(topic, k))
            yield (topic, START + k * STEP, Raw(data, make(topic, k).__msgtype__)), bad


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_mutated_messages_of_bags(tmp_path: Path) -> None:
    """100,000: each is used or counted, and what lies before and behind them is used with its pose."""
    rng, number, sent, counts = random.Random(seed()), rounds(100_000), 0, Counter[str]()
    while sent < number:
        content = list(spoilt(rng, rng.choice([0.02, 0.2, 0.6])))
        sent += sum(bad for _, bad in content)
        path = tmp_path / "bag"
        write(path, (message for message, _ in content), rng.choice(["mcap", "sqlite3"]))
        heard = Heard(path, deskew=rng.random() < 0.5)
        lost = sum(n for why, n in heard.counters.items() if why.startswith("cloud_") or why in REFUSED)
        assert len(heard.scans) + lost == LENGTH, heard.counters
        ends = [scan.T_odom_base is not None for scan in (*heard.scans[:9], *heard.scans[-7:])]
        assert all(ends) and heard.scans[-1].stamp == START + (LENGTH - 1) * STEP, heard.counters
        assert all("\n" not in sentence for sentence in heard.said) and len(set(heard.said)) == len(heard.said)
        counts.update(heard.counters)
        shutil.rmtree(path)
    print(f"{sent} mutated", dict(counts))
    assert counts["bad_odometry"] and counts["cloud_layout"]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("kind", ["mcap", "packed mcap", "sqlite3"])
def test_damaged_bags(kind: str, tmp_path: Path) -> None:
    """10,000 of each: bytes replaced, cut off or added, in the file or in metadata.yaml."""
    rng, path, outcomes = random.Random(seed()), tmp_path / "bag", Counter[str]()
    content = (message for k in range(6) for message in _scan(k))
    file = write(path, content, "sqlite3" if kind == "sqlite3" else "mcap", STORAGE if "packed" in kind else None)
    whole = {name: (path / name).read_bytes() for name in (file.name, "metadata.yaml")}
    for _ in range(rounds(10_000)):
        name = file.name if rng.random() < 0.8 else "metadata.yaml"
        (path / name).write_bytes(spoil(whole[name], rng))
        outcomes[played(path)] += 1
        outcomes[replayed(path)] += 1
        (path / name).write_bytes(whole[name])
    print(dict(outcomes))
    assert played(path) == "all scans" and replayed(path) == "all messages"
    assert outcomes["refused"] and outcomes["all scans"]


def _scan(k: int) -> Iterator[Message]:
    if k == 0:
        yield "/tf_static", START, make("/tf_static", 0)
    for topic in ("/odom", "/points"):
        yield topic, START + k * STEP, make(topic, k)


def played(path: Path) -> str:
    """What `vlad run` makes of it."""
    try:
        found = len(Heard(path, base_frame="base_link", deskew=True).scans)
    except (ValueError, OSError) as error:
        assert "\n" not in str(error), error
        return "refused"
    return "all scans" if found == 6 else "some scans"


def replayed(path: Path) -> str:
    """What `vlad replay` would read of it."""
    try:
        with open_bag(path) as bag:
            found = sum(1 for _ in bag.messages(bag.connections))
    except BagError as error:
        assert "\n" not in str(error), error
        return "refused"
    return "all messages" if found == 13 else "some messages"
