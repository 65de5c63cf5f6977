"""Start-up: of `--help`, and from the command line to the first step's picture.

    python benchmarks/bench_start.py [--repeats 5] [--out FILE.json]

Beside them, as a floor, the libraries' own imports: Python, torch, and what loads the models.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tyro

from benchmarks.common import describe, write_json

ROOT = Path(__file__).parents[1]
LIBRARIES = "import torch, diffusers.models.unets; from transformers import BertForMaskedLM, CLIPTextModel"
WHOLE = {
    "python alone": ["-c", ""],
    "import torch": ["-c", "import torch"],
    "import torch, diffusers' U-Net, transformers' BERT and CLIP": ["-c", LIBRARIES],
    "run_sjc.py --help": ["run_sjc.py", "--help"],
}


def to_the_end(arguments: list[str]) -> float:
    """Return the seconds that Python takes with these arguments."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def to_the_first_step() -> float:
    """Return the seconds until a debiased run of the menagerie has left the picture of its first step.

    Of a hundred steps, because a short run leaves a picture of every step.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "run_sjc.py", "--prompt", "a smiling cat", "--debias"]
        command += ["--model", "menagerie", "--n_steps", "100", "--run_root", folder]
        began = time.perf_counter()
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not any(Path(folder).glob("*/previews/step_000001.png")):
                if run.poll() is not None:
                    raise RuntimeError(f"the run left no picture of its first step: {' '.join(command)}")
                time.sleep(0.005)
            return time.perf_counter() - began
        finally:
            run.kill()
            run.wait()


def main(repeats: int = 5, out: Path | None = None) -> None:
    """Print the table; write it as JSON with the machine to `out`."""
    times: dict[str, list[float]] = {name: [] for name in (*WHOLE, "run_sjc.py to its first step")}
    for _ in range(repeats):
        for name, arguments in WHOLE.items():
            times[name].append(to_the_end(arguments))
        times["run_sjc.py to its first step"].append(to_the_first_step())
    medians = {name: round(statistics.median(t), 2) for name, t in times.items()}
    print("| what | seconds (median) |\n|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds} |")
    if out:
        write_json(out, {"machine": describe(), "seconds": medians})


if __name__ == "__main__":
    tyro.cli(main)
