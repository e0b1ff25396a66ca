# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `vlad`; each has `add_arguments(parser)` and `run(args) -> int` and is imported when called."""
