"""What was made: the scene of a run folder, and the 2D model that decodes it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import FINISHED, RunError
from sjc_debiased.making.fields import make_field
from sjc_debiased.models.choose import choose_model, fingerprint, weights_of
from sjc_debiased.models.fingerprints import OUT_OF_REACH
from sjc_debiased.models.loading import load_model
from sjc_debiased.options.config import part
from sjc_debiased.settings import Viewing
from voxnerf.field import Field
from voxnerf.settings import GridConfig
from voxnerf.trial import usable_kernel


@cache
def model_of(location: str, device: str, precision: str) -> Denoiser:
    """Return the 2D model whose decoder turns latents into images, loaded once."""
    return load_model(location, torch.device(device), getattr(torch, precision))


def load_scene(
    folder: Path, device: str = "cpu", stopped: bool = False, asked: bool = False
) -> tuple[dict, Field, Denoiser]:
    """Return the resolved options, the final field and the model of a finished run.

    Args:
        stopped: take the newest field of a run that is not finished, too.
        asked: the model is asked for more than its decoder; then it must have no LoRA, which is not loaded,
            and is as precise as in the run, but on a CPU, where it is always float32.

    Raises:
        RunError: the run is not finished, its checkpoint is gone, its model's weights have changed, or it has
            a LoRA and the model will be asked.
    """
    run = RunReader(folder)
    if not stopped and not run.finished:
        raise RunError(f"the run must be finished. {folder} is not. Finish it with its own command.")
    options, checkpoint = run.options, run.checkpoint
    if checkpoint is None or (not stopped and checkpoint.step != options["n_steps"]):
        raise RunError(
            f"a finished run keeps its last checkpoint. {folder} has none. Delete {FINISHED} there and run "
            "its command again."
        )
    location = choose_model(options["model"], device).location
    found = fingerprint(location)
    if found == OUT_OF_REACH:
        raise RunError(
            f"a run is shown through the decoder it was made with. {options['model']}, which made {folder}, "
            f"is neither a folder seen from {Path.cwd()} nor in the hub's cache, and the hub is silent. "
            "Connect, or go to the folder from which the run was made."
        )
    if weights_of(options["fingerprint"]) != found:
        raise RunError(
            f"a run is shown through the decoder it was made with. The weights of {options['model']} have "
            f"changed since {folder} was made. Make the run again."
        )
    if asked and weights_of(options["fingerprint"]) != options["fingerprint"]:
        raise RunError(
            f"a run is gone on with by the model that it was made with. {folder} was made with a LoRA, which "
            "is not loaded here. Make a run without --lora."
        )
    precision = "float32" if device == "cpu" else (asked and run.precision) or "float16"
    denoiser = model_of(location, device, precision)
    field = make_field(part(GridConfig, options), part(Viewing, options), denoiser)
    prefix = "grid."
    tensors = {k.removeprefix(prefix): v for k, v in run.tensors().items() if k.startswith(prefix)}
    field.load_state_dict(tensors)
    field.kernel, _ = usable_kernel(field)
    return options, field, denoiser
