# SPDX-License-Identifier: Apache-2.0
"""Edges for others: between a back-end's own nodes, and as files."""
