"""Where the time of one optimisation step goes, against the U-Net call alone, in one run.

python benchmarks/bench_step.py [--model menagerie|FOLDER] [--out FILE.json] [--steps 60]
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
import tyro

from adapt_sd import StableDiffusion, load_pipeline
from benchmarks.machine import describe, write_json
from sjc_debiased.clipping import ClipSchedule
from sjc_debiased.models import choose_model
from sjc_debiased.optimize import Scene, Settings, draw_noise, make_optimizer, optimize_step
from voxnerf.cameras import sample_sjc_cameras
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.render import render


def main(
    model: str = "menagerie",
    steps: int = 60,
    warmup_steps: int = 300,
    precision: str = "bfloat16",
    out: Path | None = None,
) -> None:
    """Print the table; write it as JSON with the machine to `out`.

    Args:
        warmup_steps: steps before the first timed one, so that the scene is no longer fog.
    """
    choice = choose_model(model, "cpu")
    profile = choice.profile
    denoiser = StableDiffusion(load_pipeline(choice.location), torch.device("cpu"), getattr(torch, precision))
    settings = Settings(
        n_steps=warmup_steps + steps,
        guidance=profile.guidance,
        emptiness_weight=profile.emptiness_weight,
        background_lr=profile.background_lr,
        clip=ClipSchedule(profile.clip_start, profile.clip_end),
    )
    config = GridConfig(resolution=profile.resolution, half_size=profile.half_size)
    grid = VoxelGrid(config, torch.Generator().manual_seed(0))
    optimizer = make_optimizer(grid, settings)
    cameras = sample_sjc_cameras(settings.n_steps, denoiser.latent_size, np.random.RandomState(0))
    text = denoiser.embed(["front view a smiling cat"])
    scene = Scene(grid, optimizer, cameras, [text] * settings.n_steps, settings, seed=0)
    guidance = torch.tensor([profile.guidance])
    rows: dict[str, list[float]] = {name: [] for name in ("step", "U-Net", "render", "backward", "Adamax")}

    def clock(name: str, began: float) -> None:
        rows[name].append(1e3 * (time.perf_counter() - began))

    for step in range(settings.n_steps):
        camera = cameras[step]
        sigma, noise = draw = draw_noise(scene, denoiser)
        began = time.perf_counter()
        optimize_step([scene], [draw], denoiser.denoise)
        if step < warmup_steps:
            continue
        clock("step", began)
        began = time.perf_counter()
        seen = render(grid, camera)
        clock("render", began)
        noised = seen.latent.detach() + sigma * noise
        began = time.perf_counter()
        denoiser.denoise(noised, sigma[None], text, guidance)
        clock("U-Net", began)
        optimizer.zero_grad()
        began = time.perf_counter()
        torch.autograd.backward([seen.latent, seen.emptiness], [torch.ones_like(seen.latent), None])
        clock("backward", began)
        before = [p.detach().clone() for p in grid.parameters()]
        began = time.perf_counter()
        optimizer.step()
        clock("Adamax", began)
        with torch.no_grad():
            for param, value in zip(grid.parameters(), before):
                param.copy_(value)

    median = {name: statistics.median(values) for name, values in rows.items()}
    median["rest"] = median["step"] - sum(v for k, v in median.items() if k != "step")
    ratio = statistics.median(a / b for a, b in zip(rows["step"], rows["U-Net"]))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("| part | ms (median) |\n|---|---|")
    for name, value in median.items():
        print(f"| {name} | {value:.1f} |")
    print(f"\nstep / U-Net = {ratio:.2f}; peak memory {peak_mib:.0f} MiB")
    if out:
        figures = {"median_ms": median, "step_over_unet": ratio, "peak_mib": peak_mib}
        write_json(out, {"machine": describe(), "model": choice.name, **figures})


if __name__ == "__main__":
    tyro.cli(main)
