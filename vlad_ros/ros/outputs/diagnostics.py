# SPDX-License-Identifier: Apache-2.0
"""The node's health as text: one DiagnosticStatus, and why no cloud arrives."""

from __future__ import annotations

from collections.abc import Sequence

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.qos import ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

LOSSY = 0.8  # share of the expected rate below which clouds are being lost in transport

SLOW_DDS = (
    "clouds are lost between the driver and this node: export FASTRTPS_DEFAULT_PROFILES_FILE (and "
    "FASTDDS_DEFAULT_PROFILES_FILE) with this package's config/fastdds_shm.xml in the driver's shell too, "
    "or set points_reliable"
)


def status_name(node: str) -> str:
    """The name of the status of the node with this fully qualified name."""
    return f"{node.lstrip('/')}: place recognition"


def status(name: str, state: str, warnings: Sequence[str], values: dict[str, str]) -> DiagnosticStatus:
    """The node of the fully qualified `name` in lifecycle state `state`: WARN with the sentences, or OK. `values`:
    rates, drops and why, latency of each stage, database, session."""
    values = {"state": state} | values
    fine = f"{state}, {values.get('keyframes in the map', '0')} keyframes in the map"
    return DiagnosticStatus(
        level=DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK,
        name=status_name(name),
        message="; ".join(warnings) or fine,
        hardware_id="",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def explain_silence(topic: str, ours: str, reliable: bool, publishers: list[TopicEndpointInfo], silence: float) -> str:
    """Why no cloud arrives: topic, publishers found, their types and offered QoS, and what to do about it."""
    start = f"no cloud on {topic} for {silence:.0f} s"
    if not publishers:
        return f"{start}: nobody publishes there; start the driver, or name its topic (points:=/your_topic)"
    found, remedies = [], []
    for publisher in publishers:
        offered = publisher.qos_profile
        node = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
        found.append(f"{node} publishes {publisher.topic_type} ({offered.reliability.name.lower()})")
        if publisher.topic_type != ours:
            livox = "livox" in publisher.topic_type
            remedies.append("set xfer_format: 0 in the Livox driver" if livox else f"{ours} is needed")
        elif reliable and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
            remedies.append("set points_reliable: false, the publisher is best effort")
    if not remedies:
        remedies.append(
            "type and QoS fit: the publisher sends nothing, or its clouds are lost (see config/fastdds_shm.xml)"
        )
    return f"{start}: {', '.join(found)}; {', '.join(dict.fromkeys(remedies))}"
