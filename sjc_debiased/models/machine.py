"""The machine a run is made on: device and precision, chosen once, with the reason."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import get_args

from sjc_debiased.options.command import OptionError, PrecisionName
from voxnerf.settings import Kernel

# oneDNN's instruction sets without bfloat16, as ONEDNN_MAX_CPU_ISA names them.
_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
_BYTES_A_VOXEL = 4 * 4 * 5  # value, gradient and Adamax's two moments of density and four colors, float32


@dataclass(frozen=True)
class Machine:
    """Say where a run's numbers are computed, and in what. Another machine makes the same run.

    Attributes:
        device: "cpu", "mps", "cuda" or "cuda:N".
        precision: of the U-Net and the text encoder: "float32", "bfloat16" or "float16".
        why: the reason for the precision, for the person at the terminal.
        asked: whether the precision was asked for by name; if not, a begun run keeps its own.
        kernel: of the renderer, and why_kernel which that is, or why it is torch (`prepare.try_kernel`).
    """

    device: str
    precision: str
    why: str
    asked: bool = False
    kernel: Kernel = "auto"
    why_kernel: str = ""

    @property
    def wanted_precision(self) -> str | None:
        """Return the precision that a run must have been begun in to be gone on with; None for any."""
        return self.precision if self.asked else None


def choose_machine(device: str = "auto", precision: str = "auto") -> Machine:
    """Return device and precision with "auto" resolved.

    auto is CUDA where there is CUDA, else the CPU; and float16 on CUDA, float32 on MPS, and on a CPU bfloat16
    where it has units for it (`has_bfloat16_units`), else float32.

    Raises:
        OptionError: the device is not there, or a name is none.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise OptionError(
            f"--device must be auto, cpu, cuda, cuda:N or mps. Received {device!r}. Choose one."
        )
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if chosen == "mps" and not torch.backends.mps.is_available():
        raise OptionError(
            f"--device mps needs Apple's Metal. PyTorch {torch.__version__} sees none. Use --device cpu."
        )
    if chosen.startswith("cuda"):
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(chosen.partition(":")[2] or 0)
        if index >= n_devices:
            raise OptionError(
                f"--device {chosen} needs a CUDA device of that number. PyTorch {torch.__version__} sees "
                f"{n_devices}. Use --device cpu, or install a driver and a CUDA build of PyTorch."
            )
    if precision not in get_args(PrecisionName):
        raise OptionError(
            f"--precision must be {', '.join(get_args(PrecisionName))}. Received {precision!r}. Choose one."
        )
    if precision != "auto":
        return Machine(chosen, precision, "asked for with --precision", asked=True)
    if chosen.startswith("cuda"):
        return Machine(chosen, "float16", "half of the memory, and faster")
    if chosen == "mps":
        return Machine(chosen, "float32", "on MPS nothing else is tried; MPS is untested")
    if has_bfloat16_units():
        return Machine(chosen, "bfloat16", "this CPU has units for bfloat16 (AMX or AVX512-BF16)")
    return Machine(chosen, "float32", "this CPU has no units for bfloat16 and would emulate it, more slowly")


def has_bfloat16_units() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware: AMX-BF16 or AVX512-BF16.

    ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY, which make a CPU behave like an older one, are followed.
    """
    import torch

    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT"
    if limit.upper() in _WITHOUT_BFLOAT16 or "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))


def check_memory(resolution: int, pack: int) -> None:
    """Refuse a grid that does not fit this machine's memory, before anything is loaded.

    Raises:
        OptionError: says how much is needed and how much there is.
    """
    import psutil

    needed, there = resolution**3 * _BYTES_A_VOXEL * pack, psutil.virtual_memory().total
    if needed > there:
        raise OptionError(
            f"grids must fit the memory. {pack} of --resolution {resolution} need {needed / 2**30:.1f} GiB; "
            f"this machine has {there / 2**30:.1f} GiB. Lower --resolution or --pack."
        )
