# SPDX-License-Identifier: Apache-2.0
"""Files from outside: sequences, bags, single scans."""
