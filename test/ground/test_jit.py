# SPDX-License-Identifier: Apache-2.0
"""Kernels compile where numba has no place to keep them."""

from __future__ import annotations

import numba
import pytest

from vlad_ros.jit import kernel


def test_a_kernel_without_a_place_for_its_code_compiles_in_memory() -> None:
    namespace: dict = {}
    exec("def add(a, b):\n    return a + b\n", namespace)  # a function of no file: numba finds no cache for it
    with pytest.raises(RuntimeError):
        numba.njit(cache=True)(namespace["add"])
    assert kernel(namespace["add"])(1, 2) == 3
