"""What the benchmarks share: the scene they time, and what they write down beside their figures."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import torch

from adapt_sd import StableDiffusion
from sjc_debiased.estimate import sample_run, throwaway_scene
from sjc_debiased.optimize import Scene
from sjc_debiased.profiles import Profile


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
    return throwaway_scene(sample_run(profile, n_steps, seed), denoiser)
