"""What a run needs of a machine, looked up without loading a model and without asking a hub."""

from __future__ import annotations

import re
import shutil
import tempfile
import textwrap
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sjc_debiased import __version__

if TYPE_CHECKING:
    from sjc_debiased.config import Resolved
    from sjc_debiased.machine import Machine
    from sjc_debiased.models import Choice
    from voxnerf.grid import VoxelGrid

_WIDTH, _INDENT = 110, 26
_PARTS = ("unet", "vae", "text_encoder")
_CLIP = "openai/clip-vit-base-patch32"
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
        remedy = "Run `pip install -r requirements.txt`, or `pip install --upgrade sjc-debiased`."
        return Line("packages", "MISSING", "; ".join(wrong) + ".", remedy)
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in _SHOWN)
    return Line("packages", "OK", f"sjc-debiased {__version__}, {shown}, and all others")


def _requirements() -> list[tuple[str, str]]:
    """Return name and least version of every package that the checkout, or the installed copy, needs."""
    file = Path(__file__).parents[1] / "requirements.txt"
    if file.exists():
        lines = file.read_text(encoding="utf-8").splitlines()
    else:
        lines = [r for r in metadata.requires("sjc-debiased") or [] if "extra ==" not in r]
    return re.findall(r"^([\w.-]+) *>= *([\d.]+)", "\n".join(lines), re.M)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.match(r"[\d.]*", version)[0].split(".") if number]


def machine(chosen: Machine) -> list[Line]:
    """Return what the device and the precision are, and why, and whether others use the processor."""
    import psutil
    import torch

    from sjc_debiased.record import device_name

    device = Line("device", "OK", f"{chosen.device}: {device_name(chosen.device)}")
    if chosen.device == "cpu" and not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        text = f"{device.text}. There is an NVIDIA driver, but PyTorch {torch.__version__} sees no GPU."
        device = Line("device", "SLOW", text, "Install a build of PyTorch for this driver's CUDA.")
    precision = Line("precision", "OK", f"{chosen.precision}: {chosen.why}")
    load, cores = psutil.getloadavg()[0], psutil.cpu_count()
    if load <= cores:
        return [device, precision]
    text = f"{load:.0f} processes want {cores} cores: the times below are too long."
    return [device, precision, Line("load", "SLOW", text, "Measure again when they are done.")]


def kernel(grid: VoxelGrid) -> Line:
    """Return which of the renderer's kernels works on a grid here, tried once."""
    from voxnerf.trial import usable_kernel

    try:
        name, why = usable_kernel(grid)
    except ValueError as error:
        return Line("kernel", "MISSING", str(error))
    return Line("kernel", "SLOW" if name == "torch" else "OK", why)


def weights(choice: Choice) -> list[Line]:
    """Return whether the weights of the 2D model and of its language model are there, and fit the memory."""
    import psutil

    lm = choice.masked_lm(choice.profile.masked_lm)
    language = _single("language model", lm, "prompt debiasing")
    try:
        files = _weight_files(choice.location)
    except FileNotFoundError as error:
        remedy = f"Where there is a network: hf download {choice.location}. Or --model menagerie."
        return [Line("weights", "MISSING", str(error), remedy), language]
    sizes = ", ".join(f"{part} {_size(found)}" for part, found in files.items())
    there = Line("weights", "OK", f"{sizes}, in {next(iter(files.values()))[0].parents[1]}")
    needed = sum(f.stat().st_size for found in files.values() for f in found)
    free = psutil.virtual_memory().available
    room = f"{gib(free)} free; the weights alone take {gib(needed)}"
    if free < needed:
        return [there, language, Line("memory", "MISSING", f"{room}.", "Close other programs.")]
    return [there, language, Line("memory", "OK", room)]


