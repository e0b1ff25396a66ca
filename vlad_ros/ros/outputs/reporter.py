# SPDX-License-Identifier: Apache-2.0
"""The node's state as diagnostics, once a second."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus

from vlad_ros.ros.outputs.diagnostics import Statistics, status
from vlad_ros.ros.resources import Session


def report(
    name: str, state: str, statistics: Statistics, session: Session | None, warnings: list[str]
) -> DiagnosticStatus:
    """One status: the warnings in words, rates, drops and why, latency of each stage, database, session."""
    values = {"state": state} | statistics.values()
    if session is not None:
        values |= session.values()
    fine = f"{state}, {values.get('keyframes in the map', '0')} keyframes in the map"
    return status(f"{name}: place recognition", warnings, fine, values)
