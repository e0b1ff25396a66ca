# SPDX-License-Identifier: Apache-2.0
"""`vlad map info | copy | prune | rebuild | merge | split`: look into a map file, or make a new one of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from vlad_ros.config import NodeConfig, RecognizerConfig
from vlad_ros.options import add_options

APART = 1  # exit status where a session could not be placed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A parser for each action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = actions.add_parser("info", help="print what a map holds")
    copy = actions.add_parser("copy", help="write a sealed copy, also of a map that a node is extending")
    prune = actions.add_parser("prune", help="write a thinner map: evenly spread keyframes of each session")
    rebuild = actions.add_parser("rebuild", help="write a map described anew, by other weights, from its stored clouds")
    split = actions.add_parser("split", help="write a map for each session, the way back from a merged one")
    for action in (info, copy, prune, rebuild, split):
        action.add_argument("map", metavar="MAP", help="a map file; it is only read")
    for action in (copy, prune, rebuild):
        action.add_argument("-o", "--out", required=True, metavar="OUT", help="map file to write; it must not exist")
    split.add_argument("-o", "--out", required=True, metavar="OUT", help="folder to write; it must not exist")
    merge = actions.add_parser("merge", help="write one map of several, in the frame of the first")
    merge.add_argument("map", nargs="+", metavar="MAP", help="two map files or more; they are only read")
    merge.add_argument("-o", "--out", required=True, metavar="OUT", help="map file to write; it must not exist")
    add_options(merge, NodeConfig, only=("weights",))
    cloud = actions.add_parser("from-cloud", help="write a map of a cloud that another tool has made")
    cloud.add_argument("map", metavar="CLOUD", help="a .pcd, .ply, .las, .laz or .npy file in metres, z up")
    cloud.add_argument("-o", "--out", required=True, metavar="OUT", help="map file to write; it must not exist")
    cloud.add_argument("--trajectory", metavar="FILE", help="the sensor's way through it: poses in TUM or KITTI format")
    cloud.add_argument(
        "--spacing", type=float, default=3.0, metavar="M", help="distance between two keyframes (%(default)s)"
    )
    cloud.add_argument(
        "--height", type=float, default=1.5, metavar="M", help="of the sensor above the ground (%(default)s)"
    )
    add_options(cloud, NodeConfig, only=("weights", "device"))
    add_options(cloud, RecognizerConfig, only=("descriptor_size",))
    how = prune.add_mutually_exclusive_group(required=True)
    how.add_argument("--spacing", type=float, metavar="M", help="least distance between two keyframes of a session")
    how.add_argument("--size", type=int, metavar="N", help="number of keyframes to keep")
    add_options(rebuild, NodeConfig, only=("weights", "device"))
    add_options(rebuild, RecognizerConfig, only=("descriptor_size",))


def run(args: argparse.Namespace) -> int:
    """Do it and print what was done; ValueError names what cannot be done."""
    if args.action == "info":
        from vlad_ros.maps.info import read_info, text

        print(text(read_info(args.map)))
        return 0
    from vlad_ros.maps.new_map import check_free

    check_free(args.out)
    actions = {"copy": _copy, "prune": _prune, "rebuild": _rebuild, "merge": _merge, "split": _split}
    actions["from-cloud"] = _from_cloud
    return actions[args.action](args)


def _copy(args: argparse.Namespace) -> int:
    from vlad_ros.mapping.opening import copy_live

    copy_live(args.map, args.out)
    print(f"{args.out}: a copy of {args.map}")
    return 0


def _prune(args: argparse.Namespace) -> int:
    from vlad_ros.mapping.database import KeyframeDatabase
    from vlad_ros.maps.new_map import write_new
    from vlad_ros.maps.prune import choose, subset

    database = KeyframeDatabase.open(args.map)
    ids = choose(database, args.spacing, args.size)
    write_new(subset(database, ids), args.out)
    print(f"{args.out}: {len(ids)} of {len(database)} keyframes of {args.map}, with ids of their own")
    return 0


def _rebuild(args: argparse.Namespace) -> int:
    from vlad_ros.mapping.database import KeyframeDatabase
    from vlad_ros.maps.new_map import write_new
    from vlad_ros.maps.rebuild import rebuild
    from vlad_ros.model.describer import Describer

    describer, _ = Describer.from_pretrained(args.weights or None, args.device, args.descriptor_size)
    database = KeyframeDatabase.open(args.map)
    built = rebuild(database, describer, lambda ids: _bar(ids, "keyframe"))
    write_new(built, args.out)
    print(f"{args.out}: {len(built)} keyframes of {args.map} described anew by weights {describer.model_hash:.12}")
    print("The stored clouds are thinned, one per keyframe: where recognition matters most, drive the route again.")
    return 0


def _merge(args: argparse.Namespace) -> int:
    from vlad_ros.maps.inputs import open_maps
    from vlad_ros.maps.merge import merge, text
    from vlad_ros.maps.new_map import write_new
    from vlad_ros.model.weights import read_metadata

    if len(args.map) < 2:
        raise ValueError(f"{args.map[0]} is one map; merge it with another")
    notes: list[str] = []
    databases = open_maps(args.map, notes.append)
    metadata = read_metadata(args.weights or None)
    if metadata.sha256 != databases[0].model_hash:
        raise ValueError(
            f"{args.map[0]} was made by other weights ({databases[0].model_hash:.12}): name their file with --weights"
        )
    for path, database in zip(args.map, databases, strict=True):
        for fault in database.faults:
            print(f"{path}: {fault}", file=sys.stderr)
    merged = merge(databases, metadata.calibrated(args.weights or None), lambda rows: _bar(rows, "keyframe"))
    write_new(merged.database, args.out)
    print(f"{args.out}: {len(merged.database)} keyframes in {len(merged.database.sessions)} sessions")
    print(*notes, *text(merged, args.map), sep="\n")
    return APART if merged.apart else 0


def _from_cloud(args: argparse.Namespace) -> int:
    from pathlib import Path

    from vlad_ros.files.map_cloud import read_map_cloud, read_trajectory
    from vlad_ros.maps.from_cloud import VOXEL, along_trajectory, from_cloud, on_the_ground
    from vlad_ros.maps.new_map import write_new
    from vlad_ros.model.describer import Describer

    if not 0.5 <= args.spacing <= 100.0 or not 0.1 <= args.height <= 10.0:
        raise ValueError(
            f"the spacing must be 0.5..100 m and the height 0.1..10 m, not {args.spacing} and {args.height}"
        )
    poses = read_trajectory(args.trajectory) if args.trajectory else None
    describer, _ = Describer.from_pretrained(args.weights or None, args.device, args.descriptor_size)
    cloud = read_map_cloud(args.map, VOXEL)
    if poses is None:
        stands = on_the_ground(cloud.points, args.spacing, args.height)
    else:
        poses[:, :3, 3] -= cloud.origin
        stands = along_trajectory(poses, args.spacing)
    made = from_cloud(cloud, stands, describer, Path(args.map).name, lambda rows: _bar(rows, "keyframe"))
    write_new(made, args.out)
    print(f"{args.out}: {len(made)} virtual keyframes from {cloud.read} points of {args.map}, in its frame")
    return 0


def _split(args: argparse.Namespace) -> int:
    from vlad_ros.mapping.database import KeyframeDatabase
    from vlad_ros.maps.split import split

    database = KeyframeDatabase.open(args.map)
    print(*split(database, args.out, lambda sessions: _bar(sessions, "session")), sep="\n")
    return 0


def _bar(items: Iterable[int], unit: str) -> Iterable[int]:
    from tqdm import tqdm

    return tqdm(items, unit=unit, file=sys.stderr, disable=None, delay=2.0)
