"""The kernels that every rendering test runs on; Triton's runs in its interpreter where there is no GPU."""

import importlib.util

import pytest
import torch

# Where there is a GPU the interpreter is off, and tests/test_gpu.py runs the kernels.
needs_interpreter = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="no triton in this PyTorch, or one that is for the GPU",
)
_TRITON = pytest.param("triton", marks=needs_interpreter)
KERNELS = pytest.mark.parametrize("kernel", ["torch", "numba", _TRITON])


def on(kernel, grid):
    """Return the grid, which this kernel renders from now on."""
    grid.kernel = kernel
    return grid
