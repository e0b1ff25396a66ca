# SPDX-License-Identifier: Apache-2.0
"""One map for many vehicles, on Milvus: keyframes go up, surroundings of recognised places come down."""
