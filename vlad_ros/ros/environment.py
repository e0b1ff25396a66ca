# SPDX-License-Identifier: Apache-2.0
"""What a process of ours wants of its environment, and where the package's configuration lies."""

from __future__ import annotations

import os
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

DDS_PROFILE = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # until and from Kilted on
# Clouds' buffers are kept instead of given back to the system each time (glibc). OpenMP's threads sleep while they
# wait: spinning, as by default, they take the cores that the rest of the stack needs, and are slower for it.
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
    """Whole clouds through shared memory, unless the user has a DDS profile."""
    if any(name in os.environ for name in DDS_PROFILE):
        return {}
    return {name: str(share_folder() / "config" / "fastdds_shm.xml") for name in DDS_PROFILE}


def use_shared_memory() -> None:
    """Let this process write whole clouds to shared memory; before rclpy.init.

    In Fast DDS a participant writes into its own segment: who publishes large clouds needs the profile, too.
    """
    os.environ.update(dds_profile())
