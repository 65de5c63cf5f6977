"""Try a kernel once, before a run depends on it: compilers, drivers and their headers fail in every way."""

from __future__ import annotations

import subprocess
from copy import copy

import torch

from voxnerf.cameras import orbit_camera
from voxnerf.field import Field, KernelError
from voxnerf.settings import Kernel

_NAMES = {
    "torch": "torch, the plain path",
    "numba": "numba, the fused CPU kernel",
    "triton": "triton, the fused GPU kernel",
}
_LONGEST = 300  # characters of a foreign error: its beginning and its end


def usable_kernel(field: Field, wanted: Kernel = "auto") -> tuple[Kernel, str]:
    """Find the kernel that works on this machine, by one small view of this field, there and back.

    "auto" means the first of the field's own, and torch where that fails. The field stays as it is, its
    gradients too. A fused kernel may be compiled on the way, as it would be at the first step. The host waits
    for the device.

    Returns:
        What belongs into `field.kernel`, and in one line which kernel that is, or why it is torch.

    Raises:
        KernelError: the wanted kernel does not work, or none does.
    """
    kernel = field.kernels[0] if wanted == "auto" else wanted
    why = _failure(field, kernel)
    if not why:
        return kernel, _NAMES[kernel]
    if wanted != "auto":
        raise KernelError(kernel, why)
    if plain := _failure(field, "torch"):
        raise KernelError("torch", plain)
    return "torch", f"{_NAMES['torch']}, because {kernel} cannot: {why}"


def _failure(field: Field, kernel: Kernel) -> str | None:
    """Return in one line why a kernel cannot render a field and differentiate it, or None."""
    tried = copy(field)  # shares the parameters
    tried.kernel = kernel
    learnt = {name: param for name, param in field.named_parameters() if param.requires_grad}
    if kernel not in field.kernels:
        return f"its kernels are {', '.join(field.kernels)}. Received {kernel!r}."
    try:
        with torch.enable_grad():
            seen = vars(tried.render(orbit_camera(30, 20, 8, 8)))
            found = {name: t for name, t in seen.items() if t is not None}
            loss = torch.stack([tensor.sum() for tensor in found.values()]).sum()
            slopes = torch.autograd.grad(loss, list(learnt.values()))
        found |= {f"the gradient of {name}": slope for name, slope in zip(learnt, slopes)}
        wild = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    except KernelError as error:
        return error.why
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
