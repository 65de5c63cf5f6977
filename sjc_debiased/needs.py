"""What a run needs of a machine, looked up without loading a model and without asking a hub."""

from __future__ import annotations

import re
import shutil
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from prompts.hub import megabytes
from sjc_debiased import __version__

if TYPE_CHECKING:
    from sjc_debiased.models.choose import Choice
    from sjc_debiased.models.machine import Machine
    from sjc_debiased.options.config import Resolved

_WIDTH, _INDENT = 110, 26
_ELSEWHERE = "Make room, or choose another place with --run_root."
_SHOWN = ("torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Line:
    """Say how one thing is.

    Attributes:
        text: what was found; remedy: the way out where it is not OK.
        needed: whether a run cannot start without it.
    """

    name: str
    state: Literal["OK", "MISSING", "SLOW"]
    text: str
    remedy: str = ""
    needed: bool = True

    def __str__(self) -> str:
        """Return the line as a row of the table, wrapped."""
        text = f"{self.text} {self.remedy}".strip()
        width = _WIDTH - _INDENT
        first, *more = textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)
        return "\n".join([f"{self.name:<18}{self.state:<8}{first}", *(" " * _INDENT + row for row in more)])


def packages() -> Line:
    """Return whether the packages of requirements.txt are installed, in versions that are new enough."""
    wrong = []
    for name, floor in _requirements():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed")
            continue
        if _numbers(found) < _numbers(floor):
            wrong.append(f"{name} is {found}, and must be {floor} or newer")
    if wrong:
        remedy = "Run `pip install --upgrade -r requirements.txt`."
        return Line("packages", "MISSING", "; ".join(wrong) + ".", remedy)
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in _SHOWN)
    return Line("packages", "OK", f"sjc-debiased {__version__}, {shown}, and all others")


def _requirements() -> list[tuple[str, str]]:
    """Return name and least version of every package that the checkout, or the installed copy, needs."""
    root = Path(__file__).parents[1]
    if (root / "pyproject.toml").exists():
        lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    else:
        lines = [r for r in metadata.requires("sjc-debiased") or [] if "extra ==" not in r]
    return re.findall(r"^([\w.-]+) *>= *([\d.]+)", "\n".join(lines), re.M)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.sub(r"[^\d.].*", "", version).split(".") if number]


def machine(chosen: Machine) -> list[Line]:
    """Return what the device and the precision are, and why, and whether others use the processor."""
    import psutil
    import torch

    from sjc_debiased.making.provenance import device_name

    device = Line("device", "OK", f"{chosen.device}: {device_name(chosen.device)}")
    if chosen.device == "cpu" and not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        text = f"{device.text}. There is an NVIDIA driver, but PyTorch {torch.__version__} sees no GPU."
        device = Line("device", "SLOW", text, "Install a build of PyTorch for this driver's CUDA.")
    precision = Line("precision", "OK", f"{chosen.precision}: {chosen.why}")
    load, cores = psutil.getloadavg()[0], psutil.cpu_count() or 1
    if load <= cores:
        return [device, precision]
    text = f"{load:.0f} processes want {cores} cores: the times below are too long."
    return [device, precision, Line("load", "SLOW", text, "Measure again when they are done.")]


def kernel(chosen: Machine) -> Line:
    """Return which of the renderer's kernels works; the plain one is slow."""
    return Line("kernel", "SLOW" if chosen.kernel == "torch" else "OK", chosen.why_kernel)


def weights(choice: Choice) -> list[Line]:
    """Return whether the weights of the 2D model and of its language model are there, and fit the memory."""
    import psutil

    from prompts.masked_lm import find_masked_lm
    from sjc_debiased.models.finding import find_model

    try:
        found = find_model(choice.location, local_files_only=True)
    except (OSError, ValueError) as error:
        lines = [Line("weights", "MISSING", str(error))]
    else:
        files = found.weights()
        shown = ", ".join(f"{name} ({megabytes(size)})" for name, size in files.items())
        place = "" if found.family else f", in {found.place}"
        lines = [Line("weights", "OK", f"{shown}{place}")]
        needed, free = found.at_a_time(), psutil.virtual_memory().available
        room = f"{megabytes(free)} free; the weights alone take {megabytes(needed)}"
        if free >= needed:
            lines += [Line("memory", "OK", room)]
        else:
            lines += [Line("memory", "MISSING", f"{room}.", "Close other programs.")]
    name = choice.masked_lm(choice.profile.masked_lm)
    find = partial(find_masked_lm, name, local_files_only=True)
    return [*lines, _found("language model", "for prompt debiasing", find)]


