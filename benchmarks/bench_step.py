"""Where the time of one optimisation step goes, against the U-Net call alone, in one run.

python benchmarks/bench_step.py [--model menagerie|FOLDER] [--device cpu|cuda] [--out FILE.json] [--steps 60]
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import tyro

from benchmarks.common import describe, make_scene, write_json
from sjc_debiased.models.choose import choose_model
from sjc_debiased.models.loading import load_model
from sjc_debiased.models.machine import choose_machine
from sjc_debiased.optimize import optimize_step


def main(
    model: str = "menagerie",
    device: str = "cpu",
    steps: int = 60,
    warmup_steps: int = 300,
    precision: str = "auto",
    out: Path | None = None,
) -> None:
    """Print the table; write it as JSON with the machine to `out`.

    Args:
        warmup_steps: steps before the first timed one, so that the scene is no longer fog.
    """
    choice, place = choose_model(model, device), torch.device(device)
    dtype = getattr(torch, choose_machine(device, precision).precision)
    denoiser = load_model(choice.location, place, dtype)
    scene = make_scene(choice.profile, denoiser, warmup_steps + steps)
    grid, optimizer, cond = scene.field, scene.optimizer, scene.cond_of_step[0]
    scale = torch.tensor([choice.profile.guidance])
    rows: dict[str, list[float]] = {name: [] for name in ("step", "U-Net", "render", "backward", "Adamax")}

    def now() -> float:
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        return time.perf_counter()

    def clock(name: str, began: float) -> None:
        rows[name].append(1e3 * (now() - began))

    for step, camera in enumerate(scene.cameras):
        began = now()
        (done,) = optimize_step([scene], denoiser)
        if step < warmup_steps:
            continue
        clock("step", began)
        began = now()
        seen = grid.render(camera)
        clock("render", began)
        noised = seen.latent.detach() + done.sigma * torch.randn_like(seen.latent)
        began = now()
        denoiser.denoise(noised, done.sigma[None], cond, scale)
        clock("U-Net", began)
        optimizer.zero_grad()
        began = now()
        torch.autograd.backward([seen.latent, seen.emptiness], [torch.ones_like(seen.latent), None])
        clock("backward", began)
        before = [p.detach().clone() for p in grid.parameters()]
        began = now()
        optimizer.step()
        clock("Adamax", began)
        with torch.no_grad():
            for param, value in zip(grid.parameters(), before):
                param.copy_(value)

    median = {name: statistics.median(values) for name, values in rows.items()}
    median["rest"] = median["step"] - sum(v for k, v in median.items() if k != "step")
    ratio = statistics.median(a / b for a, b in zip(rows["step"], rows["U-Net"]))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if place.type == "cuda":
        peak_mib = torch.cuda.max_memory_allocated(place) / 2**20
    print("| part | ms (median) |\n|---|---|")
    for name, value in median.items():
        print(f"| {name} | {value:.1f} |")
    print(f"\nstep / U-Net = {ratio:.2f}; peak memory {peak_mib:.0f} MiB")
    if out:
        figures = {"median_ms": median, "step_over_unet": ratio, "peak_mib": peak_mib}
        write_json(out, {"machine": describe(place), "model": choice.name, **figures})


if __name__ == "__main__":
    tyro.cli(main)
