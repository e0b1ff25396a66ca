# SPDX-License-Identifier: Apache-2.0
"""Loop edges for other software: between a back-end's own nodes, and as files."""
