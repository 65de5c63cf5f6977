"""Many runs from one command: a suite of prompts, under several presets, with several seeds.

    python -m sjc_debiased.sweep --suite menagerie --presets sjc,dsds --seeds 0,1,2

The unit of work is one (prompt, preset, seed), that is one run folder. The same command after an interruption
does only what is missing. One unit that fails never stops the rest; what failed is listed last.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, arg

from prompts.suites import SuiteError, load_suite, suite_names
from sjc_debiased.folder.identity import RunIndex, is_finished, saved_options
from sjc_debiased.folder.reader import RunReader, as_json
from sjc_debiased.folder.runs import RunError, check_run_root, run_folders
from sjc_debiased.making.sweep_ray import carry_out_on_ray
from sjc_debiased.making.work import INTERRUPTED, Work, carry_out, plan_all, told
from sjc_debiased.models.choose import check_guidance, check_words, choose_model, identify
from sjc_debiased.models.machine import check_memory, choose_machine
from sjc_debiased.options.command import Basic, OptionError, Options
from sjc_debiased.options.config import Resolved, resolve
from sjc_debiased.options.extras import check_watching
from sjc_debiased.options.mesh_settings import settings_of
from sjc_debiased.options.of_suite import options_of
from sjc_debiased.options.presets import PRESETS, PresetName
from sjc_debiased.options.rules import check_others, check_removal, require

_REASONS = 5  # the most that a plan shows
_INSTEAD = {
    "prompt": "Name a suite.",
    **dict.fromkeys(("debias", "preset", "score_debias", "prompt_debias"), "Name methods with --presets."),
    "seed": "Write --seeds.",
    "best_of": "Leave it out: what is chosen is not counted.",
    "dry_run": "Write --plan.",
    "resume": "Leave it out: the same command goes on by itself.",
    "viewer": "Look at its runs with python -m sjc_debiased.viewer RUN, which cannot change them.",
}
"""The options of a run that a sweep has others for."""


@dataclass(frozen=True)
class SweepOptions:
    """Make an object for every prompt of a suite, preset and seed; the same command goes on.

    Every option of run_sjc.py holds, but those that name one prompt, method and seed. Seeds are 0,1,2 without
    --seeds.
    """

    suite: Annotated[
        str, arg(help=f"A suite's name ({', '.join(suite_names())}), or a JSON file like theirs.")
    ]
    presets: str = "sjc,dsds-preserved,dsds"
    """Presets, with commas between."""
    limit: int | None = None
    """Only the first so many prompts."""
    engine: Literal["serial", "ray"] = "serial"
    """One process, or Ray's workers on this machine or on the cluster that RAY_ADDRESS names."""
    workers: int = 1
    """Workers of the ray engine."""
    shard: str = "1/1"
    """Which part of the work this process does, as in 2/4: for job arrays."""
    plan: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print the plan and what it costs in hours, by a few steps that are timed now, and stop."""
    alike: Annotated[bool, arg(help_behavior_hint="")] = False
    """Refuse what tables would not pool: a suite that sets options of its own for a prompt, and runs made
    otherwise than the finished ones that are there."""
    run: OmitArgPrefixes[Options] = Options(Basic(prompt=(), seeds="0,1,2"))
    """Of every run; what is given here comes before what the suite says."""


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

    @property
    def all_refused(self) -> bool:
        """Return whether nothing can be done, and nothing was."""
        return bool(self.refused) and not (self.work.todo or self.finished)

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
    from sjc_debiased.making.prepare import keep_precision

    basic, machine_options = o.run.basic, o.run.machine
    check_others(o.run, _INSTEAD, "a sweep")
    mesh = settings_of(o.run.mesh)
    suite = load_suite(o.suite)
    if o.alike and (own := [entry.prompt for entry in suite.prompts if entry.settings]):
        raise OptionError(
            f"tables pool runs that were made alike. {suite.name} sets options for {own[0]!r} alone. "
            "Take another suite, or make its runs with scripts/run_prompts.sh."
        )
    part, parts = _shard(o.shard)
    require(o.limit is None or o.limit >= 1, "--limit", "at least 1", o.limit)
    require(o.engine == "ray" or o.workers == 1, "--workers", "1 without --engine ray", o.workers)
    entries, presets = suite.prompts[: o.limit], _presets(o.presets)
    removes = any(PRESETS[preset].remove_words for preset in presets)
    check_removal([entry.prompt for entry in entries], o.run.method, removes)
    check_watching(o.run.watch, machine_options.at_a_time)
    machine = choose_machine(machine_options.device, machine_options.precision)
    choice = choose_model(basic.model, machine.device, basic.lora)
    weights = identify(choice, machine_options.local_files_only)
    index = RunIndex(basic.run_root)
    wanted, refused = dict[Resolved, None](), []
    for entry in entries:
        for preset in presets:
            try:
                runs = resolve(options_of(o.run, entry, preset), choice.profile, choice.name, weights)
                check_words(entry.prompt, choice)
                check_guidance(runs[0].guidance, choice)
                wanted |= dict.fromkeys(runs)
            except OptionError as error:
                refused.append((f"{preset}: {entry.prompt}", str(error)))
    if wanted:
        largest = max(run.field.resolution for run in wanted)
        check_memory(largest, min(machine_options.at_a_time, len(wanted)))
    if o.alike:
        _check_alike(basic.run_root, list(wanted))
    todo, begun, n_finished = [], [], 0
    for run in list(wanted)[part - 1 :: parts]:
        folder = index.find(run, machine.wanted_precision)
        if folder and is_finished(folder, run):
            n_finished += 1
            continue
        todo.append(run)
        begun += [folder] if folder else []
    machine = keep_precision(machine, begun)
    options = replace(o.run, basic=replace(basic, run_root=basic.run_root.resolve()))
    faceless = frozenset(entry.prompt for entry in suite.prompts if not entry.face)
    work = Work(tuple(todo), machine, choice, options, mesh, tuple(command), faceless=faceless)
    return Plan(work, n_finished, refused)


def _check_alike(run_root: Path, wanted: Sequence[Resolved]) -> None:
    """Refuse runs beside finished ones that were made otherwise, before hours of them are made.

    Raises:
        OptionError: names a run that is there, and what differs.
    """
    from sjc_debiased.evaluation.collect import check_alike

    seen: dict[tuple[str, str], tuple[Path, object]] = {}
    there = (
        (folder, saved_options(folder)) for folder in run_folders(run_root) if RunReader(folder).finished
    )
    asked = ((Path(f"the {run.preset} that is asked for"), as_json(run)) for run in wanted)
    try:
        for folder, options in chain(there, asked):
            if options is not None:
                check_alike(folder, options, {}, seen)
    except ValueError as error:
        raise OptionError(str(error)) from error


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
        work, failed = plan.work, plan.refused
        print(plan)
        if work.todo:
            print(_weights(work))
        if options.plan:
            if work.todo:
                from sjc_debiased.making.estimate import time_of_sweep

                print("loading the model to time a few steps ...", flush=True)
                print(time_of_sweep(work))
            return 0
        if plan.all_refused:
            raise OptionError("every run was refused")
        if work.todo:
            check_run_root(options.run.basic.run_root, list(work.todo))
            work, unsent = plan_all(work)
            failed = failed + unsent
        ends = (
            map(told, carry_out(work))
            if options.engine == "serial"
            else carry_out_on_ray(work, options.workers)
        )
    except (OptionError, SuiteError, RunError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    n_done, missing = 0, len(work.todo)
    try:
        for name, error in ends:
            missing -= 1
            n_done += error is None
            failed += [(name, error)] if error else []
    except OptionError as error:  # the model or Ray is out of reach
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sweep: interrupted. The same command goes on.", file=sys.stderr)
    print(f"{n_done} runs done, {plan.finished} finished before, {len(failed)} failed, {missing} not started")
    for name, error in failed:
        print(f"  {name}\n    {error}")
    if missing or any(error == INTERRUPTED for _, error in failed):
        return 130
    return 1 if failed else 0


def _weights(work: Work) -> str:
    from sjc_debiased.making.prepare import weights_report

    needs_most = next((run for run in work.todo if run.prompting.masked_lm), work.todo[0])
    return weights_report(needs_most, work.choice, work.options.machine.local_files_only)


def parse(argv: list[str]) -> SweepOptions:
    """Return what the command's arguments say; show its help, or what is wrong, and exit."""
    import tyro

    return tyro.cli(
        SweepOptions,
        args=argv,
        prog="python -m sjc_debiased.sweep",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


if __name__ == "__main__":
    sys.exit(main(parse(sys.argv[1:]), sys.argv[1:]))
