# SPDX-License-Identifier: Apache-2.0
"""The QoS profiles of the node's publishers and subscriptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PICTURES = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


def heard(depth: int, reliable: bool = False) -> QoSProfile:
    """Of a subscription: best effort matches every publisher, reliable only those that offer it."""
    return QoSProfile(
        depth=depth, reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    )


def subscribe(
    node: Node,
    kind: type,
    topic: str,
    callback: Callable[[Any], object],
    qos: QoSProfile,
    lost: Callable[[int], object],
    raw: bool = False,
) -> Subscription:
    """A subscription; `lost(number)` is told of messages that the middleware dropped before they were taken, where it
    tells (Fast DDS does)."""
    events = SubscriptionEventCallbacks(message_lost=lambda event: lost(event.total_count_change))
    try:
        return node.create_subscription(kind, topic, callback, qos, raw=raw, event_callbacks=events)
    except UnsupportedEventTypeError:
        return node.create_subscription(kind, topic, callback, qos, raw=raw)
