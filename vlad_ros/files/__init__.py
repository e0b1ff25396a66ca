# SPDX-License-Identifier: Apache-2.0
"""Input files: sequences, bags, single scans."""
