"""Objects per hour against the number of scenes in one U-Net call, in one run.

python benchmarks/bench_pack.py [--model menagerie|FOLDER] [--device cpu|cuda] [--packs 1 2 4 8] [--out FILE]
"""

from __future__ import annotations

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
    precision: str = "auto",
    packs: tuple[int, ...] = (1, 2, 4, 8),
    warmup_steps: int = 200,
    rounds: int = 5,
    steps: int = 20,
    out: Path | None = None,
) -> None:
    """Print the table; write it as JSON with the machine to `out`.

    The packs take turns, `steps` steps each, for `rounds` rounds, so that a slow moment of the machine
    meets all of them. Objects per hour are those of the optimisation alone, at the model's own number
    of steps; turntable and mesh take the same time whatever the pack.
    """
    choice = choose_model(model, device)
    profile, place = choice.profile, torch.device(device)
    dtype = getattr(torch, choose_machine(device, precision).precision)
    denoiser = load_model(choice.location, place, dtype)
    n_steps = warmup_steps + rounds * steps * len(packs)
    scenes = [make_scene(profile, denoiser, n_steps, seed) for seed in range(max(packs))]
    for _ in range(warmup_steps):
        for scene in scenes:
            optimize_step([scene], denoiser)
    seconds: dict[int, list[float]] = {k: [] for k in packs}
    for _ in range(rounds):
        for k in packs:
            began = time.perf_counter()
            for _ in range(steps):
                optimize_step(scenes[:k], denoiser)
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            seconds[k].append((time.perf_counter() - began) / steps)
    print(
        "| scenes in a call | ms a step | ms a step and scene | objects an hour | against 1 |\n"
        "|---|---|---|---|---|"
    )
    rows = []
    for k in packs:
        step = statistics.median(seconds[k])
        hourly = 3600 * k / (step * profile.n_steps)
        gain = statistics.median(a / packs[0] / (b / k) for a, b in zip(seconds[packs[0]], seconds[k]))
        rows.append({"pack": k, "step_ms": 1e3 * step, "objects_per_hour": hourly, "gain": gain})
        print(f"| {k} | {1e3 * step:.1f} | {1e3 * step / k:.1f} | {hourly:.0f} | {gain:.2f} |")
    if out:
        write_json(out, {"machine": describe(place), "model": choice.name, "rows": rows})


if __name__ == "__main__":
    tyro.cli(main)