def measuring(choice: Choice) -> list[Line]:
    """Return whether the networks are there that measure finished runs; a run starts without them."""
    from sjc_debiased.evaluation.a_lpips import backbones_folder, find_backbone
    from sjc_debiased.evaluation.clip_similarity import CLIP, find_clip
    from sjc_debiased.menagerie import EMBEDDED, WEIGHTS

    backbones = {net: find_backbone(net) for net in ("alex", "vgg")}
    lacking = [net for net, place in backbones.items() if place is None]
    if lacking:
        nets = " and ".join(lacking)
        text = f"for measuring only: {nets} are neither in {backbones_folder()} nor in torchvision's cache."
        remedy = "Where there is a network they are fetched when needed; or take a checkout's "
        remedy += "`python scripts/get_lpips_backbones.py`."
        lpips = Line("LPIPS", "MISSING", text, remedy, needed=False)
    else:
        places = ", ".join(str(place) for place in backbones.values())
        lpips = Line("LPIPS", "OK", f"for measuring only: {places}")
    clip = str(WEIGHTS / "clip") if choice.name in EMBEDDED else CLIP
    find = partial(find_clip, clip, local_files_only=True)
    return [lpips, _found("CLIP", "for measuring only", find, needed=False)]


def _found(name: str, purpose: str, find: Callable[[], Path], needed: bool = True) -> Line:
    """Return whether a model is there, by what finds its folder or raises OSError."""
    try:
        return Line(name, "OK", f"{purpose}: {find()}")
    except OSError as error:
        return Line(name, "MISSING", f"{purpose}: {error}", needed=needed)


def video() -> Line:
    """Return whether the turntable can be encoded, which is noticed only at a run's end otherwise."""
    import imageio_ffmpeg

    try:
        return Line("video", "OK", f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}")
    except (RuntimeError, OSError) as error:
        remedy = "Install ffmpeg, or `pip install --force-reinstall imageio-ffmpeg`."
        return Line("video", "MISSING", f"no ffmpeg was found ({error}).", remedy)


def memory_in_use(device: str) -> Line:
    """Return how much memory this process holds after its first steps, and how much is left."""
    import psutil
    import torch

    held, free = psutil.Process().memory_info().rss, psutil.virtual_memory().available
    text = f"{megabytes(held)} with model and scenes, {megabytes(free)} left"
    if device.startswith("cuda"):
        free, there = torch.cuda.mem_get_info(device)
        peak = torch.cuda.max_memory_allocated(device)
        on_gpu = f"GPU: {megabytes(peak)} at most, {megabytes(free)} left of {megabytes(there)}"
        text = f"{on_gpu}; main memory: {text}"
    return Line("memory in use", "OK", text)


def disk(run_root: Path, run: Resolved) -> Line:
    """Return whether a run root can be written to and has room for an object."""
    from sjc_debiased.folder.runs import needed_bytes

    place, needed = existing(run_root), needed_bytes([run])
    free = shutil.disk_usage(place).free
    text = f"{megabytes(free)} free in {run_root.absolute()}; an object needs at most {megabytes(needed)}"
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            pass
    except OSError as error:
        return Line("disk", "MISSING", f"{text}. No file could be made there ({error}).", _ELSEWHERE)
    if free < needed:
        return Line("disk", "MISSING", f"{text}.", _ELSEWHERE)
    return Line("disk", "OK", text)


def existing(place: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(p for p in (place.absolute(), *place.absolute().parents) if p.is_dir())
