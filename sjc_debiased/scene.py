"""The scene of a run at its start: the first grid, and for every step its camera and its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from prompts.debias import ViewPrompts
from prompts.views import view_scheme
from sjc_debiased.clipping import ClipSchedule
from sjc_debiased.config import Resolved
from sjc_debiased.denoiser import Conditioning, Denoiser
from sjc_debiased.guidance.build import build_guidance
from sjc_debiased.optimize import Scene, Settings, make_optimizer
from voxnerf.cameras import Camera, sample_sjc_cameras
from voxnerf.grid import GridConfig, Kernel, VoxelGrid


def build_scene(
    run: Resolved, prompts: ViewPrompts, denoiser: Denoiser, kernel: Kernel = "auto"
) -> tuple[Scene, list[str]]:
    """Build a run's scene on the device of its 2D model; return it with the view of every step.

    Args:
        kernel: renders it (`prepare.try_kernel`).
    """
    settings, grid = _settings(run), build_grid(run, denoiser, kernel)
    rng = np.random.RandomState(run.seed)
    cameras: list[Camera] = []
    while len(cameras) < run.n_steps:  # drawn by schedules: more steps change none of the first
        cameras += sample_sjc_cameras(run.schedule_steps, denoiser.size, rng)
    cameras = cameras[: run.n_steps]
    scheme = view_scheme(run.views, run.front_half_deg)
    views = [scheme.view(c.azimuth_deg, c.elevation_deg) for c in cameras]
    told = _condition(prompts, denoiser)
    cond_of_step = [told[view] for view in views]
    guidance = build_guidance(run, denoiser, cameras)
    optimizer = make_optimizer(grid, settings)
    return Scene(grid, optimizer, cameras, cond_of_step, guidance, settings, run.seed), views


def build_grid(run: Resolved, denoiser: Denoiser, kernel: Kernel = "auto") -> VoxelGrid:
    """Build a run's first grid on the device of its 2D model."""
    config = grid_config(vars(run), denoiser.channels)
    grid = VoxelGrid(config, torch.Generator().manual_seed(run.seed)).to(denoiser.device)
    grid.kernel = kernel
    return grid


def grid_config(options: Mapping[str, Any], channels: int) -> GridConfig:
    """Return what a run's resolved options, new or of `RunReader.options`, say of its grid.

    Args:
        channels: of the 2D model.
    """
    return GridConfig(
        resolution=options["resolution"],
        half_size=options["half_size"],
        channels=channels,
        background_mapping=options["background"],
        start=options["start"],
        color_scale=options["color_scale"],
    )


def _settings(r: Resolved) -> Settings:
    same = vars(r).keys() & Settings.__dataclass_fields__.keys()
    clip = ClipSchedule(r.clip_start, r.clip_end)
    return Settings(**{name: getattr(r, name) for name in same}, clip=clip)


def _condition(prompts: ViewPrompts, denoiser: Denoiser) -> dict[str, Conditioning]:
    """Return what the 2D model is told about every view, each distinct prompt read once."""
    distinct = list(dict.fromkeys(prompts.sent.values()))
    rows = dict(zip(distinct, denoiser.condition(distinct).split()))
    return {view: rows[prompt] for view, prompt in prompts.sent.items()}