def _weight_files(location: str) -> dict[str, list[Path]]:
    """Return the files of each part's weights, of a folder or of a hub name's cache.

    Raises:
        FileNotFoundError: a part is not there.
    """
    from adapt_sd import check_pipeline_folder

    folder = _place(location, "model_index.json")
    check_pipeline_folder(str(folder))
    files = {part: sorted((folder / part).glob("*.safetensors")) for part in _PARTS}
    if lacking := [part for part, found in files.items() if not found]:
        raise FileNotFoundError(f"{folder} has no .safetensors of {', '.join(lacking)}.")
    return files


def measuring(choice: Choice) -> list[Line]:
    """Return whether the networks are there that measure finished runs; a run starts without them."""
    import torchvision
    from torch.hub import get_dir

    from sjc_debiased.evaluation.a_lpips import backbones_folder
    from sjc_debiased.menagerie import WEIGHTS

    models = torchvision.models
    pretrained = {"alex": models.AlexNet_Weights.IMAGENET1K_V1, "vgg": models.VGG16_Weights.IMAGENET1K_V1}
    places = {
        net: (backbones_folder() / f"{net}.safetensors", Path(get_dir(), "checkpoints", Path(w.url).name))
        for net, w in pretrained.items()
    }
    found = [next((p for p in paths if p.exists()), None) for paths in places.values()]
    if None in found:
        nets = " and ".join(places)
        text = f"for measuring only: {nets} are neither in {backbones_folder()} nor in {get_dir()}."
        remedy = "Where there is a network they are fetched when needed; or take a checkout's "
        remedy += "`python scripts/get_lpips_backbones.py`."
        lpips = Line("LPIPS", "MISSING", text, remedy, needed=False)
    else:
        lpips = Line("LPIPS", "OK", f"for measuring: {_size(found)}, in {found[0].parent}")
    clip = str(WEIGHTS / "clip") if choice.name == "menagerie" else _CLIP
    return [lpips, _single("CLIP", clip, "measuring only", needed=False)]


def _single(name: str, location: str, purpose: str, needed: bool = True) -> Line:
    """Return whether a model of one file of weights is there."""
    try:
        folder = _place(location, "model.safetensors")
    except FileNotFoundError as error:
        remedy = f"Where there is a network: hf download {location}."
        return Line(name, "MISSING", f"for {purpose}: {error}", remedy, needed)
    size = _size([folder / "model.safetensors"])
    return Line(name, "OK", f"for {purpose}: {size}, in {folder}")


def _place(location: str, file: str) -> Path:
    """Return the folder of a model that holds a file: the one that is named, or a hub name's in the cache.

    Raises:
        FileNotFoundError: it is in neither; says where it was looked for.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if Path(location).is_dir():
        if (Path(location) / file).exists():
            return Path(location)
        raise FileNotFoundError(f"{location} has no {file}.")
    cached = try_to_load_from_cache(location, file)
    if isinstance(cached, str):
        return Path(cached).parent
    raise FileNotFoundError(f"{location} is no folder, and not in the cache ({constants.HF_HUB_CACHE}).")


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
    text = f"{gib(held)} with model and scenes, {gib(free)} left"
    if device.startswith("cuda"):
        free, there = torch.cuda.mem_get_info(device)
        peak = torch.cuda.max_memory_allocated(device)
        text = f"GPU: {gib(peak)} at most, {gib(free)} left of {gib(there)}; main memory: {text}"
    return Line("memory in use", "OK", text)


def disk(run_root: Path, run: Resolved) -> Line:
    """Return whether a run root can be written to and has room for an object."""
    from sjc_debiased.runs import needed_bytes

    place, needed = existing(run_root), needed_bytes([run])
    free = shutil.disk_usage(place).free
    text = f"{gib(free)} free in {run_root.absolute()}; an object needs at most {gib(needed)}"
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


def _size(files: list[Path]) -> str:
    return gib(sum(f.stat().st_size for f in files))


def gib(size: int) -> str:
    """Return a size for people: 4.3 GiB, 335 MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
