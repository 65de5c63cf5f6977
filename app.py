"""A page to play with: type a prompt, and see it grow by SJC and by D-SDS side by side.

python app.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import tyro

from sjc_debiased.folder.runs import RunError
from sjc_debiased.options.command import OptionError
from sjc_debiased.options.extras import check_address, check_extra


def main(
    model: str = "menagerie",
    run_root: Path = Path("runs"),
    most_steps: int | None = None,
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int | None = None,
) -> None:
    """Serve a page where a prompt grows into two objects, by SJC and by D-SDS.

    Args:
        model: as --model of run_sjc.py has it; menagerie is the embedded one.
        run_root: parent of the numbered run folders, which are like any others.
        most_steps: nobody gets more. (default: the model's own number)
        device: auto, cpu, cuda, cuda:N, or mps (untested).
        host: address to listen at; 0.0.0.0 for whoever reaches this machine.
        port: to listen at. (default: the first free one from 7860)
    """
    check_extra("app.py", "gradio")
    check_address("--host", host)
    from sjc_debiased.watching.app_page import build_page, serve
    from sjc_debiased.watching.pair import pair_maker

    serve(build_page(pair_maker(model, device, run_root, most_steps)), host, port)


if __name__ == "__main__":
    try:
        tyro.cli(main, prog="app.py", use_underscores=True)
    except (OSError, OptionError, RunError) as problem:
        print(f"app.py: {problem}", file=sys.stderr)
        sys.exit(2)
