# SPDX-License-Identifier: Apache-2.0
"""One cloud: from the message's bytes to levelled points and a raster."""
