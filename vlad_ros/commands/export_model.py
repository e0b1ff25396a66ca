# SPDX-License-Identifier: Apache-2.0
"""`vlad export-model`: the backbone as an ONNX file, for runtimes of one's own."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and the weights."""
    parser.add_argument("output", metavar="FILE.onnx", type=Path, help="the model, replaced if it exists")
    parser.add_argument("--weights", metavar="FILE", help="weights file; the shipped ones when left out")


def run(args: argparse.Namespace) -> int:
    """Write it, and print what it holds."""
    from vlad_ros.atomic import replacing
    from vlad_ros.model.runtime import OPSET, described, export_backbone
    from vlad_ros.model.weights import load_weights

    network, metadata = load_weights(args.weights, "cpu")
    model = described(export_backbone(network.backbone, network.bev), network.bev, metadata.sha256)
    with replacing(args.output) as temporary:
        temporary.write_bytes(model)
    print(f"{args.output}: the backbone of weights {metadata.sha256[:12]}, {len(model) / 2**20:.1f} MiB, opset {OPSET}")
    return 0
