# SPDX-License-Identifier: Apache-2.0
"""Bags in every state that accidents leave them in: read as far as they are whole, or refused with the remedy."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from bag_builder import COUNT, FILE, MESSAGE, START, STEP, STORAGE, Raw, messages, write
from rosbags.rosbag1 import Writer as Writer1
from rosbags.typesys import Stores, get_typestore

from vlad_ros.files.bags import CLOUD, open_bag, read_messages
from vlad_ros.files.scan_file import read_scan
from vlad_ros.files.storage import BagError
from vlad_ros.stamps import stamp_of

STAMPS = [START + k * STEP for k in range(COUNT)]


def stamps(path: Path) -> list[int]:
    """Of the clouds."""
    return [stamp_of(message) for topic, message in read_messages(path) if topic == "/points"]


def refusal(path: Path) -> str:
    """The one sentence that a bag is refused with, which names it."""
    with pytest.raises(BagError) as error:
        list(read_messages(path))
    sentence = str(error.value)
    assert "\n" not in sentence and str(path) in sentence
    return sentence


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("metadata", [None, "", "!", "a: [1", "- 1", "rosbag2_bagfile_information: 3", "\x00\xff"])
def test_metadata_is_not_needed(tmp_path: Path, storage: str, metadata: str | None) -> None:
    """Missing, empty, cut short or of something else: the file tells the same itself."""
    file = write(tmp_path / "bag", messages(), storage)
    (tmp_path / "bag" / "metadata.yaml").unlink()
    if metadata is not None:
        (tmp_path / "bag" / "metadata.yaml").write_text(metadata, encoding="latin-1")
    assert stamps(tmp_path / "bag") == stamps(file) == STAMPS
    with open_bag(tmp_path / "bag") as bag:
        assert {c.topic: c.msgcount for c in bag.connections} == {"/odom": COUNT, "/points": COUNT}
        assert bag.start_time == START


def test_metadata_of_a_version_to_come(tmp_path: Path) -> None:
    write(tmp_path / "bag", messages())
    path = tmp_path / "bag" / "metadata.yaml"
    path.write_text(path.read_text().replace("version: 9", "version: 99"))
    assert stamps(tmp_path / "bag") == STAMPS


def test_publishers_whose_quality_of_service_was_edited(tmp_path: Path) -> None:
    """As people do it to have a bag played otherwise: the topic stays the topic."""
    write(tmp_path / "bag", messages())
    path = tmp_path / "bag" / "metadata.yaml"
    never = "{sec: 0, nsec: 0}"
    profile = (
        f"[{{history: keep_last, depth: 1, reliability: reliable, durability: transient_local, deadline: {never},"
        f" lifespan: {never}, liveliness: automatic, liveliness_lease_duration: {never},"
        " avoid_ros_namespace_conventions: false}]"
    )
    path.write_text(path.read_text().replace("offered_qos_profiles: []", f"offered_qos_profiles: {profile}"))
    assert stamps(tmp_path / "bag") == STAMPS


def test_files_without_metadata_follow_their_numbers(tmp_path: Path) -> None:
    """Unpadded, as ros2 bag names them: 2 before 10; a copy's hidden leftovers are no files of the bag."""
    bag = tmp_path / "bag"
    bag.mkdir()
    content = list(messages(11))
    for k in range(11):
        write(tmp_path / "part", content[2 * k : 2 * k + 2]).rename(bag / f"bag_{k}.mcap")
        shutil.rmtree(tmp_path / "part")
    (bag / "._bag_0.mcap").write_bytes(b"\0" * 100)
    assert stamps(bag) == STAMPS[:11]
    with open_bag(bag) as opened:
        assert {c.topic: c.msgcount for c in opened.connections} == {"/odom": 11, "/points": 11}
        assert opened.start_time == START


@pytest.mark.parametrize("mode", [MESSAGE, STORAGE])
def test_compressed_mcap(tmp_path: Path, mode: object) -> None:
    """With metadata or without, which alone says that messages are compressed."""
    write(tmp_path / "bag", messages(), compress=mode)  # type: ignore[arg-type]
    assert stamps(tmp_path / "bag") == STAMPS
    (tmp_path / "bag" / "metadata.yaml").unlink()
    assert stamps(tmp_path / "bag") == STAMPS


def test_a_compressed_file(tmp_path: Path) -> None:
    file = write(tmp_path / "bag", messages(), "sqlite3", FILE)
    assert stamps(tmp_path / "bag") == STAMPS
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "zstd -t finds the damaged one" in refusal(tmp_path / "bag")
    (tmp_path / "bag" / "metadata.yaml").unlink()
    assert "decompress it first with zstd -d" in refusal(tmp_path / "bag")


def test_a_file_that_metadata_names_is_not_there(tmp_path: Path) -> None:
    """Part of the drive may be missing: nothing is read as if it were whole."""
    file = write(tmp_path / "bag", messages())
    file.rename(tmp_path / "bag" / "other_0.mcap")
    sentence = refusal(tmp_path / "bag")
    assert "names bag.mcap" in sentence and "there are: other_0.mcap" in sentence and "ros2 bag reindex" in sentence
    assert stamps(tmp_path / "bag" / "other_0.mcap") == STAMPS


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
def test_an_mcap_that_was_not_closed(tmp_path: Path, share: float) -> None:
    """The recorder was killed, the battery taken out, the copy broken off."""
    file = write(tmp_path / "bag", messages())
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    for path in (tmp_path / "bag", file):
        assert f"mcap recover {file} -o NEW.mcap" in refusal(path)
    (tmp_path / "bag" / "metadata.yaml").unlink()
    assert "was not closed" in refusal(tmp_path / "bag")


