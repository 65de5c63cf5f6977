"""What a run needs before its first step: the prompt of every view, the 2D model, and its folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from prompts.debias import ViewPrompts, debias_prompt, plain_prompts
from prompts.masked_lm import Bert, find_masked_lm
from sjc_debiased.clipping import within
from sjc_debiased.denoiser import Denoiser
from sjc_debiased.folder.checkpoints import newest_state
from sjc_debiased.folder.identity import (
    check_same_prompts,
    extend_run,
    find_or_create_run,
    find_run,
    is_finished,
)
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import FinishedError, RunError, locked
from sjc_debiased.making.by_hand import repeat_changes
from sjc_debiased.making.fields import build_field
from sjc_debiased.making.provenance import record
from sjc_debiased.making.scene import build_scene
from sjc_debiased.making.session import Session
from sjc_debiased.models.bars import compile_bar
from sjc_debiased.models.choose import Choice
from sjc_debiased.models.finding import find_model
from sjc_debiased.models.loading import check_loras, check_prompts, load_model
from sjc_debiased.models.machine import Machine
from sjc_debiased.options.command import OptionError
from sjc_debiased.options.config import Resolved
from sjc_debiased.options.forms import clip_rule
from voxnerf.settings import Kernel
from voxnerf.trial import usable_kernel

if TYPE_CHECKING:
    from sjc_debiased.making.work import Work


def plan_prompts(resolved: Resolved, choice: Choice, local_files_only: bool) -> ViewPrompts:
    """Return the prompt of every view, after checking that the text encoder can take them.

    Raises:
        OptionError: a prompt is too long, or a model is out of reach.
    """
    told = resolved.prompting
    plain = plain_prompts(resolved.prompt, told.scheme)
    try:
        check_prompts(choice.location, list(plain.sent.values()), local_files_only)
        check_loras(choice.location, choice.loras, local_files_only)
        if told.masked_lm is None:
            return plain
        masked_lm = _masked_lm(choice.masked_lm(told.masked_lm), local_files_only)
        return debias_prompt(resolved.prompt, masked_lm, told.scheme, told.keep, told.pmi_normalized)
    except (OSError, ValueError) as error:
        raise OptionError(str(error)) from error


def weights_report(resolved: Resolved, choice: Choice, local_files_only: bool) -> str:
    """Say which weights of a run are there, which the hub will be asked for, and which are missing."""
    lines = []
    try:
        lines.append(str(find_model(choice.location, local_files_only)))
    except (OSError, ValueError) as error:
        lines.append(f"weights of {choice.name}: missing or not to be used: {error}")
    if (masked_lm := resolved.prompting.masked_lm) is not None:
        place = choice.masked_lm(masked_lm)
        try:
            lines.append(f"language model: {find_masked_lm(place, local_files_only)}")
        except OSError as error:
            lines.append(f"language model: missing: {error}")
    return "\n".join(lines)


@cache
def _masked_lm(location: str, local_files_only: bool) -> Bert:
    return Bert(location, local_files_only)


def keep_precision(machine: Machine, folders: Iterable[Path]) -> Machine:
    """Return the machine with the precision that the runs of these folders were begun in.

    Raises:
        OptionError: another was asked for by name; or they were begun in several, and one call of the 2D
            model has one.
    """
    begun = {precision for folder in folders if (precision := RunReader(folder).precision)}
    if begun <= {machine.precision}:
        return machine
    if machine.asked:
        raise OptionError(
            f"a run goes on in the precision that it was begun in, {' or '.join(sorted(begun))}. --precision "
            f"is {machine.precision}. Leave it out, or leave --resume out for a new run."
        )
    if len(begun) > 1:
        raise OptionError(
            f"runs that go on together must have been begun in one precision. These were begun in "
            f"{' and '.join(sorted(begun))}. Go on with the prompts and seeds of each alone."
        )
    return replace(machine, precision=begun.pop(), why="the run was begun in it")


def load_denoiser(
    machine: Machine,
    choice: Choice,
    local_files_only: bool,
    compiled: bool = False,
    prompts: Iterable[str] = (),
) -> Denoiser:
    """Load the 2D model onto the machine.

    Args:
        compiled, prompts: as in `load_model`.

    Raises:
        OptionError: its weights are out of reach, or it is none that an adapter knows.
    """
    try:
        place, dtype = torch.device(machine.device), getattr(torch, machine.precision)
        return load_model(choice.location, place, dtype, local_files_only, choice.loras, compiled, prompts)
    except (OSError, ValueError) as error:
        raise OptionError(str(error)) from error


def try_kernel(machine: Machine, wanted: Kernel, run: Resolved, denoiser: Denoiser) -> Machine:
    """Return the machine with the renderer's kernel that works there, after one try on the run's own field.

    Raises:
        OptionError: the kernel that was asked for does not work, or the model has other channels than a run.
    """
    try:
        within(torch.zeros(1, denoiser.channels, 1, 1), run.settings.denoised_range)
        field = build_field(run, denoiser)
    except ValueError as error:
        raise OptionError(str(error)) from error
    try:
        with compile_bar() if machine.device == "cpu" and wanted in ("auto", "numba") else nullcontext():
            kernel, why = usable_kernel(field, wanted)
    except ValueError as error:
        raise OptionError(f"--kernel {wanted}: {error}") from error
    return replace(machine, kernel=kernel, why_kernel=why)


@contextmanager
def open_session(run: Resolved, work: Work, denoiser: Denoiser) -> Iterator[Session]:
    """Lock the folder of a run, new or begun, and hold its session.

    Args:
        work: of which the run is one. Where its options name the folder, that has the run's options.

    Raises:
        FinishedError: another process has finished the run meanwhile.
        RunError: the folder is another process's, or begun with other view prompts or in another precision.
    """
    prompts, machine, run_root = work.prompts[run], work.machine, work.options.basic.run_root
    precision = machine.wanted_precision
    folder = work.options.machine.resume or find_run(run_root, run, precision)
    if folder is None:
        about = record(list(work.command), prompts, work.choice, machine)
        about |= {"clip_rule": clip_rule(work.choice.profile, run.guidance, run.settings.clip)}
        if n := work.options.basic.best_of:
            about |= {"best_of": n}
        if run.prompt in work.faceless:
            about |= {"face": False}
        folder = find_or_create_run(run_root, run, about, precision)
    with locked(folder):
        if is_finished(folder, run):
            raise FinishedError(f"finished meanwhile by another process: {folder}")
        check_same_prompts(folder, prompts.sent)
        reader = RunReader(folder)
        begun = reader.precision
        if begun not in (None, machine.precision):
            raise RunError(
                f"a run goes on in the precision that it was begun in. Another process began {folder} in "
                f"{begun}; this one works in {machine.precision}. Run the same command again."
            )
        if reader.options["n_steps"] != run.n_steps:
            extend_run(folder, run)
        state = newest_state(folder)
        tqdm.write(
            f"run folder: {folder}" + (f", resuming at step {state[0]} of {run.n_steps}" if state else "")
        )
        scene, views = build_scene(run, prompts, denoiser, machine.kernel)
        profile, turntable = work.choice.profile, work.options.mesh.turntable
        session = Session(scene, views, profile, denoiser, folder, state, work.mesh, turntable)
        if changes := repeat_changes(scene, folder):
            tqdm.write(f"changed by hand before, and going on so: {changes} changes, in no table")
        try:
            yield session
        finally:
            with suppress(OSError):  # what it could not write, it could not write before either
                session.close()
