# SPDX-License-Identifier: Apache-2.0
"""Every test process is a ROS world of its own."""

from __future__ import annotations

import os
import socket
import sys
import tempfile

# Of all others the ports are ephemeral ones on Linux. The demo takes one of 1 to 100.
DOMAINS = [*range(215, 233), *range(1, 102)]
_held: list[socket.socket] = []  # closed with the process, and not inherited by the nodes that it starts
_logs = tempfile.TemporaryDirectory(prefix="vlad_ros_log_")


def claim_domain() -> int:
    """A ROS domain that no other test process of this machine holds, for as long as this process lives."""
    for domain in DOMAINS:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0vlad_ros test, ROS domain {domain}")
        except OSError:
            claim.close()
            continue
        _held.append(claim)
        return domain
    raise RuntimeError(f"{len(DOMAINS)} test processes hold a ROS domain each: none is left")


def enter_own_domain() -> None:
    """Set what ROS reads from the environment, for this process and the nodes that it starts."""
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_DOMAIN_ID"] = str(claim_domain())
    os.environ.setdefault("ROS_LOG_DIR", _logs.name)
