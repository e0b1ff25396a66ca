# SPDX-License-Identifier: Apache-2.0
"""One drive: odometry, scan pairing, keyframes, local maps."""
