"""Can a run start here, and how long will it take? One line for each thing that a run needs.

    python -m sjc_debiased.doctor [--model sd15] [--suite dsds70 --presets sjc,dsds --seeds 0,1,2 --pack 2]

Exit code 0 where a run can start, 1 where something that it needs is missing, 2 where an option is wrong. It
asks no hub, downloads nothing, and leaves no file.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import tyro

    from prompts.hub import megabytes
    from prompts.suites import SuiteError
    from sjc_debiased.options.command import Basic, MachineOptions, OptionError, Options, PrecisionName
    from voxnerf.settings import Kernel
except ModuleNotFoundError as error:
    sys.exit(
        f"packages MISSING: {sys.executable} has no {error.name}. Activate the environment that has the "
        "packages of requirements.txt (`. .venv/bin/activate`), or `pip install -r requirements.txt` here."
    )

from sjc_debiased import needs
from sjc_debiased.needs import Line

if TYPE_CHECKING:
    from sjc_debiased.making.estimate import Cost
    from sjc_debiased.models.choose import Choice
    from sjc_debiased.models.machine import Machine
    from sjc_debiased.options.config import Resolved
    from sjc_debiased.sweep import Plan

_SLOW_S = 3600.0


@dataclass(frozen=True)
class DoctorOptions:
    """Say what a run would use here, what is missing, and how long an object takes."""

    model: str = "auto"
    """As in run_sjc.py."""
    device: str = "auto"
    """As in run_sjc.py."""
    precision: PrecisionName = "auto"
    """As in run_sjc.py."""
    kernel: Kernel = "auto"
    """As in run_sjc.py."""
    n_steps: int | None = None
    """Steps of the object. Default: the model's."""
    pack: int = 1
    """Objects in one call of the U-Net."""
    run_root: Path = Path("runs")
    """Parent of the run folders."""
    suite: str | None = None
    """A sweep to be estimated too: a suite's name, or a JSON file."""
    presets: str = "sjc,dsds-preserved,dsds"
    """Presets of the sweep, with commas between."""
    seeds: str = "0,1,2"
    """Seeds of the sweep, with commas between."""


def main(o: DoctorOptions) -> int:
    """Print the table; return 0: a run can start, 1: something is missing, 2: an option is wrong."""
    missing = False
    try:
        for line in examine(o):
            print(line, flush=True)
            missing |= line.needed and line.state == "MISSING"
    except (OptionError, SuiteError) as error:
        print(f"doctor: {error}", file=sys.stderr)
        return 2
    print("A run cannot start: see MISSING." if missing else "A run can start.")
    return int(missing)


def examine(o: DoctorOptions) -> Iterator[Line]:
    """Yield one line for each thing that a run needs, then how long it takes.

    Raises:
        OptionError, SuiteError: an option or the suite cannot be used.
    """
    packages = needs.packages()
    yield packages
    if packages.state == "MISSING":
        return
    say("looking at the device, the model's files and the disk ...")
    from sjc_debiased.making.estimate import sample_run
    from sjc_debiased.models.choose import choose_model
    from sjc_debiased.models.machine import check_memory, choose_machine
    from sjc_debiased.options.rules import require

    try:
        machine = choose_machine(o.device, o.precision)
    except OptionError as error:
        yield Line("device", "MISSING", str(error))
        return
    choice = choose_model(o.model, machine.device)
    require(o.pack >= 1, "--pack", "at least 1", o.pack)
    plan = _plan(o, o.suite) if o.suite else None
    if plan and plan.all_refused:  # before anything is loaded
        raise OptionError(plan.refused[0][1])
    run = sample_run(choice.profile, o.n_steps)
    check_memory(run.field.resolution, o.pack)
    lines = [
        *needs.machine(machine),
        Line("model", "OK", f"{choice.name} ({choice.why})"),
        *needs.weights(choice),
        *needs.measuring(choice),
        needs.video(),
        needs.disk(o.run_root, run),
    ]
    yield from lines
    if any(line.name in ("weights", "memory") and line.state == "MISSING" for line in lines):
        yield Line("time", "MISSING", "not measured: the model cannot be loaded.", needed=False)
        return
    yield from _times(o, machine, choice, run, plan)


