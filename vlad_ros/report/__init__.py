# SPDX-License-Identifier: Apache-2.0
"""A run, or an evaluation, as one HTML file that opens offline."""
