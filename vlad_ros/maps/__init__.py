# SPDX-License-Identifier: Apache-2.0
"""What is done with whole map files, offline. No file is changed: what is made goes into a new one."""
