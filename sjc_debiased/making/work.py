"""What one process does of a run or a sweep, in whatever process it lives: a run is a sweep of one."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from sjc_debiased.folder.runs import FinishedError, RunError
from sjc_debiased.models.choose import Choice
from sjc_debiased.models.machine import Machine
from sjc_debiased.options.command import OptionError, Options, WatchOptions
from sjc_debiased.options.config import Resolved
from sjc_debiased.options.mesh_settings import MeshSettings
from sjc_debiased.settings import Prompting

if TYPE_CHECKING:
    from prompts.debias import ViewPrompts
    from sjc_debiased.denoiser import Denoiser
    from sjc_debiased.making.pack import Ended
    from sjc_debiased.making.watch import Watcher

INTERRUPTED = "interrupted; the same command goes on"


@dataclass(frozen=True)
class Work:
    """What a worker must know: which runs, on which model, and how.

    Attributes:
        options: of the command: where runs go, and how they are computed. mesh: what each leaves.
        prompts: of every run (`prepare.plan_prompts`), made once. quiet: without progress bars.
        faceless: prompts whose objects have no face to count, by the suite that they come from.
    """

    todo: tuple[Resolved, ...]
    machine: Machine
    choice: Choice
    options: Options
    mesh: MeshSettings
    command: tuple[str, ...]
    prompts: Mapping[Resolved, ViewPrompts] = field(default_factory=dict)
    quiet: bool = False
    faceless: frozenset[str] = frozenset()


def name_of(run: Resolved) -> str:
    """Return how the table of failures calls a unit."""
    return f"{run.preset}: {run.prompt}, seed {run.seed}"


def plan_all(work: Work) -> tuple[Work, list[tuple[str, str]]]:
    """Return the work with the prompts of its runs, without those, (name, message), whose cannot be sent.

    Raises:
        OptionError: a model is out of reach, or no prompt can be sent.
    """
    from sjc_debiased.making.prepare import plan_prompts

    local = work.options.machine.local_files_only
    made: dict[tuple[str, Prompting], ViewPrompts] = {}
    prompts, refused = {}, []
    for run in tqdm(work.todo, "prompts", leave=False):
        key = run.prompt, run.prompting
        try:
            made[key] = prompts[run] = made.get(key) or plan_prompts(run, work.choice, local)
        except OptionError as error:
            if isinstance(error.__cause__, OSError):
                raise
            refused.append((name_of(run), str(error)))
    if refused and not prompts:
        raise OptionError(refused[0][1])
    return replace(work, todo=tuple(prompts), prompts=prompts), refused


def load(work: Work) -> Denoiser:
    """Load the 2D model of a worker's runs, and say so."""
    from sjc_debiased.making.prepare import load_denoiser

    print("loading the model ...", flush=True)
    options = work.options.machine
    prompts = [prompt for plan in work.prompts.values() for prompt in plan.sent.values()]
    return load_denoiser(work.machine, work.choice, options.local_files_only, options.compile, prompts)


def carry_out(work: Work, denoiser: Denoiser | None = None) -> Iterator[Ended]:
    """Do a worker's runs one after the other, `pack` at a time; yield each as it ends.

    Args:
        denoiser: the loaded model; None loads it.
    """
    from sjc_debiased.making.pack import run_packed
    from sjc_debiased.making.prepare import open_session, try_kernel

    if not work.todo:
        return
    denoiser, options = denoiser or load(work), work.options.machine
    print("trying the renderer (at the first run it is compiled: half a minute) ...", flush=True)
    work = replace(work, machine=try_kernel(work.machine, options.kernel, work.todo[0], denoiser))
    print(f"renderer: {work.machine.why_kernel}", flush=True)
    jobs = [(run, open_session(run, work, denoiser)) for run in work.todo]
    watchers = watchers_of(work.options.watch, denoiser)
    yield from run_packed(jobs, denoiser, options.at_a_time, work.quiet, watchers)


def watchers_of(wanted: WatchOptions, denoiser: Denoiser) -> list[Watcher]:
    """Return what looks at the runs of a command, each imported when it is asked for."""
    watchers: list[Watcher] = []
    if wanted.tensorboard:
        from sjc_debiased.watching.tensorboard import TensorBoard

        watchers.append(TensorBoard())
    if wanted.viewer:
        from sjc_debiased.viewer import Viewer

        watchers.append(Viewer(denoiser, wanted.viewer_host))
    return watchers


def told(ended: Ended) -> tuple[str, str | None]:
    """Return a run's name and why it is not done, or None; show where an unexpected error came from."""
    error = ended.error
    if error and not isinstance(error, (OptionError, RunError, OSError, RuntimeError)):
        traceback.print_exception(error)
    if isinstance(error, FinishedError):
        error = None
    why = INTERRUPTED if ended.stopped else None
    return name_of(ended.run), why if error is None else str(error) or type(error).__name__
