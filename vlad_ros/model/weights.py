# SPDX-License-Identifier: Apache-2.0
"""Weights as safetensors: tensors, with configuration, provenance and a hash. Nothing is unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vlad_ros.atomic import replacing
from vlad_ros.calibration import Calibration
from vlad_ros.config import BevConfig, ModelConfig, from_mapping
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.types import PathLike

FORMAT = "vlad_ros weights 2"


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class Metadata:
    """The metadata of a weights file. ``sha256`` is of the tensors and the configuration; ``calibration`` turns the
    evidence for a loop into a probability, None until it is made; ``info``: provenance, recipe, metrics."""

    model: ModelConfig
    bev: BevConfig
    sha256: str
    calibration: Calibration | None
    info: dict[str, Any]

    def calibrated(self, path: PathLike | None) -> Calibration:
        """The calibration; WeightsError naming the file at `path` (None: the shipped weights) where there is none."""
        if self.calibration is None:
            raise WeightsError(
                f"{path or 'the shipped weights'}: has no calibration, so that no loop could be judged; make one with "
                "vlad calibrate"
            )
        return self.calibration


def default_weights_path() -> Path:
    """The weights that ship with the package."""
    return Path(__file__).resolve().parent.parent / "weights" / "vlad_ros.safetensors"


def _digest(tensors: dict[str, Tensor], configuration: str) -> str:
    digest = hashlib.sha256(configuration.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _configuration(network: PlaceNetwork) -> str:
    both = {"model": dataclasses.asdict(network.config), "bev": dataclasses.asdict(network.bev)}
    return json.dumps(both, sort_keys=True)


def save_weights(
    path: str | os.PathLike[str], network: PlaceNetwork, calibration: Calibration | None, info: dict[str, Any]
) -> None:
    """Write `network` atomically. ``info`` must be JSON; it should say where the training data came from."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    configuration = _configuration(network)
    header = {
        "format": FORMAT,
        "configuration": configuration,
        "sha256": _digest(tensors, configuration),
        "calibration": json.dumps(calibration and calibration.as_dict()),
        "info": json.dumps(info, sort_keys=True),
    }
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, header))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weights file; name one with the parameter weights") from error
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error})") from error


def read_metadata(path: str | os.PathLike[str] | None = None) -> Metadata:
    """The metadata of a weights file, checked against its tensors. Raises WeightsError."""
    return _checked(Path(path) if path else default_weights_path())[1]


def _checked(path: Path) -> tuple[dict[str, Tensor], Metadata]:
    tensors, header = _read(path)
    if header.get("format") != FORMAT:
        found = header.get("format", "another program's")
        raise WeightsError(f"{path}: these are {found} weights, not {FORMAT!r}")
    try:
        configuration = json.loads(header["configuration"])
        model, bev = (
            from_mapping(ModelConfig, configuration["model"]),
            from_mapping(BevConfig, configuration["bev"]),
        )
        written = json.loads(header["calibration"])
        calibration = None if written is None else Calibration.from_dict(written)
        metadata = Metadata(model, bev, header["sha256"], calibration, json.loads(header["info"]))
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path}: its metadata is not usable ({error})") from error
    if _digest(tensors, header["configuration"]) != metadata.sha256:
        raise WeightsError(f"{path}: the tensors do not match their hash; the file is damaged, fetch it again")
    return tensors, metadata


def load_weights(
    path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu"
) -> tuple[PlaceNetwork, Metadata]:
    """The network in eval mode on `device`, and its metadata; `path` None or empty: the shipped weights.

    Raises WeightsError naming file and reason: missing, truncated, another format, damaged, or not fitting the network.
    """
    source = Path(path) if path else default_weights_path()
    tensors, metadata = _checked(source)
    network = PlaceNetwork(metadata.model, metadata.bev)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{source}: the tensors do not fit this version's network ({reason})") from error
    network.precision = torch.float16 if torch.device(device).type == "cuda" else torch.float32
    return network.eval().to(device), metadata
