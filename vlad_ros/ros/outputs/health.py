# SPDX-License-Identifier: Apache-2.0
"""Health check of place recognition: a sentence for each problem."""

from __future__ import annotations

from collections.abc import Sequence

from vlad_ros.config import NodeConfig, RecognizerConfig
from vlad_ros.ros.reasons import REASONS
from vlad_ros.ros.statistics import Flow
from vlad_ros.stamps import SECOND

ENOUGH = 10  # scans; with fewer, a finding may be chance
STUCK = 10.0  # s


def health(flow: Flow, waiting: int, config: NodeConfig, recognizer: RecognizerConfig) -> list[str]:
    """Problems in the last seconds; `waiting` scans are in the queue."""
    new, sentences = flow.counts, []
    if waiting and flow.idle > STUCK:
        sentences.append(f"the worker has finished nothing for {flow.idle:.0f} s, {waiting} scans wait")
    received, used = new.get("received", 0), new.get("used", 0)
    refused = {name.removeprefix("refused "): n for name, n in new.items() if name.startswith("refused ") and n > 0}
    if received >= ENOUGH and not used and refused:
        worst = max(refused, key=lambda name: refused[name])
        sentences.append(f"none of the last {received} clouds could be used; {worst}: {REASONS[worst]}")
    if new.get("dropped", 0) > 0:
        sentences.append(
            f"{new['dropped']} of {received} clouds were dropped from the queue in {flow.seconds:.0f} s: the "
            "computer is too slow for this rate"
        )
    far = recognizer.accumulation_m + 10.0 * recognizer.keyframe_distance
    if config.keyframe_source == "own" and flow.metres > far and not new.get("keyframes"):
        sentences.append(f"no keyframe for {flow.metres:.0f} m of travel: see the counts of what was not used")
    if config.keyframe_source == "topic" and used >= ENOUGH and not new.get("keyframes") and flow.seconds >= STUCK - 2:
        sentences.append(f"no keyframe was announced for {flow.seconds:.0f} s: does the back-end publish on keyframes?")
    if flow.all_partial:
        sentences.append("every local map is partial: odometry jumps or is missing between the scans")
    return sentences


def explain_odometry(
    topic: str,
    publishers: Sequence[str],
    children: Sequence[str],
    frames: tuple[str, str],
    newest: tuple[int | None, int],
) -> str:
    """Why no scan has a pose: who publishes odometry on `topic`, of which child frames, where `frames` are the body's
    and the cloud's, and the `newest` stamps [ns] of odometry and clouds. Empty if nobody publishes odometry at all:
    places are recognised without it."""
    odometry, cloud = newest
    if odometry is None:
        if not publishers:
            return ""
        return f"no odometry message has come on {topic}, where {', '.join(publishers)} publish: is the type Odometry?"
    if not set(children) & {*frames, ""}:
        return (
            f"odometry on {topic} is of the child frames {', '.join(children)}; the body is {frames[0]}, the cloud's "
            f"frame {frames[1]}: set base_frame to one of them"
        )
    offset = (odometry - cloud) / SECOND
    if abs(offset) > 1.0:
        return (
            f"the odometry's stamps are {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} the clouds': no "
            "scan finds its pose; give both one clock (use_sim_time for both, PTP, or the driver's own option)"
        )
    return f"odometry comes on {topic}, but no scan finds its pose: it comes too late (odom_timeout) or with gaps"
