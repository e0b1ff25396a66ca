# SPDX-License-Identifier: Apache-2.0
"""The node's outputs: messages, publishers, markers, diagnostics."""
