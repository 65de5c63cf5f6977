"""What the benchmarks share: the scene they time, and what they write down beside their figures."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path

import torch

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.making.estimate import sample_run, throwaway_scene
from sjc_debiased.making.provenance import device_name
from sjc_debiased.models.machine import has_bfloat16_units
from sjc_debiased.optimize import Scene
from sjc_debiased.options.profiles import Profile


def describe(device: torch.device | str = "cpu") -> dict:
    """Return processor or GPU, threads and version."""
    place = torch.device(device)
    return {
        "device": device_name(str(place)),
        "units": f"ATen {torch.backends.cpu.get_cpu_capability()}, bfloat16: {has_bfloat16_units()}",
        "torch": torch.__version__,
    }


def write_json(path: Path, figures: dict) -> None:
    """Write figures as indented JSON."""
    path.write_text(json.dumps(figures, indent=2) + "\n")


def peak_mib(work: Callable[[], object], device: torch.device) -> float | None:
    """Return the most memory while something is done, of the device or the process; None but on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) / 2**20
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not reset.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # freed memory goes back, so that it counts again
    reset.write_text("5")
    work()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def make_scene(profile: Profile, denoiser: Denoiser, n_steps: int, seed: int = 0) -> Scene:
    """Return a scene of a model at its start, as D-SDS optimises it."""
    return throwaway_scene(sample_run(profile, n_steps, seed), denoiser)