def test_the_last_of_several_files_was_not_closed(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    bag.mkdir()
    for k in range(2):
        write(tmp_path / "part", messages()).rename(bag / f"bag_{k}.mcap")
        shutil.rmtree(tmp_path / "part")
    whole = (bag / "bag_1.mcap").read_bytes()
    (bag / "bag_1.mcap").write_bytes(whole[:-1000])
    assert f"mcap recover {bag / 'bag_1.mcap'}" in refusal(bag)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_an_empty_file(tmp_path: Path, storage: str) -> None:
    file = write(tmp_path / "bag", messages(), storage)
    file.write_bytes(b"")
    for path in (tmp_path / "bag", file):
        assert "it is empty, nothing was recorded" in refusal(path)


@pytest.mark.parametrize("log", ["-wal", "-journal"])
def test_a_database_that_was_not_closed(tmp_path: Path, log: str) -> None:
    """What SQLite has not yet taken over from its log would be left out without a word. The command that the sentence
    names, done here by Python's sqlite3, makes the bag whole."""
    file = write(tmp_path / "bag", messages(), "sqlite3")
    if log == "-journal":
        Path(f"{file}{log}").write_bytes(b"\0" * 512)
        assert "pragma integrity_check" in refusal(tmp_path / "bag")
        return
    with sqlite3.connect(file) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("pragma wal_autocheckpoint=0")
        database.execute("delete from messages where id > 6")
        database.commit()
        shutil.copytree(tmp_path / "bag", tmp_path / "killed")
    database.close()
    killed = tmp_path / "killed" / file.name
    sentence = refusal(tmp_path / "killed")
    assert f"still in {killed.name}-wal" in sentence and f"sqlite3 {killed} 'pragma integrity_check'" in sentence
    with sqlite3.connect(killed) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
    database.close()
    assert stamps(tmp_path / "killed") == STAMPS[:3]


def test_ros_1(tmp_path: Path) -> None:
    types, path = get_typestore(Stores.ROS1_NOETIC), tmp_path / "drive.bag"
    with Writer1(path) as writer:
        string = types.types["std_msgs/msg/String"]("hello")
        topic = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=types)
        writer.write(topic, 1, types.serialize_ros1(string, "std_msgs/msg/String"))
    assert f"rosbags-convert --src {path} --dst {tmp_path / 'drive'}_ros2" in refusal(path)
    (tmp_path / "folder").mkdir()
    shutil.copy(path, tmp_path / "folder" / "drive.bag")
    assert f"rosbags-convert --src {tmp_path / 'folder' / 'drive.bag'}" in refusal(tmp_path / "folder")
    shutil.copy(path, tmp_path / "folder" / "drive.mcap")
    assert "it is a ROS 1 bag" in refusal(tmp_path / "folder" / "drive.mcap")


def kitti(path: Path) -> None:
    (path / "velodyne").mkdir(parents=True)


def pipe(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "bag.mcap")


def looping(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no such file or folder"),
        (lambda path: path.mkdir(), "no metadata.yaml in it, and no .mcap or .db3 file"),
        (lambda path: path.write_text("hello"), "a rosbag2 is a folder with metadata.yaml"),
        (kitti, "vlad import"),
        (pipe, "it is not a regular file"),
        (looping, "not a readable rosbag2"),
    ],
    ids=["nothing", "empty folder", "text", "KITTI", "pipe", "loop"],
)
def test_what_is_no_bag(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    make(tmp_path / "bag")
    assert words in refusal(tmp_path / "bag")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.mcap", b"hello", "not an mcap file"),
        ("a.mcap", b"\x89MCAP0\r\n\x01" + bytes(8) + b"\x04\0\0\0ros1" + b"\x89MCAP0\r\n", "not one of ROS 2"),
        ("a.db3", b"hello", "not an SQLite file"),
        ("a.db3", b"SQLite format 3\0" + bytes(100), ".recover"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path / name, tmp_path):
        assert words in refusal(path)


def test_a_database_of_something_else(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "songs.db3") as database:
        database.execute("create table songs (name text)")
    database.close()
    assert "missing tables" in refusal(tmp_path / "songs.db3")


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of the system where that refuses; as root it does not, and is stood in for."""
    write(tmp_path / "bag", messages())
    if os.geteuid():
        (tmp_path / "bag").chmod(0)
    else:
        refuse = PermissionError(13, "Permission denied", str(tmp_path / "bag"))
        monkeypatch.setattr(Path, "iterdir", lambda path: (_ for _ in ()).throw(refuse))
        monkeypatch.setattr(Path, "read_text", lambda path, *_, **__: (_ for _ in ()).throw(refuse))
    try:
        assert "Permission denied" in refusal(tmp_path / "bag")
    finally:
        (tmp_path / "bag").chmod(0o755)


def test_a_scan_of_a_damaged_bag(tmp_path: Path) -> None:
    """`vlad plot BAG:INDEX`: the same sentences."""
    file = write(tmp_path / "bag", messages())
    assert len(read_scan(f"{tmp_path / 'bag'}:3")) == len(read_scan(f"{file}:3")) == 40
    (tmp_path / "bag" / "metadata.yaml").unlink()
    assert len(read_scan(f"{file}:3")) == 40
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="mcap recover"):
        read_scan(f"{tmp_path / 'bag'}:3")
    write(tmp_path / "junk", [("/points", START, Raw(b"\0\1\0\0junk", CLOUD))])
    with pytest.raises(ValueError, match="not a readable sensor_msgs/msg/PointCloud2"):
        read_scan(f"{tmp_path / 'junk'}:0")
