# SPDX-License-Identifier: Apache-2.0
"""One drive: odometry, what belongs to a scan, keyframes, local maps."""
