"""Try a kernel once, before a run depends on it: compilers, drivers and their headers fail in every way."""

from __future__ import annotations

import subprocess
from copy import copy

import torch

from voxnerf.cameras import orbit_camera
from voxnerf.grid import Kernel, VoxelGrid
from voxnerf.march import fused_kernel, refusal, unusable
from voxnerf.render import render

_NAMES = {
    "torch": "torch, the plain path",
    "numba": "numba, the fused CPU kernel",
    "triton": "triton, the fused GPU kernel",
}
_LONGEST = 300  # characters of a foreign error: its beginning and its end


def usable_kernel(grid: VoxelGrid, wanted: Kernel = "auto") -> tuple[Kernel, str]:
    """Find the kernel that works on this machine, by one small view of this grid, there and back.

    "auto" means the fused kernel for the grid's device, and torch where that fails. The grid stays as it is,
    its gradients too. A fused kernel may be compiled on the way, as it would be at the first step. The host
    waits for the device.

    Returns:
        What belongs into `grid.kernel`, and in one line which kernel that is, or why it is torch.

    Raises:
        ValueError: the wanted kernel does not work, or none does.
    """
    kernel = fused_kernel(grid) if wanted == "auto" else wanted
    why = _failure(grid, kernel)
    if not why:
        return kernel, _NAMES[kernel]
    if wanted != "auto":
        raise unusable(kernel, why)
    if plain := _failure(grid, "torch"):
        raise unusable("torch", plain)
    return "torch", f"{_NAMES['torch']}, because {kernel} cannot: {why}"


def _failure(grid: VoxelGrid, kernel: Kernel) -> str | None:
    """Return in one line why a kernel cannot render a grid and differentiate it, or None."""
    tried = copy(grid)  # shares the parameters
    tried.kernel = kernel
    try:
        if why := refusal(kernel, grid):
            return why
        with torch.enable_grad():
            seen = vars(render(tried, orbit_camera(30, 20, 8, 8)))
            found = {name: t for name, t in seen.items() if t is not None}
            loss = torch.stack([tensor.sum() for tensor in found.values()]).sum()
            slopes = torch.autograd.grad(loss, list(grid.parameters()))
        names = (f"the gradient of {name}" for name, _ in grid.named_parameters())
        found |= dict(zip(names, slopes))
        wild = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    except Exception as error:
        return f"it must work on this machine. It ended in {_one_line(error)}"
    return f"its results must be finite. Not finite: {', '.join(wild)}." if wild else None


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 3]} ... {text[-_LONGEST * 2 // 3 :]}"
    text = text.rstrip(".") + "."
    if isinstance(error, subprocess.CalledProcessError) or "C compiler" in text:
        text += " Triton needs a C compiler and Python's headers (python3-dev) at its first use."
    return text
