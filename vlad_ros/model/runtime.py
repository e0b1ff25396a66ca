# SPDX-License-Identifier: Apache-2.0
"""What runs the backbone: PyTorch with its graph frozen, ONNX Runtime or OpenVINO on the graph exported to ONNX.

The backbone takes most of a keyframe's time, so only it is replaced; all of them compute in float32 on a CPU, and their
descriptors meet in one map.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import warnings
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor

from vlad_ros.config import BevConfig
from vlad_ros.model.backbone import STRIDE, Backbone

Name = Literal["torch", "openvino", "onnx"]
Run = Callable[[Tensor], tuple[Tensor, Tensor]]  # raster (1, C, H, W) -> features (1, F, H/4, W/4), scores (1, H, W)

OPSET = 17
INPUT, OUTPUTS = "raster", ("features", "scores")
_TRACED: dict[bytes, Run] = {}
PACKAGES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}


def resolve_inference(name: str, device: torch.device) -> Name:
    """The runtime that `name` (auto, torch, openvino, onnx) means on `device`; ValueError where it cannot be had."""
    if name in ("auto", "torch"):
        return "torch"  # with its graph frozen as fast as the others (bench/runtime.py), and always there
    if name not in PACKAGES:
        raise ValueError(f"inference must be auto, torch, openvino or onnx, not {name!r}")
    missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(f"inference {name} needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    if name == "openvino" and device.type != "cpu":
        raise ValueError(f"inference openvino runs on the CPU, not on {device}; use onnx or torch")
    return cast(Name, name)


def make_runtime(name: Name, backbone: Backbone, bev: BevConfig, device: torch.device) -> Run | None:
    """What runs `backbone` in its place; None: the backbone itself."""
    if name == "torch":
        return _frozen(backbone, bev) if device.type == "cpu" else None
    model = export_backbone(backbone, bev)
    return _onnx(model, device) if name == "onnx" else _openvino(model)


def export_backbone(backbone: Backbone, bev: BevConfig) -> bytes:
    """The backbone as an ONNX model of fixed shape and `OPSET`. ValueError without the package onnx."""
    if importlib.util.find_spec("onnx") is None:
        raise ValueError("the export needs onnx: pip install onnx")
    written = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecation, and constants that the trace keeps
        torch.onnx.export(
            backbone,
            (_example(backbone, bev),),
            written,  # type: ignore[arg-type]
            opset_version=OPSET,
            dynamo=False,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
        )
    return written.getvalue()


def described(model: bytes, bev: BevConfig, model_hash: str) -> bytes:
    """The ONNX `model` with its weights' hash, and what goes in and comes out, in words."""
    import onnx

    loaded = onnx.load_from_string(model)
    loaded.producer_name = "vlad_ros"
    loaded.doc_string = (
        f"The backbone of a vlad_ros place network. {INPUT}: bird's-eye view of {bev.extent:g} m to the side, row 0 "
        f"the farthest +x, column 0 the farthest +y; channel 0 the height above ground [m], 0..{bev.height_max:g}, the "
        f"others the occupancy (0 or 1) of slices from {', '.join(f'{low:g}' for low in bev.slices)} m up. "
        f"{OUTPUTS[0]}: unit vectors, one for {STRIDE} x {STRIDE} cells. {OUTPUTS[1]}: logits of the keypoints' scores."
    )
    for key, value in {"model_hash": model_hash, "opset": str(OPSET)}.items():
        entry = loaded.metadata_props.add()
        entry.key, entry.value = key, value
    return bytes(loaded.SerializeToString())


def _example(backbone: Backbone, bev: BevConfig) -> Tensor:
    return torch.zeros((1, bev.channels, bev.size, bev.size), device=next(backbone.parameters()).device)


def _frozen(backbone: Backbone, bev: BevConfig) -> Run:
    """The backbone traced and frozen: batch norms are folded into the convolutions. PyTorch never frees what it has
    traced, so the same weights are traced once in a process."""
    digest = hashlib.sha256(repr((bev, backbone.rotations)).encode())
    for tensor in backbone.state_dict().values():
        digest.update(tensor.detach().contiguous().numpy().data)
    key = digest.digest()
    if key not in _TRACED:
        _TRACED[key] = _trace(backbone, bev)
    return _TRACED[key]


def _trace(backbone: Backbone, bev: BevConfig) -> Run:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(backbone, _example(backbone, bev), check_trace=False)  # type: ignore[no-untyped-call]
        frozen = torch.jit.freeze(traced)
    return cast(Run, lambda raster: frozen(raster))  # no module: what it holds is no state of the network


def _onnx(model: bytes, device: torch.device) -> Run:
    import onnxruntime

    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [name for name in (*wanted, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it shares the cores with a SLAM stack
    session = onnxruntime.InferenceSession(model, options, providers=providers)

    def run(raster: Tensor) -> tuple[Tensor, Tensor]:
        found: list[Any] = session.run(list(OUTPUTS), {INPUT: raster.cpu().numpy()})
        features, scores = (torch.from_numpy(array).to(raster.device) for array in found)
        return features, scores

    return run


def _openvino(model: bytes) -> Run:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": min(torch.get_num_threads(), os.cpu_count() or 1),
    }
    compiled = core.compile_model(core.read_model(model, b""), "CPU", settings)

    def run(raster: Tensor) -> tuple[Tensor, Tensor]:
        found = compiled([raster.numpy()])
        features, scores = (torch.from_numpy(found[name].copy()) for name in OUTPUTS)
        return features, scores

    return run
