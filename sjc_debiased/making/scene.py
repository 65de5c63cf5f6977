"""The scene of a run at its start: the first grid, and for every step its camera and its prompt."""

from __future__ import annotations

from dataclasses import replace

import torch

from prompts.debias import ViewPrompts
from sjc_debiased.denoiser import Conditioning, Denoiser
from sjc_debiased.guidance.build import build_guidance
from sjc_debiased.making.viewing import draw_views
from sjc_debiased.optimize import Scene, make_optimizer
from sjc_debiased.options.config import Resolved
from sjc_debiased.settings import Viewing
from voxnerf.grid import VoxelGrid
from voxnerf.settings import GridConfig, Kernel
from voxnerf.shaded_grid import ShadedGrid


def build_scene(
    run: Resolved, prompts: ViewPrompts, denoiser: Denoiser, kernel: Kernel = "auto"
) -> tuple[Scene, list[str]]:
    """Build a run's scene on the device of its 2D model; return it with the view of every step.

    Args:
        kernel: renders it (`prepare.try_kernel`).
    """
    settings, grid = run.settings, build_grid(run, denoiser, kernel)
    cameras = draw_views(run.viewing, settings.n_steps, settings.schedule_steps, denoiser.size, run.seed)
    scheme = run.prompting.scheme
    views = [scheme.view(c.azimuth_deg, c.elevation_deg) for c in cameras]
    told = _condition(prompts, denoiser)
    cond_of_step = [told[view] for view in views]
    guidance = build_guidance(run, denoiser, cameras)
    optimizer = make_optimizer(grid, settings)
    return Scene(grid, optimizer, cameras, cond_of_step, guidance, settings, run.seed), views


def build_grid(run: Resolved, denoiser: Denoiser, kernel: Kernel = "auto") -> VoxelGrid:
    """Build a run's first grid on the device of its 2D model."""
    generator = torch.Generator().manual_seed(run.seed)
    grid = make_grid(run.field, run.viewing, denoiser.channels, generator).to(denoiser.device)
    grid.kernel = kernel
    return grid


def make_grid(
    config: GridConfig, viewing: Viewing, channels: int, generator: torch.Generator | None = None
) -> VoxelGrid:
    """Return a grid on the CPU: of RGB where the steps light it, else of the 2D model's own pictures.

    Args:
        channels: of the 2D model.
    """
    if viewing.light:
        return ShadedGrid(replace(config, channels=3, density_shift=0.0), generator)
    return VoxelGrid(replace(config, channels=channels), generator)


def _condition(prompts: ViewPrompts, denoiser: Denoiser) -> dict[str, Conditioning]:
    """Return what the 2D model is told about every view, each distinct prompt read once."""
    distinct = list(dict.fromkeys(prompts.sent.values()))
    rows = dict(zip(distinct, denoiser.condition(distinct).split()))
    return {view: rows[prompt] for view, prompt in prompts.sent.items()}
