"""Disturb short runs at random moments, go on with them, and compare with one that was left alone.

    python tests/faults/crash.py [--trials 100] [--seed 0]

A trial is one of

- kill: SIGKILL before a file operation;
- time: SIGKILL, SIGTERM or SIGINT at a random time;
- error: a file operation fails (no space, input/output error, read-only, permission);
- short: writes fail in the middle of a file;
- gone: the folder of the runs vanishes before a file operation;
- full: a real disk that fills up (Linux, where mounting is allowed).

Then, with the cause mended, the same command runs again, and what it leaves must be, bit for bit, what the
undisturbed run left. Prints the counts; exits with 1 if one differs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["NUMBA_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import tyro

import run_sjc
from sjc_debiased.folder.runs import FINISHED, GALLERY, VIEW, VIEWER
from sjc_debiased.making.pictures import check_turntable
from tests.faults.disks import FILLER, NOT_ALLOWED, fill_disk, limit_file_size, mount_small_disk
from tests.faults.moments import Moments, die, failing
from voxnerf.settings import TURNTABLE_FRAMES

N_STEPS = 40
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CLEAR_ENDS = {0, 1, 2, 130}
KINDS = ("kill", "time", "error", "short", "gone", "full")
DISK_BYTES = 96 * 2**20


def command(model: Path, root: Path) -> list[str]:
    """Return the arguments of the short run."""
    return [
        *("--prompt", "a smiling cat", "--preset", "dsds-preserved", "--model", str(model)),
        *("--run_root", str(root), "--n_steps", str(N_STEPS), "--resolution", "8", "--guidance", "2"),
        *("--emptiness_weight", "1", "--precision", "float32", "--device", "cpu"),
        *("--mesh.faces", "200", "--mesh.texture", "64"),
    ]


def in_child(work: Callable[[], int], meanwhile: Callable[[int], None] = lambda pid: None) -> tuple[int, str]:
    """Run something in a forked process; return its exit code (negative: a signal) and what it printed."""
    read, write = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        code = 70
        os.dup2(write, 1)
        os.dup2(write, 2)
        try:
            code = work()
            sys.stdout.flush()
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
    (folder,) = (p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    kept = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock" and not of_pages(p)):
        name = str(path.relative_to(folder))
        if name == "turntable.mp4":  # it has a clock of its own
            check_turntable(path, TURNTABLE_FRAMES)
        elif name not in ("options.json", FINISHED):  # times
            kept[name] = path.read_bytes()
    return kept


def of_pages(path: Path) -> bool:
    """Return whether a file is only to be looked at: a run goes on where it cannot be written."""
    return path.name in (VIEW, GALLERY) or path.parent.name == VIEWER or path.match("views_*.jpg")


@dataclass(frozen=True)
class Undisturbed:
    """What the run that is left alone was like."""

    model: Path
    n_moments: int
    duration_s: float
    largest_bytes: int
    all_bytes: int


def disturb(kind: str, rng: random.Random, root: Path, u: Undisturbed) -> tuple[int, str]:
    """Disturb one run; return the exit code and the text of its end."""
    argv = command(u.model, root)
    at, error, signalled = rng.randrange(u.n_moments), rng.choice(ERRORS), rng.choice(SIGNALS)
    delay, limit = rng.uniform(0, u.duration_s), rng.randrange(1, u.largest_bytes)
    away = root.with_suffix(".away")

    def send(pid: int) -> None:
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signalled)

    def work() -> int:
        if kind in ("kill", "error", "gone"):
            acts = {"kill": die, "error": failing(error), "gone": lambda: root.exists() and root.rename(away)}
            Moments(root, at, acts[kind])
        elif kind == "short":
            limit_file_size(limit)
        return run_sjc.main(argv)

    end = in_child(work, send) if kind == "time" else in_child(work)
    if away.exists():
        shutil.rmtree(root, ignore_errors=True)
        away.rename(root)
    return end


def on_a_full_disk(rng: random.Random, root: Path, u: Undisturbed) -> int:
    """Fill the disk of a run while it runs, make room, go on there, and copy what is left to `root`."""
    left, at = rng.randrange(u.all_bytes), rng.randrange(u.n_moments)
    disk = root.with_suffix(".disk")
    disk.mkdir()
    try:
        mount_small_disk(disk, DISK_BYTES)
    except OSError:
        return NOT_ALLOWED
    argv = command(u.model, disk / "runs")

    def work() -> int:
        Moments(disk, at, lambda: fill_disk(disk, left))
        return run_sjc.main(argv)

    code, text = in_child(work)
    print(text, end="")
    (disk / FILLER).unlink(missing_ok=True)
    again, text = in_child(lambda: run_sjc.main(argv))
    if again:
        raise RuntimeError(f"going on failed ({again}): {text[-600:]}")
    shutil.copytree(disk / "runs", root)
    return code


def problem_of(
    kind: str, code: int, text: str, u: Undisturbed, root: Path, reference: dict[str, bytes]
) -> str:
    """Return what is wrong after a disturbance and going on, or ""."""
    if code >= 0 and (code not in CLEAR_ENDS or "traceback" in text.lower()):
        return f"ended unclearly ({code}): {text[-600:]}"
    if kind != "full":  # that one went on in its own child
        again, text = in_child(lambda: run_sjc.main(command(u.model, root)))
        if again:
            return f"going on failed ({again}): {text[-600:]}"
    try:
        left = remains(root)
    except (OSError, ValueError) as error:
        return f"other remains: {error}"
    differing = sorted(k for k in left.keys() | reference.keys() if left.get(k) != reference.get(k))
    return f"other remains: {differing[:5]}" if differing else ""


def tiny_pipeline(folder: Path) -> Path:
    """Write the tests' tiny model in a child, so that this process never computes and can be forked."""
    from tests.small_models import write_pipeline

    code, text = in_child(lambda: write_pipeline(folder) or 0)
    if code:
        raise RuntimeError(text)
    return folder


