# SPDX-License-Identifier: Apache-2.0
"""A drive played without ROS, and its output folder."""
