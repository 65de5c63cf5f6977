"""What one worker of a sweep does, in whatever process it lives."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sjc_debiased.config import Resolved
from sjc_debiased.machine import Machine
from sjc_debiased.models import Choice
from sjc_debiased.options import KernelName, OptionError
from sjc_debiased.runs import FinishedError, RunError

if TYPE_CHECKING:
    from sjc_debiased.denoiser import Denoiser

INTERRUPTED = "interrupted; the same command goes on"


@dataclass(frozen=True)
class Work:
    """What a worker must know: which runs, on which model, in which folder."""

    todo: tuple[Resolved, ...]
    machine: Machine
    kernel: KernelName
    choice: Choice
    run_root: Path
    pack: int
    local_files_only: bool
    command: tuple[str, ...]
    quiet: bool = False


def name_of(run: Resolved) -> str:
    """Return how the table of failures calls a unit."""
    return f"{run.preset}: {run.prompt}, seed {run.seed}"


def do(work: Work, denoiser: Denoiser | None = None) -> Iterator[tuple[str, str | None]]:
    """Do a worker's runs one after the other, `pack` at a time; yield (name, error or None) as each ends.

    Args:
        denoiser: the loaded model; None loads it.
    """
    from sjc_debiased.pack import run_packed
    from sjc_debiased.prepare import load_denoiser, open_session, sent_prompts, try_kernel

    if not work.todo:
        return
    if denoiser is None:
        prompts = sent_prompts(work.todo, work.choice, work.local_files_only)
        denoiser = load_denoiser(work.machine, work.choice, work.local_files_only, prompts=prompts)
    machine, command = try_kernel(work.machine, work.kernel, work.todo[0], denoiser), list(work.command)
    jobs = [
        (
            run,
            open_session(run, machine, work.choice, denoiser, work.run_root, command, work.local_files_only),
        )
        for run in work.todo
    ]
    for ended in run_packed(jobs, denoiser, work.pack, work.quiet):
        error = ended.error
        if error and not isinstance(error, (OptionError, RunError, OSError, RuntimeError)):
            traceback.print_exception(error)
        if isinstance(error, FinishedError):
            error = None
        why = INTERRUPTED if ended.stopped else None
        yield name_of(ended.run), why if error is None else str(error) or type(error).__name__
