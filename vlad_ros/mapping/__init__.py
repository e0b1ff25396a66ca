# SPDX-License-Identifier: Apache-2.0
"""The database of keyframes: index and file."""
