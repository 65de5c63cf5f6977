"""Compile the GPU kernels for GPUs that are not here; print what became of each as a line of JSON.

    python -m tests.compile_kernels 75 90              (the two variants of most launches)
    python -m tests.compile_kernels --thoroughly 80    (every variant)

Every launch of a kernel becomes its `warmup`: Triton derives the signature from the very arguments that the
program launches with and calls triton.compile(ASTSource(kernel, signature, ...), target=GPUTarget("cuda",
capability, 32)), down to the cubin that its own ptxas makes. Nothing is run, so no result is looked at.
"""

import json
import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.march import _TritonMarch

# Triton compiles another kernel where a whole number is a multiple of 16, and where it is 1.
WHOLE_NUMBERS = {"multiples of 16": (16, 64), "others": (10, 33), "ones": (1, 1)}  # resolution, rays
CHANNELS = (3, 4)


class AbsentGPU:
    """What Triton asks a driver in order to compile."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return self.capability  # compiled kernels are kept by device

    def get_current_stream(self, device):
        return 0


def compile_instead(made, kernel, grid):
    """Return what to call in place of a launch: it compiles, and appends to `made`."""

    def compile_it(*arguments, **options):
        row = {"kernel": kernel.__name__}
        try:
            done = kernel.warmup(*arguments, grid=grid, **options)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
        else:
            cubin, target = done.asm["cubin"], done.metadata.target
            row |= {"target": [target.backend, target.arch], "elf": cubin.startswith(b"\x7fELF")}
            row |= {"types": done.src.signature, "shared_bytes": done.metadata.shared}
        made.append(row)

    return compile_it


def march_there_and_back(channels, resolution, n_rays):
    """Launch every kernel, as rendering and its backward pass do."""
    grid = VoxelGrid(GridConfig(resolution, channels=channels))
    rays = torch.zeros(3), torch.ones(n_rays, 3), torch.zeros(n_rays), torch.ones(n_rays)
    emptiness_scale = 10  # a whole number in some people's hands
    tensors = grid.density, grid.color, grid.log_density_scale
    seen = _TritonMarch.apply(*tensors, *rays, grid.config, emptiness_scale)
    torch.autograd.backward(seen, [torch.ones_like(t) for t in seen])


def variants(thoroughly):
    """Yield channels and a name of `WHOLE_NUMBERS`."""
    yield from ((channels, "multiples of 16") for channels in CHANNELS)
    if thoroughly:
        yield from ((4, name) for name in ("others", "ones"))


def main(thoroughly, capabilities):
    """Compile for every capability."""
    made = []
    JITFunction.__getitem__ = lambda kernel, grid: compile_instead(made, kernel, grid)
    for capability in capabilities:
        driver.set_active(AbsentGPU(capability))
        for channels, name in variants(thoroughly):
            march_there_and_back(channels, *WHOLE_NUMBERS[name])
            for row in made:
                print(json.dumps({"for": capability, "channels": channels, "whole": name, **row}))
            made.clear()


if __name__ == "__main__":
    words = sys.argv[1:]
    main("--thoroughly" in words, [int(word) for word in words if word.isdigit()])
