# SPDX-License-Identifier: Apache-2.0
"""Environment variables that our processes need, and the location of the package's configuration."""

from __future__ import annotations

import os
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

DDS_PROFILE = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # until and from Kilted on
# glibc keeps the clouds' buffers instead of returning them to the system each time. OpenMP's threads sleep while they
# wait: by default they spin, which takes cores that the rest of the stack needs, and is slower.
RUNTIME = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "67108864",
}


def share_folder() -> Path:
    """The folder with launch/ and config/; ValueError where there is none."""
    source = Path(__file__).resolve().parents[2]
    if (source / "launch" / "vlad.launch.py").exists():
        return source
    try:
        return Path(get_package_share_directory("vlad_ros"))
    except PackageNotFoundError as error:
        raise ValueError("vlad_ros is not installed: source the workspace's install/setup.bash") from error


def dds_profile() -> dict[str, str]:
    """Send whole clouds through shared memory, unless the user has a DDS profile."""
    if any(name in os.environ for name in DDS_PROFILE):
        return {}
    return {name: str(share_folder() / "config" / "fastdds_shm.xml") for name in DDS_PROFILE}


def use_shared_memory() -> None:
    """Let this process write whole clouds to shared memory; before rclpy.init.

    In Fast DDS a participant writes into its own segment: publishers of large clouds need the profile, too.
    """
    os.environ.update(dds_profile())
