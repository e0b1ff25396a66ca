# SPDX-License-Identifier: Apache-2.0
"""`vlad replay BAG`: play a rosbag2 to ROS 2 with /clock."""

from __future__ import annotations

import argparse

from vlad_ros.config import ReplayConfig
from vlad_ros.options import add_options, from_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bag, its topics, and how it is played."""
    parser.add_argument("bag", help="folder of a rosbag2, sqlite3 or mcap")
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="only these")
    add_options(parser, ReplayConfig)


def run(args: argparse.Namespace) -> int:
    """Play it; exit status 1 where nothing could be played."""
    from vlad_ros.ros.tools import replay

    report = replay.run(args.bag, from_options(ReplayConfig, args), tuple(args.topics))
    print(report.summary())
    return 0 if report.published else 1
