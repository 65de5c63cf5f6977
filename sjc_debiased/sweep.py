"""Many runs from one command: a suite of prompts, under several presets, with several seeds.

    python -m sjc_debiased.sweep --suite menagerie --presets sjc,dsds --seeds 0,1,2

The unit of work is one (prompt, preset, seed), that is one run folder. The same command after an interruption
does only what is missing. One unit that fails never stops the rest; what failed is listed last.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prompts.suites import SuiteError, SuitePrompt, load_suite
from sjc_debiased.config import resolve
from sjc_debiased.identity import RunIndex, is_finished
from sjc_debiased.machine import choose_machine
from sjc_debiased.models import check_words, choose_model, fingerprint
from sjc_debiased.options import (
    Basic,
    MachineOptions,
    MethodOptions,
    OptionError,
    Options,
    PrecisionName,
    SJCOptions,
)
from sjc_debiased.presets import PRESETS, PresetName
from sjc_debiased.runs import RunError, check_run_root
from sjc_debiased.sweep_work import INTERRUPTED, Work, do
from voxnerf.settings import Kernel

_REASONS = 5  # the most that a plan shows
_MOST = 1e9  # far above any setting, and below what a float cannot hold


def _is_count(value: object) -> bool:
    return type(value) is int and abs(value) <= _MOST


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST


SETTINGS = {
    "n_steps": _is_count,
    "guidance": _is_number,
    "lr": _is_number,
    "var_red": lambda value: type(value) is bool,
    "emptiness_weight": _is_number,
    "depth_weight": _is_number,
}
"""The options that a prompt of a suite may set, and what they may be."""


@dataclass(frozen=True)
class SweepOptions:
    """Make an object for every prompt of a suite, preset and seed; the same command goes on."""

    suite: str
    """A suite's name (dsds70, menagerie, sjc_readme), or a JSON file of the same form."""
    presets: str = "sjc,dsds-preserved,dsds"
    """Presets, with commas between."""
    seeds: str = "0,1,2"
    """Seeds, with commas between."""
    limit: int | None = None
    """Only the first so many prompts."""
    model: str = "auto"
    """As in run_sjc.py."""
    n_steps: int | None = None
    """Optimisation steps, whatever suite and model say."""
    pack: int = 1
    """Objects that are optimised at a time, in one call of the U-Net for all of them."""
    engine: Literal["serial", "ray"] = "serial"
    """One process, or Ray's workers on this machine or on the cluster that RAY_ADDRESS names."""
    workers: int = 1
    """Workers of the ray engine."""
    shard: str = "1/1"
    """Which part of the work this process does, as in 2/4: for job arrays."""
    device: str = "auto"
    """As in run_sjc.py."""
    precision: PrecisionName = "auto"
    """As in run_sjc.py."""
    kernel: Kernel = "auto"
    """As in run_sjc.py."""
    local_files_only: bool = False
    """Never ask the hub."""
    run_root: Path = Path("runs")
    """Parent of the run folders."""
    plan: bool = False
    """Print the plan and what it costs in hours, by a few steps that are timed now, and stop."""


