# SPDX-License-Identifier: Apache-2.0
"""`vlad export RUN -o FILE`: the pose graph of a run for g2o or GTSAM."""

from __future__ import annotations

import argparse

from vlad_ros.config import ExportConfig
from vlad_ros.options import add_options, from_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Run, file, and how far its odometry is trusted."""
    parser.add_argument("run_folder", metavar="RUN", help="folder that vlad run has left")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="file to write")
    add_options(parser, ExportConfig)


def run(args: argparse.Namespace) -> int:
    """Write the file and say what is in it."""
    from vlad_ros.graph.edge_formats import write_graph
    from vlad_ros.runs.pose_graph import pose_graph
    from vlad_ros.runs.tables import read_run

    config = from_options(ExportConfig, args)
    graph = pose_graph(read_run(args.run_folder), config)
    write_graph(args.out, graph, config.format)
    print(f"{args.out}: {len(graph.poses)} keyframes, {len(graph.odometry)} odometry edges, {len(graph.loops)} loops")
    return 0
