# SPDX-License-Identifier: Apache-2.0
"""`vlad fleet push | pull | info`: maps and drives between files and a fleet's Milvus."""

from __future__ import annotations

import argparse

from vlad_ros.config import NodeConfig
from vlad_ros.options import add_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A parser for each action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    push = actions.add_parser("push", help="send a robot's own sessions of a map up; what is there is replaced")
    push.add_argument("map", metavar="MAP", help="a map file; it is only read")
    add_options(push, NodeConfig, only=("fleet_uri", "robot"))
    pull = actions.add_parser("pull", help="write one drive as a new map")
    pull.add_argument("--around", required=True, metavar="ROBOT/SESSION", help="the drive, as info lists it")
    pull.add_argument("-o", "--out", required=True, metavar="OUT", help="map file to write; it must not exist")
    info = actions.add_parser("info", help="print what a fleet holds")
    for action in (pull, info):
        add_options(action, NodeConfig, only=("fleet_uri",))


def run(args: argparse.Namespace) -> int:
    """Do it and print what was done; ValueError names what cannot be done."""
    return {"push": _push, "pull": _pull, "info": _info}[args.action](args)


def _push(args: argparse.Namespace) -> int:
    import sys

    from tqdm import tqdm

    from vlad_ros.fleet.transfer import push
    from vlad_ros.mapping.database import KeyframeDatabase

    database = KeyframeDatabase.open(args.map)
    number = push(
        database,
        args.fleet_uri,
        args.robot,
        lambda ids: tqdm(ids, unit="keyframe", file=sys.stderr, disable=None, delay=2.0),
    )
    print(f"{args.fleet_uri}: {number} of {len(database)} keyframes of {args.map}, as robot {args.robot}'s")
    return 0


def _pull(args: argparse.Namespace) -> int:
    from vlad_ros.fleet.names import parse_session
    from vlad_ros.fleet.transfer import pull
    from vlad_ros.maps.new_map import check_free, write_new

    check_free(args.out)
    database = pull(args.fleet_uri, *parse_session(args.around))
    write_new(database, args.out)
    print(f"{args.out}: {len(database)} keyframes of {args.around}")
    return 0


def _info(args: argparse.Namespace) -> int:
    from vlad_ros.fleet.transfer import info

    print(info(args.fleet_uri))
    return 0
