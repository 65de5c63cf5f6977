"""What a run writes down about itself, so that another can repeat it."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from prompts.debias import ViewPrompts
from sjc_debiased import __version__
from sjc_debiased.folder.runs import sha256
from sjc_debiased.models.choose import Choice, fingerprint
from sjc_debiased.models.lora import lora_file
from sjc_debiased.models.machine import Machine
from sjc_debiased.models.pipelines import profile_of

_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "safetensors")
_SOURCE = ("sjc_debiased", "voxnerf", "prompts", "adapt_*.py", "run_sjc.py")


def record(command: list[str], prompts: ViewPrompts, choice: Choice, machine: Machine) -> dict:
    """Return what `options.json` says beside the resolved options.

    Args:
        choice: the model that was loaded, and its LoRAs.
    """
    return {
        "command": command,
        "view_prompts": asdict(prompts),
        "model_identity": _identity(choice.location) | _loras(choice),
        "device": device_name(machine.device),
        "machine": asdict(machine),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def versions() -> dict[str, str]:
    """Return the versions of this program, of Python, and of the packages that decide what a run makes."""
    own = {"sjc-debiased": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in _PACKAGES}


@cache
def _identity(location: str) -> dict:
    """Return the name of a model and what pins its weights: hashes, or the hub's revision."""
    place = Path(location)
    if place.is_file():
        return {"sha256": {place.name: sha256(place)}}
    if not place.is_dir():
        return {"hub_name": location, "revision": fingerprint(location)}
    others = [index.parent for index in place.glob("*/model_index.json")]  # models of their own
    weights = {p for p in place.rglob("*.safetensors") if not {*others} & {*p.parents}}
    weights |= {*(place / profile_of(location).masked_lm).rglob("*.safetensors")}  # which may be beside it
    own = sorted(p for p in weights if p.is_relative_to(place))
    return {"sha256": {p.relative_to(place).as_posix(): sha256(p) for p in own}}


def _loras(choice: Choice) -> dict:
    if not choice.loras:
        return {}
    files = [(lora, lora_file(lora, local_files_only=True)) for lora in choice.loras]
    return {"loras": [{"name": r.name, "scale": r.scale, "sha256": sha256(file)} for r, file in files]}


def device_name(device: str) -> str:
    """Return what a device is called: the GPU's name, or the processor's with the threads in use."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or not x86
        return platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Return the commit of this source, or None where it is no checkout of its own.

    It ends in "-dirty" where the source differs from that commit.

    An installed package may lie in a repository that is another project's: the source's own one tracks this
    file, and tracks it at the place that the package has in it.
    """
    here = Path(__file__)
    place = "/".join(here.parts[-3:])
    if _git(here.parent, "ls-files", "--full-name", "--error-unmatch", "--", here.name) != place:
        return None
    commit = _git(here.parent, "rev-parse", "HEAD")
    return f"{commit}-dirty" if _git(here.parents[2], "status", "--porcelain", "--", *_SOURCE) else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints about a folder, or None where it has nothing to say."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
