# SPDX-License-Identifier: Apache-2.0
"""Processing of one cloud: from the message's bytes to levelled points and a raster."""
