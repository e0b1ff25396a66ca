# SPDX-License-Identifier: Apache-2.0
"""`vlad`: the command-line tool. A subcommand's module is imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from vlad_ros import __version__

# name: (module in vlad_ros.commands, what it does)
COMMANDS = {
    "demo": ("demo", "simulate a drive, replay it into the node over DDS and draw the loops it announces"),
    "watch": ("watch", "show the running node on a text screen: rate, latency, map, the last loops and why not"),
    "replay": ("replay", "play a rosbag2 to ROS 2 with /clock"),
    "import": ("import_bag", "make a rosbag2 from a sequence file or a KITTI odometry folder"),
    "evaluate": ("evaluate", "measure recognition on a sequence"),
    "run": ("run", "play a drive through the recogniser, without ROS, and keep what it found in a folder"),
    "export": ("export", "write a run's pose graph for g2o or GTSAM"),
    "export-model": ("export_model", "write the backbone of the network as an ONNX file"),
    "train": ("train", "train the weights on simulated drives"),
    "calibrate": ("calibrate", "fit the probability of loops to their evidence, on simulated drives"),
    "plot": (
        "plot",
        "draw a scan's assignment, two descriptors, the heads, a map, or why a loop was accepted or refused",
    ),
    "report": ("report", "make one HTML file of a run or an evaluation, to be opened without a network"),
    "map": ("map", "look into a map file, merge maps, thin one out, or describe it anew"),
    "fleet": ("fleet", "send a map to a fleet's Milvus, fetch a drive from it, or list what it holds"),
    "parameters": ("parameters", "print the table of the node's parameters"),
    "info": ("info", "print the metadata of a weights file"),
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser with all subcommands by name, and the arguments of `command`."""
    parser = argparse.ArgumentParser(prog="vlad", description="LiDAR place recognition for ROS 2.")
    parser.add_argument("--version", action="version", version=f"vlad {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, help) in COMMANDS.items():
        child = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        if name == command:
            implementation = importlib.import_module(f"vlad_ros.commands.{module}")
            implementation.add_arguments(child)
            child.set_defaults(run=implementation.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; a user error gives one sentence on stderr and exit status 2, never a traceback."""
    # OpenMP's threads spin while they wait; on a computer with other load that is 10 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = sys.argv[1:] if argv is None else argv
    command = next((word for word in argv if not word.startswith("-")), None)
    try:
        args = build_parser(command).parse_args(argv)
        return int(args.run(args))
    except (ValueError, OSError) as error:
        print(f"vlad {command}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"vlad {command}: needs {error.name}, which is not installed", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
