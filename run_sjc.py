"""The command: a prompt in, a 3D object out. Command line and composition root, nothing else.

python run_sjc.py --prompt "a smiling cat" --debias
"""

from __future__ import annotations

import sys
import traceback
from contextlib import ExitStack

import tyro

from sjc_debiased.checkpoints import newest_state
from sjc_debiased.config import OptionError, Options, Resolved, resolve
from sjc_debiased.dsds_arguments import translate_dsds_arguments
from sjc_debiased.runs import (
    FINISHED,
    RunError,
    check_run_root,
    check_same_options,
    create_run,
    find_run,
    locked,
)


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
    weights = fingerprint(choice.location)
    wanted = resolve(options, choice.profile, choice.name, weights, device, precision)
    for resolved in wanted:
        check_words(resolved.prompt, choice)
    if options.resume:
        check_same_options(options.resume, wanted[0])
    if not options.dry_run:
        check_run_root(options.resume or options.run_root, wanted)

    with ExitStack() as locks:
        claims = [] if options.dry_run else _claim(options, wanted, locks)
        if not (claims or options.dry_run):
            return 0
        from sjc_debiased.pack import run_packed
        from sjc_debiased.prepare import load_denoiser, plan_prompts
        from sjc_debiased.record import record
        from sjc_debiased.session import Session

        plans = {}
        for resolved in wanted if options.dry_run else [claim[0] for claim in claims]:
            plans[resolved] = plan_prompts(resolved, choice, options.local_files_only)
            print(plans[resolved].table())
            if options.dry_run:
                print("\n".join(f"{name} = {value!r}" for name, value in vars(resolved).items()))
        if options.dry_run:
            return 0
        denoiser = load_denoiser(wanted[0], choice, options.local_files_only)
        if options.compile:
            denoiser.compile()
        sessions = []
        for resolved, claimed, state in claims:
            prompts, folder = plans[resolved], claimed
            if folder is None:
                notes = record(command, prompts, choice.location, device)
                folder = create_run(options.run_root, resolved, notes)
                locks.enter_context(locked(folder))
            print(f"run folder: {folder}")
            if state:
                print(f"resuming at step {state[0]} of {resolved.n_steps}")
            sessions.append(Session(resolved, choice.profile, prompts, denoiser, folder, state, options.mesh))
        n_steps = sum(session.remaining_steps for session in sessions)
        codes = [_report(*end) for end in run_packed(sessions, denoiser, options.pack, n_steps)]
        if len(codes) < len(sessions):
            print(f"{len(sessions) - len(codes)} runs were not started. The same command does them.")
            return 130
        return max(codes)


def _claim(options: Options, wanted: list[Resolved], locks: ExitStack) -> list:
    """Lock the folders of the runs that are not finished; return (options, folder or None, state or None).

    Raises:
        RunError: another process is at work in a folder, or a checkpoint is not as it was saved.
    """
    claims = []
    for resolved in wanted:
        folder, state = options.resume or find_run(options.run_root, resolved), None
        if folder and (folder / FINISHED).exists():
            print(f"finished already: {folder}. To make it again, move or delete that folder.")
            continue
        if folder:
            locks.enter_context(locked(folder))
            state = newest_state(folder)
        claims.append((resolved, folder, state))
    return claims


def _report(session, error: Exception | None) -> int:
    """Say how a run ended where it did not say so itself; return its exit code."""
    from sjc_debiased.session import DivergedError

    if error is None and session.remaining_steps:
        print(
            f"stopped after step {session.scene.done}, saved. The same command goes on from there: "
            f"{session.folder}"
        )
        return 130
    if error is None:
        return 0
    if isinstance(error, OSError):
        print(_unwritten(error), file=sys.stderr)
    elif isinstance(error, (RunError, DivergedError)):
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
