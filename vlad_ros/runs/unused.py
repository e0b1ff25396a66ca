# SPDX-License-Identifier: Apache-2.0
"""Unused inputs of a drive: counted as in the node, and reported once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from vlad_ros.drive.body_points import reason_of

# Stamps that the pairing of clouds and odometry does not accept.
OF_STAMPS = {
    "wrong_stamp": "a cloud's stamp is seconds from those before and after it",
    "wrong_odometry_stamp": "an odometry message's stamp is seconds from those before and after it",
    "late_stamp": "a cloud's stamp is older than the last one's",
    "repeated_stamp": "a cloud's stamp is the last one's",
}
# What helps, where `vlad run` has an option for it.
REMEDIES = {
    "odometry_frame": "name the body with --base-frame, or leave the odometry out with --no-odometry",
    "no_transform": "say where the sensor is with --mounting-xyz-rpy",
    "zero_stamp": "its driver must stamp the clouds",
}


class Unused:
    """Counts unused inputs by reason, as the node does, and reports the first of each."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.counters: Counter[str] = Counter()
        self.why: dict[str, str] = {}
        self.warn = warn

    def __call__(self, reason: str, sentence: str) -> None:
        """Count one more; `sentence` tells the user why."""
        self.counters[reason] += 1
        if reason not in self.why:
            self.why[reason] = f"{sentence}; {REMEDIES[reason]}" if reason in REMEDIES else sentence
            self.warn(f"{reason}: {self.why[reason]}")

    def refuse(self, error: ValueError) -> None:
        """A scan that failed."""
        self(reason_of(error), str(error))
