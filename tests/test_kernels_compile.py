"""Every Triton kernel compiles for real GPUs, down to machine code; no GPU is needed, and none is asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

GPUS = [80, 75, 86, 90, 100]  # A100, T4, RTX 30, H100, B200
THOROUGHLY = GPUS[0]  # types are the same for all of them, so that one is enough for the rare variants
KERNELS = {"_forward", "_backward"}
WHOLE = {"n_rays", "resolution"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compile in fresh processes: in this one Triton may be set to interpret. Nothing comes from a cache."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    begun = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.compile_kernels", *some],
            cwd=Path(__file__).parents[1],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for some in (["--thoroughly", str(THOROUGHLY)], map(str, GPUS[1:]))
    ]
    ended = [(process.communicate(), process.returncode) for process in begun]
    assert [code for _, code in ended] == [0, 0], ended
    return [json.loads(line) for (out, _), _ in ended for line in out.splitlines()]


@pytest.mark.parametrize("gpu", GPUS)
def test_every_kernel_compiles(compiled, gpu):
    rows = [row for row in compiled if row["for"] == gpu]
    variants = {(row["channels"], row["whole"], row["kernel"]) for row in rows}
    expected = [(3, "multiples of 16"), (4, "multiples of 16")]
    if gpu == THOROUGHLY:
        expected += [(4, "others"), (4, "ones")]
    assert variants == {(*variant, kernel) for variant in expected for kernel in KERNELS}
    failed = [row for row in rows if "error" in row]
    assert not failed, "\n\n".join(
        f"{row['kernel']}, {row['channels']} channels: {row['error']}" for row in failed
    )
    for row in rows:
        assert row["target"] == ["cuda", gpu]
        assert row["elf"], "a cubin is an ELF file"
        assert row["shared_bytes"] <= 48 * 1024, "what every GPU gives a program"


def test_numbers_are_floats_and_counts_whole(compiled):
    """Or a number that happens to be whole would compile the kernels anew."""
    rows = [row for row in compiled if "error" not in row]
    assert rows
    for row in rows:
        types = row["types"]
        constants = {"channels", "width", "block"} | (WHOLE if row["whole"] == "ones" else set())
        assert {name for name, kind in types.items() if kind == "constexpr"} == constants
        assert {name for name, kind in types.items() if kind == "i32"} == WHOLE - constants
        assert set(types.values()) <= {"constexpr", "i32", "fp32", "*fp32"}
