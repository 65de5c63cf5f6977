"""What `--viewer` costs a step while nobody looks, in one run.

python benchmarks/bench_viewer.py [--model menagerie|FOLDER] [--device cpu|cuda] [--out FILE.json]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import tyro

from benchmarks.common import describe, make_scene, write_json
from sjc_debiased.folder.runs import OPTIONS
from sjc_debiased.models.choose import choose_model
from sjc_debiased.models.loading import load_model
from sjc_debiased.models.machine import choose_machine
from sjc_debiased.optimize import optimize_step
from sjc_debiased.viewer import Viewer


def main(
    model: str = "menagerie",
    device: str = "cpu",
    precision: str = "auto",
    warmup_steps: int = 60,
    rounds: int = 7,
    steps: int = 20,
    out: Path | None = None,
) -> None:
    """Print the table; write it as JSON with the machine to `out`.

    Steps with a viewer and without one take turns, `steps` of each, for `rounds` rounds; the viewer is opened
    before its turn and closed after, so that its server is there in its turn alone.
    """
    choice, place = choose_model(model, device), torch.device(device)
    dtype = getattr(torch, choose_machine(device, precision).precision)
    denoiser = load_model(choice.location, place, dtype)
    n_steps = warmup_steps + 2 * rounds * steps
    scene = make_scene(choice.profile, denoiser, n_steps)

    def ms_a_step(n: int, look: Callable[[Any], object]) -> float:
        times = []
        for _ in range(n):
            began = time.perf_counter()
            (step,) = optimize_step([scene], denoiser)
            look(step)
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            times.append(1e3 * (time.perf_counter() - began))
        return statistics.median(times)

    ms_a_step(warmup_steps, lambda step: None)
    found: dict[str, list[float]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json(folder / OPTIONS, {"resolved": {"n_steps": n_steps, "prompt": "a cat"}})
        run: Any = SimpleNamespace(
            scene=scene, folder=folder, views=["front"] * n_steps, remaining_steps=n_steps
        )
        for number in range(rounds):
            for side in ("with", "without") if number % 2 else ("without", "with"):
                viewer = Viewer(denoiser) if side == "with" else None

                def look(step: Any, viewer: Viewer | None = viewer) -> None:
                    if viewer:
                        viewer.between_steps(run, step)

                found[side].append(ms_a_step(steps, look))
                if viewer:
                    assert viewer.page, "it has failed"
                    viewer.page.close()
    ratios = [a / b for a, b in zip(found["with"], found["without"])]
    print("| viewer | ms a step (median) |\n|---|---|")
    for side, values in found.items():
        print(f"| {side} | {statistics.median(values):.1f} |")
    print(
        f"\nwith / without = {statistics.median(ratios):.3f} (rounds: {min(ratios):.3f} to {max(ratios):.3f})"
    )
    if out:
        write_json(out, {"machine": describe(place), "model": choice.name, "ms": found, "ratios": ratios})


if __name__ == "__main__":
    tyro.cli(main)
