# SPDX-License-Identifier: Apache-2.0
"""Starts the node and brings it to active: `ros2 launch vlad_ros vlad.launch.py points:=/velodyne_points`.

What is given on the command line wins over the parameter file, the parameter file over the defaults.
"""

from __future__ import annotations

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node, SetParameter, SetParametersFromFile
from launch_ros.substitutions import FindPackageShare

from vlad_ros.ros.environment import DDS_PROFILE, RUNTIME

# name, default, description
ARGUMENTS = (
    ("points", "points", "topic of the clouds (sensor_msgs/PointCloud2)"),
    ("bev", "", "topic of the BEV rasters (sensor_msgs/Image); empty: the node makes its own"),
    ("odom", "odom", "topic of the odometry (nav_msgs/Odometry); without it every keyframe is a single scan"),
    ("keyframes", "keyframes", "topic of the keyframes of a back-end (PoseStamped, or Path with its optimised poses)"),
    ("base_frame", "", "body frame; empty: as in params_file, by default the frame of the cloud"),
    ("map", "", "map file: loaded if it exists, and grows with the drive; empty: as in params_file"),
    ("map_mode", "", "extend, or localise: the map file is never written; empty: as in params_file"),
    ("fleet", "", "the fleet's Milvus, http(s)://HOST:PORT or a file ending in .db; empty: as in params_file"),
    ("robot", "", "this vehicle's name in the fleet; empty: as in params_file"),
    ("use_sim_time", "", "true: time from /clock (bags, simulation); empty: as in params_file"),
    ("namespace", "", "namespace of the node"),
    ("device", "", "auto, cpu, cuda or cuda:N; empty: as in params_file"),
    ("autostart", "true", "configure and activate after start"),
)
# Launch argument -> parameter, set where the argument is not empty.
TEXTS = (
    *(("base_frame", "base_frame"), ("map", "map_path"), ("map_mode", "map_mode"), ("device", "device")),
    *(("fleet", "fleet_uri"), ("robot", "robot")),
)
SWITCHES = (("use_sim_time", "use_sim_time"), ("autostart", "autostart"))


def share(*parts: str) -> PathJoinSubstitution:
    """A file that is installed with this package."""
    return PathJoinSubstitution([FindPackageShare("vlad_ros"), *parts])


def quoted(argument: str) -> list[object]:
    """A launch argument as a Python string, whatever apostrophes and backslashes are in it."""
    return ["r'''", LaunchConfiguration(argument), " '''.strip()"]


def given(argument: str) -> IfCondition:
    """Whether a launch argument is not empty."""
    return IfCondition(PythonExpression([*quoted(argument), " != ''"]))


def text(argument: str) -> PythonExpression:
    """A launch argument as a text parameter, whatever is in it: quoted twice, for launch and rcl both read YAML."""
    # 'it''s' is the text it's: an apostrophe, chr(39), becomes two of them, and four the second time.
    return PythonExpression(["3 * chr(39) + ", *quoted(argument), ".replace(chr(39), 4 * chr(39)) + 3 * chr(39)"])


def home(argument: str) -> PythonExpression:
    """A launch argument as a path; no shell expands the `~` after `:=`."""
    return PythonExpression(["__import__('os').path.expanduser(", *quoted(argument), ")"])


def environment() -> dict[str, object]:
    """For our node only, and nothing that the user has set."""
    wanted: dict[str, object] = dict(RUNTIME)
    if not any(name in os.environ for name in DDS_PROFILE):
        wanted.update({name: share("config", "fastdds_shm.xml") for name in DDS_PROFILE})
    return {name: value for name, value in wanted.items() if name not in os.environ}


def generate_launch_description() -> LaunchDescription:
    """Arguments, parameters in the order of their weight, and the node."""
    bev_topic = PythonExpression([*quoted("bev"), " or 'bev'"])
    node = Node(
        package="vlad_ros",
        executable="vlad_node",
        name="vlad",
        namespace=LaunchConfiguration("namespace"),
        remappings=[
            ("points", LaunchConfiguration("points")),
            ("bev", bev_topic),
            ("odom", LaunchConfiguration("odom")),
            ("keyframes", LaunchConfiguration("keyframes")),
        ],
        additional_env=environment(),
        output="screen",
        emulate_tty=True,
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file", default_value=share("config", "vlad.yaml"), description="file with parameters"
            ),
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            GroupAction(
                [
                    SetParametersFromFile(home("params_file")),
                    SetParameter("use_bev", True, condition=given("bev")),
                    *(SetParameter(name, text(argument), condition=given(argument)) for argument, name in TEXTS),
                    *(
                        SetParameter(name, LaunchConfiguration(argument), condition=given(argument))
                        for argument, name in SWITCHES
                    ),
                    node,
                ]
            ),
        ]
    )
