# SPDX-License-Identifier: Apache-2.0
"""Turning the vehicle: what the shipped descriptor makes of a scan does not depend on the heading."""

from __future__ import annotations

import numpy as np
import pytest
from real_data import data_file

from vlad_ros.evaluation.describe import network_descriptors
from vlad_ros.files.sequence import load_sequence
from vlad_ros.model.weights import default_weights_path, load_weights
from vlad_ros.types import F32


def turned(points: F32, degrees: float) -> F32:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    out = points.copy()
    out[:, :2] = points[:, :2] @ np.array([[c, s], [-s, c]], points.dtype)
    return out


@pytest.mark.parametrize("name", ["loop_mid360", "mulran_riverside_a_os1_64"])
def test_turned_copies_of_real_scans_look_alike(name: str) -> None:
    """Quarter turns change nothing but roundings; a scan turned by any angle is more like itself than another is."""
    if not default_weights_path().exists():
        pytest.skip("no trained weights in this tree yet")
    scans = load_sequence(data_file(f"{name}.npz")).scans
    network, _ = load_weights()
    first, elsewhere = scans[len(scans) // 3], scans[2 * len(scans) // 3]
    angles = [0, 90, 180, 270, 15, 30, 45, 60, 75]
    rows = network_descriptors(network, [*(turned(first, degrees) for degrees in angles), elsewhere])["fusion"]
    cosines = rows[1:-1] @ rows[0]
    assert cosines[:3].min() >= 0.98
    assert cosines.min() > rows[-1] @ rows[0] + 0.1