def _times(
    o: DoctorOptions, machine: Machine, choice: Choice, run: Resolved, plan: Plan | None
) -> Iterator[Line]:
    """Yield what a few steps of the real loop show: they work, in how much memory, and how fast."""
    say("loading the model ...")
    began = time.perf_counter()
    from sjc_debiased.making.estimate import TIMED_STEPS, WARMUP_STEPS, measure_cost, throwaway_prompts
    from sjc_debiased.making.prepare import load_denoiser, try_kernel

    try:
        prompts = throwaway_prompts(run).sent.values()
        denoiser = load_denoiser(machine, choice, local_files_only=True, prompts=prompts)
    except (OptionError, RuntimeError, MemoryError) as error:  # not there, or more than the memory holds
        yield Line("loading", "MISSING", str(error))
        return
    load_s = time.perf_counter() - began
    yield Line("loading", "OK", f"{load_s:.0f} s, once in each command")
    say("trying the renderer's kernel ...")
    try:
        machine = try_kernel(machine, o.kernel, run, denoiser)
    except OptionError as error:
        yield Line("kernel", "MISSING", str(error))
        return
    yield needs.kernel(machine)
    say(f"taking {WARMUP_STEPS + TIMED_STEPS} steps, then two pictures and a mesh ...")
    try:
        cost = measure_cost(run, machine, denoiser, o.pack)
    except (RuntimeError, ValueError, MemoryError) as error:
        remedy = "Use --precision float32; where memory was too little, a smaller --pack."
        yield Line("step", "MISSING", f"the first steps failed ({error}).", remedy)
        return
    yield needs.memory_in_use(machine.device)
    yield Line("step", "OK", f"{cost}. The median of {TIMED_STEPS} steps, after {WARMUP_STEPS}")
    yield _object(cost, run, load_s)
    if o.suite and plan:
        yield _sweep(o.suite, plan, o.run_root, cost)


def _object(cost: Cost, run: Resolved, load_s: float) -> Line:
    seconds = cost.object_s(run.n_steps)
    among = f" (one of {cost.pack} together)" if cost.pack > 1 else ""
    work = f"{run.n_steps:,} steps, pictures and mesh{among}"
    text = f"about {duration(seconds)} for {work}, and {load_s:.0f} s to load"
    if seconds < _SLOW_S:
        return Line("one object", "OK", text)
    remedy = "Faster: a GPU, a smaller model, or fewer steps (--n_steps)."
    return Line("one object", "SLOW", f"{text}.", remedy)


def _plan(o: DoctorOptions, suite: str) -> Plan:
    from sjc_debiased.sweep import SweepOptions, make_plan

    basic = Basic((), model=o.model, seeds=o.seeds, n_steps=o.n_steps, run_root=o.run_root)
    machine = MachineOptions(o.device, o.precision, o.kernel, pack=o.pack, local_files_only=True)
    return make_plan(SweepOptions(suite, o.presets, run=Options(basic, machine=machine)), [])


def _sweep(suite: str, plan: Plan, run_root: Path, cost: Cost) -> Line:
    """Return the line of a sweep; what is finished already in the run root is not counted."""
    from sjc_debiased.folder.runs import needed_bytes

    runs, name = list(plan.work.todo), f"sweep {Path(suite).stem}"
    text = f"{plan}: {cost.of_sweep(runs)} in one process like this one"
    room, free = needed_bytes(runs), shutil.disk_usage(needs.existing(run_root)).free
    if room > free:
        lacking = f"{text}. It needs {megabytes(room)} of disk; {megabytes(free)} are free."
        return Line(name, "MISSING", lacking, "Make room, or choose another --run_root.", needed=False)
    return Line(name, "OK", f"{text}, and at most {megabytes(room)} of disk")


def duration(seconds: float) -> str:
    """Return a time for people: 75 s, 12 min, 3.4 hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def say(what: str) -> None:
    """Say what takes a while, beside the table."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(DoctorOptions, prog="python -m sjc_debiased.doctor", use_underscores=True)))
