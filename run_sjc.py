"""The command: a prompt in, a 3D object out. Command line and composition root, nothing else.

python run_sjc.py --prompt "a smiling cat" --debias
"""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

import tyro

from sjc_debiased.checkpoints import newest_state
from sjc_debiased.config import OptionError, Options, Resolved, resolve
from sjc_debiased.dsds_arguments import translate_dsds_arguments
from sjc_debiased.runs import (
    FINISHED,
    FinishedError,
    RunError,
    check_run_root,
    check_same_options,
    find_run,
    locked,
)

if TYPE_CHECKING:
    from sjc_debiased.pack import Ended


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
        print("run_sjc.py: interrupted. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130


def run(options: Options, command: list[str]) -> int:
    """Make one object for each prompt and seed, from the options to the finished run folders.

    Whatever can be refused is refused before a model is loaded, and a run folder appears only after.
    """
    from sjc_debiased.models import check_words, choose_device, choose_model, fingerprint

    device, precision = choose_device(options.device, options.precision)
    choice = choose_model(options.model, device)
    print(f"model: {choice.name}, on {device} in {precision} ({choice.why})")
    weights = fingerprint(choice.location, options.local_files_only)
    wanted = resolve(options, choice.profile, choice.name, weights, device, precision)
    for resolved in wanted:
        check_words(resolved.prompt, choice)
    if options.resume:
        check_same_options(options.resume, wanted[0])
    if not options.dry_run:
        check_run_root(options.resume or options.run_root, wanted, resumed=options.resume is not None)

    todo = wanted if options.dry_run else _unfinished(options, wanted)
    if not todo:
        return 0

    from sjc_debiased.pack import run_packed
    from sjc_debiased.prepare import load_denoiser, open_session, plan_prompts

    for resolved in todo:
        print(plan_prompts(resolved, choice, options.local_files_only).table())
        if options.dry_run:
            print("\n".join(f"{name} = {value!r}" for name, value in vars(resolved).items()))
    if options.dry_run:
        return 0
    denoiser = load_denoiser(todo[0], choice, options.local_files_only)
    if options.compile:
        denoiser.compile()
    local, mesh, resume = options.local_files_only, options.mesh, options.resume
    jobs = [
        (r, open_session(r, choice, denoiser, options.run_root, command, local, mesh, resume)) for r in todo
    ]
    codes = [_report(ended) for ended in run_packed(jobs, denoiser, options.pack)]
    if len(codes) < len(jobs):
        print(f"{len(jobs) - len(codes)} runs were not started. The same command does them.")
        return 130
    return max(codes)


def _unfinished(options: Options, wanted: list[Resolved]) -> list[Resolved]:
    """Return the runs that are not finished, after a look into the folders of those that are begun.

    Raises:
        RunError: another process is at work in a folder, or a checkpoint is not as it was saved.
    """
    unfinished = []
    for resolved in wanted:
        folder = options.resume or find_run(options.run_root, resolved)
        if folder and (folder / FINISHED).exists():
            print(f"finished already: {folder}. To make it again, move or delete that folder.")
            continue
        if folder:
            with locked(folder):
                newest_state(folder)
        unfinished.append(resolved)
    return unfinished


def _report(ended: Ended) -> int:
    """Say how a run ended where it did not say so itself; return its exit code."""
    from sjc_debiased.session import DivergedError

    error = ended.error
    if ended.stopped:
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
