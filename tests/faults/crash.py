"""Disturb short runs at random moments, go on with them, and compare with one that was left alone.

    python tests/faults/crash.py [--trials 100] [--seed 0]

A trial is one of: SIGKILL before a file operation; SIGKILL, SIGTERM or SIGINT at a random time; an error
(no space, input/output error, read-only, permission) in a file operation. Then the same command runs again,
and what it leaves must be, bit for bit, what the undisturbed run left. Prints the counts; exits with 1 if one
differs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["NUMBA_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import tyro

import run_sjc
from sjc_debiased.runs import FINISHED
from tests.faults.moments import Moments, die, failing

N_STEPS = 40
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CLEAR_ENDS = {0, 1, 2, 130}


def command(model: Path, root: Path) -> list[str]:
    """Return the arguments of the short run."""
    return [
        *("--prompt", "a smiling cat", "--preset", "dsds-preserved", "--model", str(model)),
        *("--run_root", str(root), "--n_steps", str(N_STEPS), "--resolution", "8", "--guidance", "2"),
        *("--emptiness_weight", "1", "--precision", "float32", "--device", "cpu"),
    ]


def in_child(work: Callable[[], int], meanwhile: Callable[[int], None] = lambda pid: None) -> tuple[int, str]:
    """Run something in a forked process; return its exit code (negative: a signal) and what it printed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        code = 70
        os.dup2(write, 1)
        os.dup2(write, 2)
        try:
            code = work()
        except BaseException as error:  # a traceback is what must never be seen
            os.write(2, f"TRACEBACK {type(error).__name__}: {error}".encode())
        finally:
            os._exit(code)
    os.close(write)
    meanwhile(pid)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def remains(root: Path) -> dict[str, bytes]:
    """Return what a run left that must not depend on how it came about, by name."""
    (folder,) = (p for p in root.iterdir() if not p.name.startswith("."))
    kept = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"):
        name = str(path.relative_to(folder))
        if name not in ("options.json", FINISHED, "turntable.mp4"):  # times, and a video's own clock
            kept[name] = path.read_bytes()
    return kept


def trial(kind: str, rng: random.Random, model: Path, root: Path, n_moments: int, duration_s: float):
    """Disturb one run; return the exit code and the text of its end."""
    argv = command(model, root)
    if kind == "time":
        chosen, delay = rng.choice(SIGNALS), rng.uniform(0, duration_s)

        def send(pid: int) -> None:
            time.sleep(delay)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, chosen)

        return in_child(lambda: run_sjc.main(argv), send)
    act = die if kind == "kill" else failing(rng.choice(ERRORS))
    at = rng.randrange(n_moments)

    def work() -> int:
        Moments(root, at, act)
        return run_sjc.main(argv)

    return in_child(work)


def tiny_pipeline(folder: Path) -> Path:
    """Write the tests' tiny model in a child, so that this process never computes and can be forked."""
    from tests.small_models import write_pipeline

    code, text = in_child(lambda: write_pipeline(folder) or 0)
    if code:
        raise RuntimeError(text)
    return folder


def main(trials: int = 100, seed: int = 0) -> None:
    """Run the trials in turn, a third of each kind."""
    torch.set_num_threads(1)
    rng, failures, ends = random.Random(seed), [], Counter()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = tiny_pipeline(place / "model")
        counted = place / "moments"

        def undisturbed() -> int:
            moments = Moments(place / "reference")
            code = run_sjc.main(command(model, place / "reference"))
            counted.write_text(str(moments.count))
            return code

        began = time.monotonic()
        code, text = in_child(undisturbed)
        duration_s = time.monotonic() - began
        if code:
            raise RuntimeError(f"the undisturbed run failed:\n{text}")
        reference, n_moments = remains(place / "reference"), int(counted.read_text())
        print(
            f"undisturbed: {duration_s:.1f} s, {n_moments} file operations, {len(reference)} files compared"
        )
        for i in range(trials):
            kind, root = ("kill", "time", "error")[i % 3], place / f"trial{i}"
            code, text = trial(kind, rng, model, root, n_moments, duration_s)
            ends[f"{kind}: {code}"] += 1
            problem = None
            if code >= 0 and (code not in CLEAR_ENDS or "TRACEBACK" in text or "Traceback" in text):
                problem = f"ended unclearly ({code}): {text[-600:]}"
            again, text = in_child(lambda root=root: run_sjc.main(command(model, root)))
            if again:
                problem = f"going on failed ({again}): {text[-600:]}"
            elif problem is None and (left := remains(root)) != reference:
                differing = sorted(
                    k for k in left.keys() | reference.keys() if left.get(k) != reference.get(k)
                )
                problem = f"other remains: {differing[:5]}"
            if problem:
                failures.append(f"trial {i} ({kind}): {problem}")
                print(failures[-1], flush=True)
    print(f"{trials} trials, {trials - len(failures)} bit-exact after going on")
    print(f"ends (exit code, negative for a signal): {dict(sorted(ends.items()))}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    tyro.cli(main)
