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
from voxnerf.grid import VoxelGrid, first_mean
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
        means = {name: _as_rgb(name, config, denoiser) for name in ("color_mean", "background_mean")}
        grid = ShadedGrid(replace(config, channels=3, density_shift=0.0, **means), generator)
    else:
        grid = VoxelGrid(replace(config, channels=denoiser.channels), generator)
    return grid.to(denoiser.device)


def _as_rgb(name: str, config: GridConfig, denoiser: Denoiser) -> tuple[float, ...]:
    """Return a mean of first colors as a lit scene holds it: what its picture shows, before its sigmoid.

    Raises:
        ValueError: the 2D model's pictures have another number of channels.
    """
    if not getattr(config, name):
        return ()
    mean = first_mean(name, replace(config, channels=denoiser.channels))[..., 0].to(denoiser.device)
    image = denoiser.decode(mean.expand(-1, -1, denoiser.size, denoiser.size))
    return tuple((image.mean((0, 2, 3)) / 2 + 0.5).clamp(0.01, 0.99).logit().tolist())


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
