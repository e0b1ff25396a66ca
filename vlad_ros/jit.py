# SPDX-License-Identifier: Apache-2.0
"""Compile numerical kernels with numba, once per machine if there is a writable cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """`numba.njit` with the compiled code kept on disk; an installation with no writable cache compiles in memory.

    Kernels hold no GIL and use no fast-math: their float32 results must equal those of the CUDA path.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba finds neither a writable package folder nor a writable home
        return numba.njit(nogil=True)(function)
