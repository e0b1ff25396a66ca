# SPDX-License-Identifier: Apache-2.0
"""`vlad info [WEIGHTS]`: print the metadata of a weights file."""

from __future__ import annotations

import argparse
import dataclasses
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file."""
    parser.add_argument("weights", nargs="?", help="weights file; the shipped ones when left out")


def run(args: argparse.Namespace) -> int:
    """Print the metadata as JSON; ValueError (WeightsError) names a file that is missing or damaged."""
    from vlad_ros.model.weights import load_weights

    network, metadata = load_weights(args.weights, "cpu")
    described = dataclasses.asdict(metadata)
    described["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    described["descriptor_dim"] = metadata.model.descriptor_dim
    print(json.dumps(described, indent=2))
    return 0
