# SPDX-License-Identifier: Apache-2.0
"""Stamps are integer nanoseconds; seconds are used only for people and other systems' messages."""

from __future__ import annotations

from typing import Any

SECOND = 1_000_000_000  # ns


def from_time(time: Any) -> int:
    """Integer nanoseconds of a builtin_interfaces/Time, or of anything with its attributes."""
    return int(time.sec) * SECOND + int(time.nanosec)


def stamp_of(message: Any) -> int:
    """The header's stamp [ns] of a stamped message, whether rosbags' or rclpy's."""
    return from_time(message.header.stamp)


def nanoseconds(seconds: float) -> int:
    """A duration, or a time in seconds, as a stamp: rounded to the nanosecond."""
    return round(seconds * SECOND)
