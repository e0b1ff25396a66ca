# SPDX-License-Identifier: Apache-2.0
"""The live pose graph on small drives of known truth."""
