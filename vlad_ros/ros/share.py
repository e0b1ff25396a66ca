# SPDX-License-Identifier: Apache-2.0
"""Where the launch file and the configuration lie: in the source tree, or where colcon has put them."""

from __future__ import annotations

import os
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

DDS_PROFILE = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # until and from Kilted on


def share_folder() -> Path:
    """The folder with launch/ and config/; ValueError where there is none."""
    source = Path(__file__).resolve().parents[2]
    if (source / "launch" / "vlad.launch.py").exists():
        return source
    try:
        return Path(get_package_share_directory("vlad_ros"))
    except PackageNotFoundError as error:
        raise ValueError("vlad_ros is not installed: source the workspace's install/setup.bash") from error


def use_shared_memory() -> None:
    """Let this process write whole clouds to shared memory, unless the user has a DDS profile; before rclpy.init.

    In Fast DDS a participant writes into its own segment: who publishes large clouds needs the profile, too.
    """
    if not any(name in os.environ for name in DDS_PROFILE):
        os.environ.update({name: str(share_folder() / "config" / "fastdds_shm.xml") for name in DDS_PROFILE})
