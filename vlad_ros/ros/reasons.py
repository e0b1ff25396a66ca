# SPDX-License-Identifier: Apache-2.0
"""Reasons why the node does not use an input: counter names and their meanings."""

from __future__ import annotations

LOST = "DDS lost it on the way, or dropped it before the node, busy or standing still, could take it"

# Every reason for not using an input, with the explanation shown in the warning.
REASONS = {
    "queue_full": "the computer is too slow for this rate; the oldest waiting scan was dropped",
    "inactive": "the scan was waiting when the node was deactivated",
    "cloud_empty": "the cloud is empty",
    "cloud_fields": "the cloud's fields cannot be used",
    "cloud_layout": "the cloud's layout is contradictory",
    "cloud_not_finite": "the cloud has no finite point",
    "cloud_out_of_range": "no point lies between min_range and max_range",
    "unusable": "the pipeline cannot use the scan",
    "zero_stamp": "the stamp is zero",
    "frame_changed": "the cloud's frame_id has changed mid-run",
    "no_transform": "there is no transform from the cloud's frame to base_frame",
    "repeated_stamp": "the stamp is the last one's",
    "late_stamp": "the stamp is older than the last one's",
    "wrong_stamp": "the stamp is seconds from those before and after it; that message is not used",
    "wrong_odometry_stamp": "the stamp is seconds from those before and after it; that message is not used",
    "pause": "no cloud came for a while; the session goes on",
    "session_opened": "the stamps went back (a bag restarted?); a new session begins, the map is kept",
    "no_odometry": "no odometry around the stamp; the scan is used without a pose",
    "odometry_jump": "the odometry has jumped; local maps end there",
    "not_deskewed": "the odometry does not cover the sweep, and has no twist; the scan is used as it came",
    "bad_times": "the times of the points cannot be understood; the scan is used as it came",
    "missing_returns": "the sensor draws its missing returns at its range limit; set max_range below it",
    "bad_odometry": "the odometry message is not a pose",
    "odometry_frame": "the odometry's child_frame_id is neither the body nor the cloud's frame; set base_frame to it",
    "bad_bev": "the BEV image cannot be used",
    "bev_missing": "no BEV for this scan",
    "bev_unpaired": "no cloud within bev_tolerance of this BEV",
    "keyframe_late": "the keyframe was announced after its scan had gone; raise keyframe_timeout",
    "bad_keyframe": "the keyframe announcement names no stamp",
    "bad_path": "the back-end's path cannot be used to correct the map",
    "bad_hint": "the hint cannot be used; give a finite pose in the map's frame",
    "carried_away": "the place by odometry is no longer believed; a new session begins",
    "node_far": "the back-end has no node within 0.5 s of one of the loop's keyframes; the edge is withheld",
    "node_without_odometry": "no odometry leads from a loop's keyframe to the back-end's node; the edge is withheld",
    "node_other_session": "a loop into another session has no nodes of this run's back-end; the edge is withheld",
    "keyframe_removed": "max_keyframes_per_place: the oldest keyframe of a place has left the map",
    "save_failed": "the map could not be written; it is tried again every second",
    "map_damaged": "a part of the map file cannot be used",
    "fleet_row": "a row of the fleet is no keyframe that this map can hold; it is left out",
    **{f"{topic}_lost": LOST for topic in ("points", "odom", "bev", "keyframes")},
    "internal_error": "an error of the program itself; see the log",
}

# The topic that a reason refers to, if it is not the points topic.
TOPICS = {
    "no_odometry": "odom",
    "odometry_jump": "odom",
    "wrong_odometry_stamp": "odom",
    "bad_odometry": "odom",
    "odometry_frame": "odom",
    "bad_bev": "bev",
    "bev_missing": "bev",
    "bev_unpaired": "bev",
    "keyframe_late": "keyframes",
    "bad_keyframe": "keyframes",
    "bad_path": "keyframes",
    "bad_hint": "~/hint",
    "carried_away": "odom",
    "node_far": "keyframes",
    "node_without_odometry": "odom",
    "node_other_session": "keyframes",
    **{f"{topic}_lost": topic for topic in ("odom", "bev", "keyframes")},
    "fleet_row": "~/loop_closures",
    "save_failed": "~/save_map",
    "map_damaged": "~/load_map",
}

# Reasons for which the whole cloud is discarded.
REFUSALS = (
    *(name for name in REASONS if name.startswith("cloud_")),
    *("unusable", "zero_stamp", "frame_changed", "no_transform", "repeated_stamp", "late_stamp", "wrong_stamp"),
    *("bev_missing", "bad_bev"),
)