@dataclass
class Plan:
    """Hold what a sweep has to do.

    Attributes:
        work: what is missing, in the order of the suite.
        finished: number of units that are done already.
        refused: (name, message) of units that cannot be done.
    """

    work: Work
    finished: int
    refused: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the plan and its cost in a few lines, and why what is refused is refused."""
        steps = sum(r.n_steps for r in self.work.todo)
        line = (
            f"{len(self.work.todo)} runs to do (at most {steps:,} steps), {self.finished} finished already, "
            f"{len(self.refused)} refused"
        )
        return "\n".join([line, *self._reasons()])

    def _reasons(self) -> Iterator[str]:
        """Yield the first message of each rule that was broken; a message begins with its rule."""
        by_rule: dict[str, list[tuple[str, str]]] = {}
        for name, message in self.refused:
            by_rule.setdefault(message.partition(". ")[0], []).append((name, message))
        for alike in sorted(by_rule.values(), key=len, reverse=True)[:_REASONS]:
            yield "{} refused, the first of them {!r}: {}".format(len(alike), *alike[0])


def make_plan(o: SweepOptions, command: list[str]) -> Plan:
    """Return what is missing of a sweep.

    Raises:
        OptionError, SuiteError: an option or the suite cannot be used.
    """
    from sjc_debiased.prepare import keep_precision

    suite = load_suite(o.suite)
    part, parts = _shard(o.shard)
    machine = choose_machine(o.device, o.precision)
    choice = choose_model(o.model, machine.device)
    weights = fingerprint(choice.location, o.local_files_only)
    index = RunIndex(o.run_root)
    todo, begun, refused, n_finished, unit = [], [], [], 0, 0
    for entry in suite.prompts[: o.limit]:
        for preset in _presets(o.presets):
            try:
                runs = resolve(options_of(o, entry, preset), choice.profile, choice.name, weights)
                check_words(entry.prompt, choice)
            except OptionError as error:
                refused.append((f"{preset}: {entry.prompt}", str(error)))
                continue
            for run in runs:
                unit += 1
                if unit % parts != part % parts:
                    continue
                folder = index.find(run, machine.wanted_precision)
                if folder and is_finished(folder, run):
                    n_finished += 1
                    continue
                todo.append(run)
                begun += [folder] if folder else []
    machine = keep_precision(machine, begun)
    root = o.run_root.resolve()
    work = Work(tuple(todo), machine, o.kernel, choice, root, o.pack, o.local_files_only, tuple(command))
    return Plan(work, n_finished, refused)


def options_of(o: SweepOptions, entry: SuitePrompt, preset: PresetName) -> Options:
    """Return the options of `run_sjc.py` for one prompt of a suite."""
    wrong = sorted(k for k, v in entry.settings.items() if not SETTINGS.get(k, lambda _: False)(v))
    if wrong:
        raise OptionError(
            f"a suite may set {', '.join(SETTINGS)}, to a number, or var_red to true or false. "
            f"{entry.prompt!r} sets {wrong[0]} to {str(entry.settings[wrong[0]])[:40]}. Correct the suite."
        )
    numbers: dict[str, Any] = dict(entry.settings)
    its = numbers.pop("n_steps", None)
    n_steps = its if o.n_steps is None else o.n_steps
    basic = Basic(prompt=(entry.prompt,), seeds=o.seeds, n_steps=n_steps, run_root=o.run_root)
    machine = MachineOptions(pack=o.pack)
    return Options(basic, MethodOptions(preset=preset), SJCOptions(**numbers), machine=machine)


def _presets(text: str) -> list[PresetName]:
    names = dict.fromkeys(text.split(","))
    if unknown := [n for n in names if n not in PRESETS]:
        raise OptionError(
            f"--presets must be of {', '.join(PRESETS)}. Received {unknown[0]!r}. Check the spelling."
        )
    return [preset for name in names for preset in PRESETS if preset == name]


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise OptionError(f"--shard must be i/n with 1 <= i <= n. It is {text!r}. Write for example 1/4.")
    return int(part), int(parts)


def main(options: SweepOptions, command: list[str]) -> int:
    """Run a sweep; return 0: all is done, 1: something failed, 2: refused, 130: interrupted."""
    try:
        plan = make_plan(options, command)
        print(plan)
        if plan.work.todo:
            print(_weights(plan.work))
        if options.plan:
            if plan.work.todo:
                from sjc_debiased.estimate import time_of_sweep

                print("loading the model to time a few steps ...", flush=True)
                work = plan.work
                print(time_of_sweep(work.todo, work.machine, work.kernel, work.choice, work.pack))
            return 0
        if plan.work.todo:
            check_run_root(options.run_root, list(plan.work.todo))
        ends = _engine(options)(plan.work)
    except (OptionError, SuiteError, RunError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    failed, ended = list(plan.refused), 0
    try:
        for name, error in ends:
            ended += 1
            if error:
                failed.append((name, error))
    except OptionError as error:  # the model or Ray is out of reach
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sweep: interrupted. The same command goes on.", file=sys.stderr)
    missing = len(plan.work.todo) - ended
    n_done = ended - len(failed) + len(plan.refused)
    print(f"{n_done} runs done, {plan.finished} finished before, {len(failed)} failed, {missing} not started")
    for name, error in failed:
        print(f"  {name}\n    {error}")
    if missing or any(error == INTERRUPTED for _, error in failed):
        return 130
    return 1 if failed else 0


def _weights(work: Work) -> str:
    from sjc_debiased.prepare import weights_report

    needs_most = next((run for run in work.todo if run.prompting.masked_lm), work.todo[0])
    return weights_report(needs_most, work.choice, work.local_files_only)


def _engine(options: SweepOptions) -> Callable[[Work], Iterable[tuple[str, str | None]]]:
    if options.engine == "serial":
        return do
    from functools import partial

    from sjc_debiased.sweep_ray import do_on_ray

    return partial(do_on_ray, n_workers=options.workers)


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(SweepOptions, prog="python -m sjc_debiased.sweep", use_underscores=True)
    sys.exit(main(chosen, sys.argv[1:]))
