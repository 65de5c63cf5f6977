"""Time of a step and peak memory of each framework, as a ratio to SJC's, in one run.

python benchmarks/bench_frameworks.py [--model menagerie|FOLDER] [--device cpu|cuda] [--out FILE]

Short by default. For memory at Stable Diffusion's size: random_sd15.py DIR,
then --model DIR --rounds 1 --steps 1 --vsd_model lora (that needs pip install peft).
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import tyro

from benchmarks.common import describe, peak_mib, write_json
from sjc_debiased.denoiser import Denoiser
from sjc_debiased.making.estimate import throwaway_scene, wait_for
from sjc_debiased.models.choose import Choice, choose_model
from sjc_debiased.models.loading import load_model
from sjc_debiased.models.machine import choose_machine
from sjc_debiased.models.pipelines import pipeline_of
from sjc_debiased.optimize import Scene, optimize_step
from sjc_debiased.options.command import Basic, MethodOptions, Options, SJCOptions
from sjc_debiased.options.config import resolve
from sjc_debiased.options.presets import PresetName
from sjc_debiased.settings import VSDModel

LATENT: dict[str, PresetName] = {
    **dict.fromkeys(("sjc", "sds", "vsd"), "score-only"),
    "dreamfusion-sd": "dreamfusion-sd-score-only",
    "magic3d": "magic3d-score-only",
}
PIXEL: dict[str, PresetName] = {
    **dict.fromkeys(("sjc", "sds"), "score-only"),
    "dreamfusion-if": "dreamfusion-if-score-only",
}
"""The frameworks of a family of models, and the preset of each, clipped."""


def scene_of(name: str, choice: Choice, denoiser: Denoiser, n_steps: int, vsd_model: VSDModel) -> Scene:
    """Return a framework's scene with a model's own settings, clipped, and lit from the second step on."""
    form = name if name in ("sds", "vsd") else None
    # Over a schedule of one step, the first alone shows the albedo without a light.
    sjc = SJCOptions(guidance_form=form, vsd_model=vsd_model if form == "vsd" else None, schedule_steps=1)
    basic = Basic(prompt=("a smiling cat",), n_steps=n_steps)
    (run,) = resolve(
        Options(basic, MethodOptions((LATENT | PIXEL)[name]), sjc), choice.profile, "throw-away", ""
    )
    return throwaway_scene(run, denoiser)


def main(
    model: str = "menagerie",
    device: str = "cpu",
    precision: str = "auto",
    rounds: int = 3,
    steps: int = 4,
    only: tuple[str, ...] = (),
    vsd_model: VSDModel = "copy",
    out: Path | None = None,
) -> None:
    """Print the table; write it as JSON with the machine to `out`.

    First each framework's peak memory, the model's weights in it, over one step with no other scene there;
    then times, in turn, `steps` steps each for `rounds` rounds, so that drift meets all of them.

    Args:
        only: frameworks; all that the model can run without it. sjc is always among them.
        vsd_model: what VSD learns: a copy of the U-Net, or a LoRA on its attention.
    """
    choice, place = choose_model(model, device), torch.device(device)
    dtype = getattr(torch, choose_machine(device, precision).precision)
    denoiser = load_model(choice.location, place, dtype)
    names = PIXEL if pipeline_of(choice.location).pixels else LATENT
    names = [name for name in names if not only or name in ("sjc", *only)]
    peaks = {}
    for name in names:
        scene = scene_of(name, choice, denoiser, 3, vsd_model)
        take(scene, denoiser, 2)
        peaks[name] = peak_mib(lambda one=scene: take(one, denoiser, 1), place)
    del scene
    n_steps = 2 + rounds * steps
    scenes = {name: scene_of(name, choice, denoiser, n_steps, vsd_model) for name in names}
    for scene in scenes.values():
        take(scene, denoiser, 2)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, scene in scenes.items():
            began = time.perf_counter()
            take(scene, denoiser, steps)
            times[name].append(1e3 * (time.perf_counter() - began) / steps)
    rows = []
    print("| framework | ms a step | against SJC | peak MiB | against SJC |\n|---|---|---|---|---|")
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(times[name], times["sjc"]))
        peak, usual = peaks[name], peaks["sjc"]
        memory = peak / usual if peak and usual else None
        rows.append({"framework": name, "step_ms": statistics.median(times[name]), "step_ratio": ratio})
        rows[-1] |= {"peak_mib": peak, "peak_ratio": memory}
        shown = (f"{peak:.0f}", f"{memory:.2f}") if peak and memory else ("–", "–")
        print(f"| {name} | {rows[-1]['step_ms']:.1f} | {ratio:.2f} | {shown[0]} | {shown[1]} |")
    if out:
        write_json(out, {"machine": describe(place), "model": choice.name, "rows": rows})


def take(scene: Scene, denoiser: Denoiser, n_steps: int) -> None:
    """Do steps of a scene, to their end on the device."""
    for _ in range(n_steps):
        optimize_step([scene], denoiser)
    wait_for(denoiser.device)


if __name__ == "__main__":
    tyro.cli(main)
