"""The kernels that every rendering test runs on; Triton's runs in its interpreter where there is no GPU."""

import importlib.util

import pytest

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_TRITON = pytest.param(
    "triton", marks=pytest.mark.skipif(not _HAS_TRITON, reason="no triton in this PyTorch")
)
KERNELS = pytest.mark.parametrize("kernel", ["torch", "numba", _TRITON])
