# SPDX-License-Identifier: Apache-2.0
"""Bags whose content is damaged, or whose recorder's clock was: what can be read is, the rest is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bag_builder import COUNT, FILE, MESSAGE, START, STEP, STORAGE, Heard, messages, spoil, static, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlad_ros.files.bags import read_messages
from vlad_ros.files.storage import BagError
from vlad_ros.stamps import stamp_of

STAMPS = [START + k * STEP for k in range(COUNT)]


def stamps(path: Path) -> list[int]:
    """Of the clouds."""
    return [stamp_of(message) for topic, message in read_messages(path) if topic == "/points"]


def survivors(path: Path) -> tuple[list[int], list[str]]:
    """Stamps of the messages that can be read, and what is said of the others."""
    told: list[str] = []
    try:
        return [stamp_of(m) for _, m in read_messages(path, None, lambda _, why: told.append(why))], told
    except BagError as error:
        return [], [str(error)]


def test_a_truncated_database(tmp_path: Path) -> None:
    """At every page: refused with SQLite's own remedy, or read as far as it goes, the damage named."""
    file = write(tmp_path / "bag", messages(points=400), "sqlite3")
    whole = file.read_bytes()
    outcomes = set()
    for size in range(4096, len(whole), 4096):
        file.write_bytes(whole[:size])
        found, told = survivors(tmp_path / "bag")
        outcomes.add("some" if found else "none")
        assert set(found) <= set(STAMPS)
        assert len(found) == 2 * COUNT or any(f"sqlite3 {file} .recover" in sentence for sentence in told)
    assert "none" in outcomes


def test_one_damaged_place_costs_what_lies_there(tmp_path: Path) -> None:
    """Chunks of a megabyte, four scans each, packed: a bad byte costs a chunk, and is told once."""
    file = write(tmp_path / "bag", messages(points=20_000), compress=STORAGE)
    whole = bytearray(file.read_bytes())
    whole[whole.find(b"\x28\xb5\x2f\xfd", len(whole) // 4)] ^= 255  # where the next chunk begins
    file.write_bytes(whole)
    heard = Heard(tmp_path / "bag")
    found = [scan.stamp for scan in heard.scans]
    assert COUNT - 5 <= len(found) < COUNT and set(found) < set(STAMPS)
    assert found[0] == STAMPS[0] and found[-1] == STAMPS[-1]
    assert heard.counters == {"bag_damaged": 1} and len(heard.said) == 1 and "mcap recover" in heard.said[0]
    with pytest.raises(BagError, match="it is damaged"):
        list(read_messages(tmp_path / "bag"))


def unindexed(file: Path) -> None:
    """Take the index away, as recorders that only ever append leave it."""
    data = file.read_bytes()
    start = int.from_bytes(data[-28:-20], "little")
    footer = b"\x02" + (20).to_bytes(8, "little") + bytes(20) + data[-8:]
    file.write_bytes(data[:start] + footer)


@pytest.mark.parametrize("storage", ["mcap", "unindexed mcap", "sqlite3"])
@pytest.mark.parametrize(
    "recorded",
    [lambda time: 0, lambda time: time - START, lambda time: (time - START) % (6 * STEP), lambda time: 2**62 + time],
    ids=["zero", "from zero", "rolled over", "far ahead"],
)
def test_times_of_recording_do_not_matter(tmp_path: Path, storage: str, recorded: Callable[[int], int]) -> None:
    """Nothing is lost whatever the recorder's clock did; without an index the order of the file is kept."""
    file = write(tmp_path / "bag", messages(), storage.split()[-1], recorded=recorded)
    if storage.startswith("un"):
        unindexed(file)
    found = stamps(tmp_path / "bag")
    assert sorted(found) == STAMPS
    assert found == STAMPS or (storage != "unindexed mcap" and recorded(START + 6 * STEP) == 0)


SMALL = {
    "mcap": {},
    "packed mcap": {"compress": STORAGE},
    "packed messages": {"compress": MESSAGE},
    "sqlite3": {"storage": "sqlite3"},
    "packed sqlite3": {"storage": "sqlite3", "compress": FILE},
}


@pytest.fixture(scope="module", params=SMALL)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """The folder of a small bag with all that a run reads, and what its files hold."""
    path = tmp_path_factory.mktemp("small") / "bag"
    joint = static(("base_link", "lidar", (1.0, 0.0, 0.5, 0.0, 0.1, 0.0)))
    write(path, [joint, *messages(5, child="base_link")], **SMALL[request.param])  # type: ignore[arg-type]
    return path, {file.name: file.read_bytes() for file in path.iterdir()}


def played(path: Path) -> int:
    """How many scans a run gets out of a bag; -1 where it is refused. Nothing but a sentence leaves it."""
    try:
        return len(Heard(path, base_frame="base_link", deskew=True).scans)
    except (ValueError, OSError) as error:
        assert "\n" not in str(error)
        return -1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), cut=st.floats(0, 1), which=st.booleans())
def test_no_damage_ends_in_a_traceback(
    small: tuple[Path, dict[str, bytes]], seed: int, cut: float, which: bool
) -> None:
    """Bytes replaced in a bag's file or metadata, or one of them cut short."""
    path, whole = small
    name = "metadata.yaml" if which and seed % 4 == 0 else next(name for name in whole if name != "metadata.yaml")
    data = whole[name]
    try:
        (path / name).write_bytes(spoil(data, seed) if which else data[: int(cut * len(data))])
        played(path)
        played(path / name)
    finally:
        (path / name).write_bytes(data)


def test_the_small_bags_are_whole(small: tuple[Path, dict[str, bytes]]) -> None:
    assert played(small[0]) == 5
