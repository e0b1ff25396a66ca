# SPDX-License-Identifier: Apache-2.0
"""What goes out: messages, publishers, markers, diagnostics."""
