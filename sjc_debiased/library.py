"""The two verbs of the library: load a 2D model, and make an object with it, without a run folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prompts.debias import ViewPrompts
from sjc_debiased.denoiser import Denoiser
from sjc_debiased.making.prepare import load_denoiser, plan_prompts, try_kernel
from sjc_debiased.making.scene import build_scene
from sjc_debiased.making.session import DivergedError
from sjc_debiased.models.choose import check_words, choose_model, identify
from sjc_debiased.models.machine import choose_machine
from sjc_debiased.optimize import Scene, optimize
from sjc_debiased.options.command import Basic, MethodOptions, Options, PrecisionName
from sjc_debiased.options.config import resolve
from sjc_debiased.options.presets import PRESETS, PresetName

_FLAGS = re.compile(r"--(?=(prompt|preset|seed|n_steps|model|device|precision|local_files_only)\b)")


def load(model: str = "auto", device: str = "auto", precision: PrecisionName = "auto") -> Denoiser:
    """Load a 2D model, as the command does.

    Args:
        model: "auto", "menagerie", "menagerie-pixels", "sd15", "sd21", a diffusers folder, a .safetensors
            file, or a hub name. "auto" is Stable Diffusion 1.5 where there is CUDA, else the menagerie.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: of its U-Net and text encoder; "auto" is the device's own.

    Raises:
        ValueError: an argument is none of these, or the model is out of reach or not to be used.
    """
    with speaking_of_arguments():
        machine = choose_machine(device, precision)
        return load_denoiser(machine, choose_model(model, machine.device), local_files_only=False)


def generate(
    prompt: str,
    preset: PresetName = "dsds",
    seed: int = 0,
    n_steps: int | None = None,
    model: str = "auto",
    denoiser: Denoiser | None = None,
) -> tuple[Scene, ViewPrompts]:
    """Make an object, the one that the command makes of these options; no file is written.

    Args:
        prompt: what to make.
        preset: the method, by the paper's table rows (`presets.PRESETS`).
        seed: decides the cameras, the first grid, and the noise of every step.
        n_steps: optimisation steps; None for the model's own, 10,000 of Stable Diffusion.
        model: as `load` has it. Its profile says the grid, the bounds of clipping and the like.
        denoiser: what `load(model)` returned, so that several objects share it; `model` is then named here
            too. None loads it.

    Returns:
        The scene after its last step, whose `field` is the object, and what was sent for each view.

    Raises:
        ValueError: an argument is out of range, or the model is out of reach or not to be used.
        DivergedError: the object did not stay finite.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be {', '.join(PRESETS)}. It is {preset!r}. Choose one.")
    if denoiser and model == "auto":  # which of them is loaded, only its name says
        raise ValueError("model must name what denoiser is. It is 'auto'. Write what `load` was given.")
    with speaking_of_arguments():
        machine = choose_machine(str(denoiser.device) if denoiser else "auto")
        choice = choose_model(model, machine.device)
        basic = Basic((prompt,), model=model, seed=seed, n_steps=n_steps)
        (run,) = resolve(Options(basic, MethodOptions(preset)), choice.profile, choice.name, identify(choice))
        check_words(prompt, choice)
        prompts = plan_prompts(run, choice, local_files_only=False)
        if denoiser is None:
            denoiser = load_denoiser(machine, choice, local_files_only=False, prompts=prompts.sent.values())
        kernel = try_kernel(machine, "auto", run, denoiser).kernel
    scene, _ = build_scene(run, prompts, denoiser, kernel)
    for _ in optimize(scene, denoiser):
        pass
    if not all(torch.isfinite(values).all() for _, values in scene.field.named_parameters()):
        raise DivergedError("the scene must stay finite. It did not. Load the model with precision float32.")
    return scene, prompts


@contextmanager
def speaking_of_arguments() -> Iterator[None]:
    """Let errors speak of a function's arguments where the command's speak of its options."""
    try:
        yield
    except ValueError as error:
        raise ValueError(_FLAGS.sub("", str(error))) from None
