"""The class of a new run's field is chosen here; `refine` goes on with another.

All others know the contract, `voxnerf.field.Field`.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.options.config import Resolved
from sjc_debiased.settings import Viewing
from voxnerf.field import Field
from voxnerf.grid import VoxelGrid
from voxnerf.settings import GridConfig, Kernel
from voxnerf.shaded_grid import ShadedGrid

_BALL = 0.6  # its radius, as a share of the box's half size


def make_field(
    config: GridConfig, viewing: Viewing, denoiser: Denoiser, generator: torch.Generator | None = None
) -> VoxelGrid:
    """Return a field on the 2D model's device: of RGB where the steps light it, else of pictures.

    Args:
        denoiser: whose pictures they are.
        generator: draws the first colors, on the CPU.
    """
    if viewing.light:
        grid = ShadedGrid(replace(config, channels=3, density_shift=0.0), generator)
    else:
        grid = VoxelGrid(replace(config, channels=denoiser.channels), generator)
    return grid.to(denoiser.device)


def build_field(run: Resolved, denoiser: Denoiser, kernel: Kernel = "auto") -> Field:
    """Build a run's first field on the device of its 2D model.

    Args:
        kernel: draws it (`prepare.try_kernel`).
    """
    field = make_field(run.field, run.viewing, denoiser, torch.Generator().manual_seed(run.seed))
    field.kernel = kernel
    return field


@torch.no_grad()
def build_ball(run: Resolved, denoiser: Denoiser, kernel: Kernel = "auto") -> Field:
    """Build an opaque ball in the middle of nothing, of a run's own size, as `build_field` does."""
    ball = make_field(run.field, run.viewing, denoiser, torch.Generator().manual_seed(run.seed))
    ball.kernel = kernel
    place = torch.linspace(-1, 1, ball.config.resolution, device=denoiser.device)
    distance = (place[:, None, None] ** 2 + place[:, None] ** 2 + place**2).sqrt()
    ball.density.copy_(torch.where(distance < _BALL, 20.0, -20.0)[None, None])
    ball.color.clamp_(-1, 1)
    return ball
