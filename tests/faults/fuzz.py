"""Coverage-guided fuzzing of every parser of files that come from others (atheris; `pip install atheris`).

    python tests/faults/fuzz.py [--seconds 600]

The seconds are shared by the targets. A parser may return or refuse with its own error; anything else is a
crash, which is printed with the input that did it. The seeds are in `tests/faults/seeds/TARGET/`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

SEEDS = Path(__file__).parent / "seeds"
_MOST_BYTES = 4096


def suite(data: bytes, place: Path) -> None:
    """Read a suite file and the settings in it."""
    from prompts.suites import SuiteError, load_suite
    from sjc_debiased.options.command import Basic, OptionError, Options
    from sjc_debiased.options.of_suite import options_of

    path = place / "suite.json"
    path.write_bytes(data)
    with contextlib.suppress(SuiteError, OptionError):
        for entry in load_suite(str(path)).prompts:
            options_of(Options(Basic(prompt=())), entry, "dsds")


def answers(data: bytes, place: Path) -> None:
    """Read and count a file of answers of the user study."""
    from sjc_debiased.evaluation.study import StudyError, count, read_answers

    path = place / "answers.json"
    path.write_bytes(data)
    with contextlib.suppress(StudyError):
        count({"study": "0123456789abcdef", "ours": [0, 1]}, [read_answers(path)])


def labels(data: bytes, place: Path) -> None:
    """Read labels by eye."""
    from sjc_debiased.evaluation.labels import LabelError, describe, read_labels

    row = {"run": "0", "preset": "sjc", "judged": [True] * 8, "judged_success": False}
    (place / "key.json").write_text(json.dumps({"rows": [row]}))
    (place / "labels.json").write_bytes(data)
    with contextlib.suppress(LabelError):
        describe(read_labels(place))


def profile(data: bytes, place: Path) -> None:
    """Read the profile of a model folder."""
    from sjc_debiased.options.profiles import STABLE_DIFFUSION, load_profile

    (place / "profile.json").write_bytes(data)
    with contextlib.suppress(ValueError):
        load_profile(str(place), STABLE_DIFFUSION)


def checkpoint(data: bytes, place: Path) -> None:
    """Read a checkpoint whose checksum is right."""
    from sjc_debiased.folder.checkpoints import Checkpoint, load_checkpoint
    from sjc_debiased.folder.runs import RunError

    path = place / "step_000001.safetensors"
    path.write_bytes(data)
    path.with_suffix(".json").write_text(f'{{"step": 1, "sha256": "{hashlib.sha256(data).hexdigest()}"}}')
    with contextlib.suppress(RunError):
        load_checkpoint(Checkpoint(path, 1))


def manifest(data: bytes, place: Path) -> None:
    """Read a manifest of a checkpoint, and the options of a run folder."""
    from sjc_debiased.folder.checkpoints import newest_state
    from sjc_debiased.folder.identity import saved_options
    from sjc_debiased.folder.runs import RunError

    (place / "checkpoints").mkdir(exist_ok=True)
    (place / "checkpoints/step_000001.safetensors").write_bytes(b"")
    (place / "checkpoints/step_000001.json").write_bytes(data)
    (place / "options.json").write_bytes(data)
    saved_options(place)
    with contextlib.suppress(RunError):
        newest_state(place)


def arrays(data: bytes, place: Path) -> None:
    """Read a pickle of arrays: it may build them or fail, but never reach for anything else."""
    from scripts.get_lpips_backbones import convert

    _watch()
    with contextlib.suppress(
        *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError),
        *(StopIteration, MemoryError, OverflowError, NotImplementedError, RuntimeError),
    ):
        convert("alex", data)


@cache
def _watch() -> None:
    """End this process with a crash as soon as it runs a command, compiles code or opens a connection."""

    def hear(event: str, arguments: tuple) -> None:
        if event in ("os.system", "os.exec", "subprocess.Popen", "exec", "compile", "socket.connect"):
            os.abort()

    sys.addaudithook(hear)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    f.__name__: f for f in (suite, answers, labels, profile, checkpoint, manifest, arrays)
}


def fuzz(target: str, seconds: int) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with atheris.instrument_imports(include=["prompts", "sjc_debiased", "scripts", "json", "pickle"]):
            TARGETS[target](b"{}", place)
        arguments = [f"-max_total_time={seconds}", f"-max_len={_MOST_BYTES}", "-rss_limit_mb=8192"]
        corpus = place / "corpus"
        corpus.mkdir()
        atheris.Setup(
            [
                sys.argv[0],
                *arguments,
                f"-artifact_prefix={Path.cwd()}/crash-",
                str(corpus),
                str(SEEDS / target),
            ],
            lambda data: TARGETS[target](data, place),
        )
        atheris.Fuzz()


def main(seconds: int = 600, target: str | None = None) -> None:
    """Fuzz every target in turn and print the counts, or one target alone."""
    if target:
        fuzz(target, seconds)
    crashed = 0
    for name in TARGETS:
        command = [
            sys.executable,
            __file__,
            "--target",
            name,
            "--seconds",
            str(max(seconds // len(TARGETS), 1)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"Done (\d+) runs", done.stderr)
        crashed += done.returncode != 0
        count = found[1] if found else "?"
        print(f"{name}: {count} executions, {'CRASH' if done.returncode else 'no crash'}", flush=True)
        if done.returncode:
            print(done.stderr[-3000:])
    sys.exit(1 if crashed else 0)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
