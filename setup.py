# SPDX-License-Identifier: Apache-2.0
from glob import glob

from setuptools import find_packages, setup

setup(
    name="vlad_ros",
    version="0.1.0",
    description="LiDAR place recognition: descriptors, loop closures and maps of places from any PointCloud2.",
    maintainer="vlad_ros maintainers",
    maintainer_email="maintainers@vlad-ros.invalid",
    license="Apache-2.0",
    packages=find_packages(exclude=["test", "test.*"]),
    package_data={"vlad_ros": ["weights/*.safetensors", "training/*.yaml", "report/page.*", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vlad_ros"]),
        ("share/vlad_ros", ["package.xml"]),
        ("share/vlad_ros/launch", glob("launch/*.launch.py")),
        ("share/vlad_ros/config", glob("config/*")),
    ],
    python_requires=">=3.10",
    # What else is needed comes from rosdep or requirements.txt: on a robot the distribution decides on numpy and torch.
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"], "rerun": ["rerun-sdk"]},
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "vlad = vlad_ros.cli:main",
            "vlad_node = vlad_ros.ros.node:main",
            "vlad_graph = vlad_ros.ros.graph_node:main",
        ]
    },
)