def undisturbed(place: Path) -> tuple[Undisturbed, dict[str, bytes]]:
    """Do the run that is left alone; return what it was like and what it left."""
    model = tiny_pipeline(place / "model")
    counted, root = place / "moments", place / "reference"

    def work() -> int:
        moments = Moments(root)
        code = run_sjc.main(command(model, root))
        counted.write_text(str(moments.count))
        return code

    began = time.monotonic()
    code, text = in_child(work)
    duration_s = time.monotonic() - began
    if code:
        raise RuntimeError(f"the undisturbed run failed:\n{text}")
    reference = remains(root)
    sizes = [p.stat().st_size for p in root.rglob("*") if p.is_file() and not of_pages(p)]
    u = Undisturbed(model, int(counted.read_text()), duration_s, max(sizes), sum(sizes))
    print(f"undisturbed: {duration_s:.1f} s, {u.n_moments} file operations, {len(reference)} files compared")
    return u, reference


def main(trials: int = 120, seed: int = 0) -> None:
    """Run the trials, the kinds in turn."""
    torch.set_num_threads(1)
    rng, failures, ends = random.Random(seed), [], Counter()
    with tempfile.TemporaryDirectory() as name:
        u, reference = undisturbed(Path(name))
        for i in range(trials):
            kind, root = KINDS[i % len(KINDS)], Path(name) / f"trial{i}"
            if kind == "full":
                code, text = in_child(lambda root=root: on_a_full_disk(rng, root, u))
                rng.random()  # the child's draws were its own
            else:
                code, text = disturb(kind, rng, root, u)
            if code == NOT_ALLOWED:
                ends[f"{kind}: mounting is not allowed here"] += 1
                continue
            ends[f"{kind}: {code}"] += 1
            if problem := problem_of(kind, code, text, u, root, reference):
                failures.append(f"trial {i} ({kind}): {problem}")
                print(failures[-1], flush=True)
            shutil.rmtree(root, ignore_errors=True)
    tried = trials - sum(n for end, n in ends.items() if "not allowed" in end)
    print(f"{tried} trials, {tried - len(failures)} bit-exact after going on")
    if harmless := [
        k
        for k in KINDS
        if ends[f"{k}: 0"] >= 5 and not any(e.startswith(k) and not e.endswith(": 0") for e in ends)
    ]:
        failures.append(f"{', '.join(harmless)} disturbed nothing")
        print(failures[-1])
    print("ends (exit code, negative for a signal):")
    for end, n in sorted(ends.items()):
        print(f"  {end}: {n}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    tyro.cli(main)
