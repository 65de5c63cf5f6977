"""A long run's memory and disk, and whether the same seed gives the same bits.

    python tests/faults/stress.py memory [--n_steps 50000]
    python tests/faults/stress.py bits

`memory` prints the process's memory at 2 % of the steps and at the end, and the sizes of its log and its
previews. It exits with 1 where the memory grew by more than 5 %. `bits` runs the same command in three
processes with one thread and in three with two, and compares their last checkpoints. It exits with 1 where
the same number of threads gives other bits; one and two are compared too, but PyTorch promises nothing there.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import tyro

from tests.small_models import write_pipeline

REPOSITORY = Path(__file__).parents[2]
_MOST_GROWTH = 1.05
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


def start(model: Path, root: Path, n_steps: int, threads: int) -> subprocess.Popen:
    """Start a run of the tests' tiny model."""
    command = [
        *(sys.executable, "run_sjc.py", "--prompt", "a smiling cat", "--preset", "dsds-preserved"),
        *("--model", str(model), "--run_root", str(root), "--n_steps", str(n_steps), "--resolution", "16"),
        *("--guidance", "2", "--emptiness_weight", "1", "--precision", "float32", "--device", "cpu"),
    ]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=os.environ | limits | {"HF_HUB_OFFLINE": "1"}, **quiet
    )


def memory(n_steps: int = 50_000) -> None:
    """Watch one long run."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_pipeline(place / "model")
        process, at = start(place / "model", place / "runs", n_steps, threads=2), {}
        while process.poll() is None:
            previews = len(list(place.glob("runs/0*/previews/*.png")))  # one for every percent
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            except (OSError, IndexError):
                break
            at[previews] = pages * _PAGE_KIB / 1024
            time.sleep(0.2)
        if process.wait():
            sys.exit(f"the run failed with {process.returncode}")
        first, last = at[2], at[max(p for p in at if p < 100)]
        (folder,) = place.glob("runs/0*")
        log = (folder / "stats.jsonl").stat().st_size
        pictures = sum(p.stat().st_size for p in folder.glob("previews/*.png"))
    print(f"{n_steps} steps: {first:.0f} MiB after 2 %, {last:.0f} MiB at the end ({last / first - 1:+.1%})")
    print(
        f"log {log / 2**20:.1f} MiB ({log / n_steps:.0f} bytes a step), previews {pictures / 2**20:.1f} MiB"
    )
    sys.exit(last > _MOST_GROWTH * first)


def bits(n_steps: int = 200) -> None:
    """Compare the last checkpoints of equal runs."""
    found: dict[int, set[str]] = {1: set(), 2: set()}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_pipeline(place / "model")
        for threads, digests in found.items():
            for i in range(3):
                root = place / f"{threads}-{i}"
                if start(place / "model", root, n_steps, threads).wait():
                    sys.exit("a run failed")
                (path,) = root.glob(f"0*/checkpoints/step_{n_steps:06d}.safetensors")
                digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    for threads, digests in found.items():
        same = "the same bits" if len(digests) == 1 else f"{len(digests)} different results"
        print(f"3 processes of {n_steps} steps with {threads} threads: {same}")
    print(f"1 and 2 threads: {'the same' if found[1] == found[2] else 'different'} bits")
    sys.exit(any(len(digests) > 1 for digests in found.values()))


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"memory": memory, "bits": bits}, use_underscores=True)
