"""What the benchmarks share: the scene they time, and what they write down beside their figures."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import torch

from adapt_sd import StableDiffusion
from sjc_debiased.clipping import ClipSchedule
from sjc_debiased.optimize import Scene, Settings, make_optimizer
from sjc_debiased.profiles import Profile
from voxnerf.cameras import sample_sjc_cameras
from voxnerf.grid import GridConfig, VoxelGrid


def describe(device: torch.device | str = "cpu") -> dict:
    """Return processor or GPU, threads and version."""
    place = torch.device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.processor()
    return {
        "device": name or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def write_json(path: Path, figures: dict) -> None:
    """Write figures as indented JSON."""
    path.write_text(json.dumps(figures, indent=2) + "\n")


def make_scene(profile: Profile, denoiser: StableDiffusion, n_steps: int, seed: int = 0) -> Scene:
    """Return a scene of a model at its start, as D-SDS optimises it."""
    settings = Settings(
        n_steps=n_steps,
        lr=profile.lr,
        guidance=profile.guidance,
        emptiness_weight=profile.emptiness_weight,
        background_lr=profile.background_lr,
        clip=ClipSchedule(profile.clip_start, profile.clip_end),
    )
    config = GridConfig(resolution=profile.resolution, half_size=profile.half_size)
    grid = VoxelGrid(config, torch.Generator().manual_seed(seed)).to(denoiser.device)
    cameras = sample_sjc_cameras(n_steps, denoiser.latent_size, np.random.RandomState(seed))
    text = denoiser.embed(["front view of a smiling cat"])
    return Scene(grid, make_optimizer(grid, settings), cameras, [text] * n_steps, settings, seed)
