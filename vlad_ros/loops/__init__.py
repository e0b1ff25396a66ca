# SPDX-License-Identifier: Apache-2.0
"""From candidates to loop closures: alignment, verification, acceptance."""
