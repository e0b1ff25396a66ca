# SPDX-License-Identifier: Apache-2.0
"""Offline operations on whole map files. Input files are never changed; results go into new files."""
