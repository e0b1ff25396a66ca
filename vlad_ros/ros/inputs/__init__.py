# SPDX-License-Identifier: Apache-2.0
"""What comes in: parameters, subscriptions, frames."""
