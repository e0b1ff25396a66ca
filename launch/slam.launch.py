# SPDX-License-Identifier: Apache-2.0
"""Starts the place node and the pose graph: `ros2 launch vlad_ros slam.launch.py points:=/velodyne_points odom:=/odom`.

Each tells the other what it needs: keyframes and loops one way, corrections the other. `vlad.launch.py` starts the
place node, with whatever is given here.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node, SetParameter, SetParametersFromFile
from launch_ros.substitutions import FindPackageShare

# name, default, description; the place node's go on to vlad.launch.py
PLACE = (
    ("points", "points", "topic of the clouds (sensor_msgs/PointCloud2)"),
    ("odom", "odom", "topic of the odometry (nav_msgs/Odometry)"),
    ("base_frame", "", "body frame; empty: as in params_file, by default the frame of the cloud"),
    ("map", "", "map file of the place node; empty: as in params_file"),
    ("fleet", "", "the fleet's Milvus, for the place node; empty: as in params_file"),
    ("robot", "", "this vehicle's name in the fleet; empty: as in params_file"),
    ("use_sim_time", "", "true: time from /clock (bags, simulation); empty: as in the parameter files"),
    ("namespace", "", "namespace of both nodes"),
    ("device", "", "auto, cpu, cuda or cuda:N; empty: as in params_file"),
    ("autostart", "true", "configure and activate after start"),
)
GRAPH = (("graph", "", "graph file: resumed if it exists, written while driving; empty: as in graph_params_file"),)


def share(*parts: str) -> PathJoinSubstitution:
    """A file that is installed with this package."""
    return PathJoinSubstitution([FindPackageShare("vlad_ros"), *parts])


def given(argument: str) -> IfCondition:
    """Whether a launch argument is not empty."""
    return IfCondition(PythonExpression(["r'''", LaunchConfiguration(argument), " '''.strip() != ''"]))


def text(argument: str) -> PythonExpression:
    """A launch argument as a text parameter, as vlad.launch.py has it: quoted twice, for launch and rcl read YAML."""
    value = ["r'''", LaunchConfiguration(argument), " '''.strip()"]
    return PythonExpression(["3 * chr(39) + ", *value, ".replace(chr(39), 4 * chr(39)) + 3 * chr(39)"])


def generate_launch_description() -> LaunchDescription:
    """The place node by its own launch file, then the pose graph."""
    files = (
        ("params_file", share("config", "vlad.yaml"), "file with parameters of the place node"),
        ("graph_params_file", share("config", "vlad_graph.yaml"), "file with parameters of the pose graph"),
    )
    place_node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(share("launch", "vlad.launch.py")),
        launch_arguments=[
            *((name, LaunchConfiguration(name)) for name, _, _ in PLACE),
            ("params_file", LaunchConfiguration("params_file")),
            ("keyframes", "vlad_graph/corrections"),
        ],
    )
    graph_node = Node(
        package="vlad_ros",
        executable="vlad_graph",
        name="vlad_graph",
        namespace=LaunchConfiguration("namespace"),
        remappings=[
            ("odom", LaunchConfiguration("odom")),
            ("keyframes", "vlad/keyframes"),
            ("loop_closures", "vlad/loop_closures"),
            ("guests", "vlad/guests"),
            ("pose", "vlad/pose"),
        ],
        additional_env={},
        output="screen",
        emulate_tty=True,
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in (*PLACE, *GRAPH, *files)
            ),
            place_node,
            GroupAction(
                [
                    SetParametersFromFile(LaunchConfiguration("graph_params_file")),
                    SetParameter("graph_path", text("graph"), condition=given("graph")),
                    *(
                        SetParameter(name, LaunchConfiguration(name), condition=given(name))
                        for name in ("use_sim_time", "autostart")
                    ),
                    graph_node,
                ]
            ),
        ]
    )
