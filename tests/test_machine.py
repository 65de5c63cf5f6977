"""Device and precision: what "auto" is on which processor, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from sjc_debiased.models.machine import check_memory, choose_machine
from sjc_debiased.options.command import OptionError

ROOT = Path(__file__).parents[1]
AMX = {"avx512_f": True, "avx512_bf16": True, "amx_bf16": True}


@pytest.fixture
def processor(monkeypatch):
    """Return a function that makes this processor look like another."""

    def be(capabilities, capability="AVX512", **environment):
        for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    return be


@pytest.mark.parametrize(
    ("capabilities", "capability", "environment", "precision"),
    [
        (AMX, "AVX512", {}, "bfloat16"),
        ({"avx512_f": True, "avx512_bf16": True}, "AVX512", {}, "bfloat16"),
        ({"avx512_f": True, "avx512_bf16": False}, "AVX512", {}, "float32"),
        ({"avx2": True}, "AVX2", {}, "float32"),
        ({"bf16": True, "neon": True}, "DEFAULT", {}, "float32"),
        (AMX, "AVX512", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "float32"),
        (AMX, "AVX512", {"ONEDNN_MAX_CPU_ISA": "avx512_core"}, "float32"),
        (AMX, "AVX512", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "bfloat16"),
        (AMX, "AVX512", {"DNNL_MAX_CPU_ISA": "AVX2"}, "float32"),
        (AMX, "AVX2", {}, "float32"),  # ATEN_CPU_CAPABILITY=avx2
    ],
)
def test_precision_follows_the_processor(processor, capabilities, capability, environment, precision):
    processor(capabilities, capability, **environment)
    machine = choose_machine()
    assert (machine.device, machine.precision, machine.asked) == ("cpu", precision, False)
    assert "CPU" in machine.why


def test_the_switches_make_any_machine_a_plain_one():
    code = "from sjc_debiased.models.machine import choose_machine; print(choose_machine('cpu').precision)"
    plain = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=plain, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "float32"


def test_a_precision_asked_for_stays(processor):
    processor(AMX)
    machine = choose_machine("cpu", "float32")
    assert (machine.precision, machine.wanted_precision) == ("float32", "float32")
    assert choose_machine().wanted_precision is None


def test_half_precision_on_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_machine() == choose_machine("cuda")
    assert choose_machine("cuda:1").precision == "float16"
    with pytest.raises(OptionError, match="--device cuda:2 needs a CUDA device of that number"):
        choose_machine("cuda:2")


def test_mps_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(OptionError, match="--device mps needs Apple's Metal"):
        choose_machine("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_machine("mps").precision == "float32"


def test_a_grid_that_cannot_fit_is_refused(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**32))
    check_memory(100, pack=8)
    with pytest.raises(OptionError, match=r"4 of --resolution 512 need 40.0 GiB; this machine has 4.0 GiB"):
        check_memory(512, pack=4)
