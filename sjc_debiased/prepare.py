"""What a run needs before its first step: the prompt of every view, the 2D model, and its folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

from adapt_sd import StableDiffusion, check_pipeline_folder, check_prompts, load_pipeline
from prompts.debias import ViewPrompts, debias_prompt, plain_prompts
from prompts.masked_lm import Bert
from prompts.views import view_scheme
from sjc_debiased.checkpoints import newest_state
from sjc_debiased.config import MeshFormat, OptionError, Resolved
from sjc_debiased.models import Choice
from sjc_debiased.record import record
from sjc_debiased.runs import FINISHED, FinishedError, find_or_create_run, find_run, locked
from sjc_debiased.session import Session


def plan_prompts(resolved: Resolved, choice: Choice, local_files_only: bool) -> ViewPrompts:
    """Return the prompt of every view, after checking that the text encoder can take them.

    Raises:
        OptionError: a prompt is too long, or a model is out of reach.
    """
    scheme = view_scheme(resolved.views, resolved.front_half_deg)
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


@contextmanager
def open_session(
    run: Resolved,
    choice: Choice,
    denoiser: StableDiffusion,
    run_root: Path,
    command: list[str],
    local_files_only: bool = False,
    mesh_formats: tuple[MeshFormat, ...] = ("glb",),
    resume: Path | None = None,
) -> Iterator[Session]:
    """Lock the folder of a run, new or begun, and hold its session.

    Args:
        run_root: the parent in which the run's folder is found or created.
        command: the command line, for the record.
        resume: the run's folder, where it is known; its options must have been compared.

    Raises:
        OptionError: a prompt cannot be used.
        FinishedError: another process has finished the run meanwhile.
        RunError: the folder is another process's.
    """
    prompts = plan_prompts(run, choice, local_files_only)
    folder = resume or find_run(run_root, run)
    if folder is None:
        folder = find_or_create_run(run_root, run, record(command, prompts, choice.location, run.device))
    with locked(folder):
        if (folder / FINISHED).exists():
            raise FinishedError(f"finished meanwhile by another process: {folder}")
        state = newest_state(folder)
        print(f"run folder: {folder}" + (f", resuming at step {state[0]} of {run.n_steps}" if state else ""))
        session = Session(run, choice.profile, prompts, denoiser, folder, state, mesh_formats)
        try:
            yield session
        finally:
            with suppress(OSError):  # what it could not write, it could not write before either
                session.close()
