# SPDX-License-Identifier: Apache-2.0
"""Around the node: replay, watch, the demo's session."""
