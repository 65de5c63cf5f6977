"""The command: a prompt in, a 3D object out. Command line and composition root, nothing else.

python run_sjc.py --prompt "a smiling cat" --debias
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

try:
    import tyro
except ModuleNotFoundError:
    sys.exit(
        f"run_sjc.py needs the packages of requirements.txt. {sys.executable} lacks them. Activate the "
        "environment that has them (`. .venv/bin/activate`), or `pip install -r requirements.txt` here."
    )

from sjc_debiased.evaluation.best import find_ranker, rank
from sjc_debiased.export import main as export
from sjc_debiased.export import place_of
from sjc_debiased.folder.checkpoints import newest_state
from sjc_debiased.folder.identity import RunIndex, check_same_options, is_finished
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import FinishedError, RunError, check_run_root, locked
from sjc_debiased.options.command import MeshOptions, OptionError, Options
from sjc_debiased.options.config import Resolved, by_option, resolve
from sjc_debiased.options.dsds_arguments import translate_dsds_arguments
from sjc_debiased.options.extras import check_watching
from sjc_debiased.options.forms import clip_rule
from sjc_debiased.options.mesh_settings import settings_of
from sjc_debiased.options.rules import check_removal

if TYPE_CHECKING:
    from pathlib import Path

    from sjc_debiased.making.pack import Ended
    from sjc_debiased.models.choose import Choice
    from sjc_debiased.models.machine import Machine


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 2 refused, 1 failed, 130 interrupted."""
    try:
        argv = sys.argv[1:] if argv is None else argv
        options = tyro.cli(
            Options,
            args=translate_dsds_arguments(argv),
            prog="run_sjc.py",
            use_underscores=True,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        return run(options, argv)
    except (OptionError, RunError) as error:
        print(f"run_sjc.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(_unwritten(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "run_sjc.py: interrupted. The same command goes on from the last checkpoint, or from the start "
            "where there is none yet.",
            file=sys.stderr,
        )
        return 130


def run(options: Options, command: list[str]) -> int:
    """Make one object for each prompt and seed, from the options to the finished run folders.

    Whatever can be refused is refused before a model is loaded, and a run folder appears only after.
    """
    from sjc_debiased.models.choose import check_guidance, check_words, choose_model, identify
    from sjc_debiased.models.machine import check_memory, choose_machine

    options = _packed(options)
    basic, machine_options, mesh = options.basic, options.machine, settings_of(options.mesh)
    check_watching(options.watch, machine_options.at_a_time)
    machine = choose_machine(machine_options.device, machine_options.precision)
    choice = choose_model(basic.model, machine.device, basic.lora)
    local, resume = machine_options.local_files_only, machine_options.resume
    print(f"model: {choice.name} ({choice.why})")
    wanted = resolve(options, choice.profile, choice.name, identify(choice, local))
    check_removal(basic.prompt, options.method, removes=wanted[0].prompting.masked_lm is not None)
    check_guidance(wanted[0].guidance, choice)
    for prompt in basic.prompt:
        check_words(prompt, choice)
    check_memory(wanted[0].field.resolution, min(machine_options.at_a_time, len(wanted)))
    if resume:
        check_same_options(resume, wanted[0])
    index = RunIndex(basic.run_root)
    folders = {r: resume or index.find(r, machine.wanted_precision) for r in wanted}
    if not basic.dry_run:
        _look_into(folders, index)
    todo = wanted if basic.dry_run else [r for r in wanted if not _is_finished(folders[r], r)]
    if todo and not basic.dry_run:
        check_run_root(resume or basic.run_root, todo, resumed=resume is not None)
    exported = [_export(f, options.mesh, machine) for r in wanted if r not in todo and (f := folders[r])]
    if not todo:
        if basic.best_of:
            rank(wanted, basic.run_root, machine, local)
        return max(exported)

    from sjc_debiased.making.prepare import keep_precision, plan_prompts, weights_report
    from sjc_debiased.making.work import Work, carry_out

    machine = keep_precision(machine, [folder for r in todo if (folder := folders[r])])
    print(f"device: {machine.device}, in {machine.precision} ({machine.why})")
    prompts = {}
    for resolved in todo:
        if basic.dry_run:
            print("\n".join(f"{name} = {value!r}" for name, value in _numbers(resolved, choice).items()))
            print(weights_report(resolved, choice, local))
        prompts[resolved] = plan_prompts(resolved, choice, local)
        print(prompts[resolved].table())
    if basic.dry_run:
        return 0
    if basic.best_of:
        find_ranker(choice.name, local)
    work = Work(tuple(todo), machine, choice, options, mesh, tuple(command), prompts)
    codes = [_report(ended) for ended in carry_out(work)]
    if len(codes) < len(todo):
        print(f"{len(todo) - len(codes)} runs were not started. The same command does them.")
        return 130
    if basic.best_of and 130 not in codes:
        rank(wanted, basic.run_root, machine, local)
    return max(codes + exported)


def _numbers(run: Resolved, choice: Choice) -> dict[str, Any]:
    """Return what a run's options come to, and by which rule its bounds."""
    return by_option(run) | {"clip_rule": clip_rule(choice.profile, run.guidance, run.settings.clip)}


def _packed(options: Options) -> Options:
    """Return options whose seeds to rank are optimised together, unless that is asked for otherwise."""
    n, machine = options.basic.best_of, options.machine
    together = n and machine.pack is None and not options.watch.viewer
    return replace(options, machine=replace(machine, pack=n)) if together else options


def _look_into(folders: dict[Resolved, Path | None], index: RunIndex) -> None:
    """Look whether runs that are begun can go on, and say why one that could seem begun is not.

    Raises:
        RunError: another process is at work in a folder, or a checkpoint is not as it was saved.
    """
    for run, folder in folders.items():
        if folder:
            with locked(folder):
                newest_state(folder)
            continue
        for shorter, steps in index.other_schedules(run):
            if steps < run.n_steps == run.settings.schedule_steps:
                print(
                    f"a new run: {shorter} has the same options, but bound and emptiness have grown over its "
                    f"{steps} steps, not over {run.n_steps}. To go on there, both kept as they are at its "
                    f"end: --n_steps {run.n_steps} --schedule_steps {steps}"
                )


def _is_finished(folder: Path | None, run: Resolved) -> bool:
    """Return whether a run is finished, and say so."""
    if folder is None or not is_finished(folder, run):
        return False
    print(
        f"finished already: {folder}. Its pictures and its turntable stay as they are. Another mesh: python "
        f"-m sjc_debiased.export {folder}. More steps: --n_steps N --schedule_steps "
        f"{run.settings.schedule_steps}. To make it again, move or delete that folder."
    )
    return True


def _export(folder: Path, wanted: MeshOptions, machine: Machine) -> int:
    """Write the formats of a finished run's mesh that are asked for and not there; return the exit code."""
    mesh = RunReader(folder).result.get("mesh", {})
    place = place_of(folder, settings_of(wanted))
    absent = [ending for ending in wanted.mesh if not place.with_name(f"{place.name}.{ending}").exists()]
    if "error" in mesh or not absent:
        return 0
    shape = ("--level", wanted.mesh_level, "--faces", wanted.mesh_faces, "--texture", wanted.mesh_texture)
    return export([str(word) for word in (folder, *shape, "--device", machine.device, "--format", *absent)])


def _report(ended: Ended) -> int:
    """Say how a run ended where it did not say so itself; return its exit code."""
    from sjc_debiased.making.session import DivergedError

    error = ended.error
    if ended.stopped and ended.session:
        print(
            f"stopped after step {ended.session.scene.done}, saved. The same command goes on from there: "
            f"{ended.session.folder}"
        )
        return 130
    if isinstance(error, FinishedError):
        print(error)
    if error is None or isinstance(error, FinishedError):
        return 0
    if isinstance(error, OSError):
        print(_unwritten(error), file=sys.stderr)
    elif isinstance(error, (OptionError, RunError, DivergedError)):
        print(f"run_sjc.py: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    return 1


def _unwritten(error: OSError) -> str:
    return (
        f"run_sjc.py: a run must be able to write its files. It could not ({error}). What was saved before "
        "is whole; when this is mended, the same command goes on from the last checkpoint."
    )


if __name__ == "__main__":
    sys.exit(main())
