# SPDX-License-Identifier: Apache-2.0
"""`vlad map info | copy | prune | rebuild`: look into a map file, or make a new one from it."""

from __future__ import annotations

import argparse

from vlad_ros.config import NodeConfig, RecognizerConfig
from vlad_ros.options import add_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A parser for each action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = actions.add_parser("info", help="print what a map holds")
    copy = actions.add_parser("copy", help="write a sealed copy, also of a map that a node is extending")
    prune = actions.add_parser("prune", help="write a thinner map: evenly spread keyframes of each session")
    rebuild = actions.add_parser("rebuild", help="write a map described anew, by other weights, from its stored clouds")
    for action in (info, copy, prune, rebuild):
        action.add_argument("map", metavar="MAP", help="a map file; it is only read")
    for action in (copy, prune, rebuild):
        action.add_argument("-o", "--out", required=True, metavar="OUT", help="map file to write; it must not exist")
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
    return {"copy": _copy, "prune": _prune, "rebuild": _rebuild}[args.action](args)


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
    import sys

    from tqdm import tqdm

    from vlad_ros.mapping.database import KeyframeDatabase
    from vlad_ros.maps.new_map import write_new
    from vlad_ros.maps.rebuild import rebuild
    from vlad_ros.model.describer import Describer

    describer, _ = Describer.from_pretrained(args.weights or None, args.device, args.descriptor_size)
    database = KeyframeDatabase.open(args.map)
    built = rebuild(
        database, describer, lambda ids: tqdm(ids, unit="keyframe", file=sys.stderr, disable=None, delay=2.0)
    )
    write_new(built, args.out)
    print(f"{args.out}: {len(built)} keyframes of {args.map} described anew by weights {describer.model_hash:.12}")
    print("The stored clouds are thinned, one per keyframe: where recognition matters most, drive the route again.")
    return 0
