# SPDX-License-Identifier: Apache-2.0
"""The node's inputs: parameters, subscriptions, frames."""
