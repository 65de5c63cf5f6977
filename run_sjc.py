"""The command: a prompt in, a 3D object out. Command line and composition root, nothing else.

python run_sjc.py --prompt "a smiling cat" --debias
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

import tyro

from sjc_debiased.config import OptionError, Options, resolve, translate_dsds_arguments
from sjc_debiased.runs import (
    FINISHED,
    RunError,
    check_run_root,
    check_same_options,
    create_run,
    find_run,
    locked,
    newest_state,
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
    except KeyboardInterrupt:
        print("run_sjc.py: interrupted. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130


def run(options: Options, command: list[str]) -> int:
    """Make one object, from the options to the finished run folder.

    Whatever can be refused is refused before a model is loaded, and a run folder appears only after.
    """
    from sjc_debiased.models import check_words, choose_device, choose_model, fingerprint

    device, precision = choose_device(options.device, options.precision)
    choice = choose_model(options.model, device)
    print(f"model: {choice.name}, on {device} in {precision} ({choice.why})")
    weights = fingerprint(choice.location)
    resolved = resolve(options, choice.profile, choice.name, weights, device, precision)
    check_words(resolved.prompt, choice)
    if options.resume:
        check_same_options(options.resume, resolved)
    if not options.dry_run:
        check_run_root(options.resume or options.run_root, resolved)
    folder = options.resume or find_run(options.run_root, resolved)

    with ExitStack() as stack:
        state = None
        if folder and not options.dry_run:
            if (folder / FINISHED).exists():
                print(f"finished already: {folder}. To make it again, move or delete that folder.")
                return 0
            stack.enter_context(locked(folder))
            state = newest_state(folder)
        from sjc_debiased.record import record
        from sjc_debiased.session import DivergedError, Session, plan_prompts

        prompts = plan_prompts(resolved, choice, options.local_files_only)
        print(prompts.table())
        if options.dry_run:
            print("\n".join(f"{name} = {value!r}" for name, value in vars(resolved).items()))
            return 0
        session = Session(resolved, choice, prompts, options.local_files_only)
        if folder is None:
            folder = create_run(options.run_root, resolved, record(command, prompts, choice.location, device))
            stack.enter_context(locked(folder))
        print(f"run folder: {folder}")
        try:
            return session.run(folder, state, options.mesh)
        except DivergedError as error:
            print(f"run_sjc.py: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
