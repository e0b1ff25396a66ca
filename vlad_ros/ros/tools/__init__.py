# SPDX-License-Identifier: Apache-2.0
"""Tools around the node: replay, watch, the demo's session."""
