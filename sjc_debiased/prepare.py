"""What a run needs before its first step: the prompt of every view, and the 2D model."""

from __future__ import annotations

from functools import cache

import torch

from adapt_sd import StableDiffusion, check_pipeline_folder, check_prompts, load_pipeline
from prompts.debias import ViewPrompts, debias_prompt, plain_prompts
from prompts.masked_lm import Bert
from prompts.views import VIEW_SCHEMES
from sjc_debiased.config import OptionError, Resolved
from sjc_debiased.models import Choice


def plan_prompts(resolved: Resolved, choice: Choice, local_files_only: bool) -> ViewPrompts:
    """Return the prompt of every view, after checking that the text encoder can take them.

    Raises:
        OptionError: a prompt is too long, or a model is out of reach.
    """
    scheme = VIEW_SCHEMES[resolved.views]
    plain = plain_prompts(resolved.prompt, scheme)
    try:
        check_pipeline_folder(choice.location)
        check_prompts(choice.location, list(plain.sent.values()), local_files_only)
        if resolved.masked_lm is None:
            return plain
        masked_lm = _masked_lm(choice.masked_lm(resolved.masked_lm), local_files_only)
        return debias_prompt(resolved.prompt, masked_lm, scheme, resolved.keep)
    except (OSError, ValueError) as error:
        raise OptionError(str(error)) from error


@cache
def _masked_lm(location: str, local_files_only: bool) -> Bert:
    return Bert(location, local_files_only)


def load_denoiser(resolved: Resolved, choice: Choice, local_files_only: bool) -> StableDiffusion:
    """Load the 2D model of a run.

    Raises:
        OptionError: its weights are out of reach, or it is none that the adapter knows.
    """
    try:
        pipeline = load_pipeline(choice.location, local_files_only)
        dtype = getattr(torch, resolved.precision)
        return StableDiffusion(pipeline, torch.device(resolved.device), dtype)
    except (OSError, ValueError) as error:
        raise OptionError(str(error)) from error
