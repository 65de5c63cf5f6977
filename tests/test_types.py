"""Annotations say what is there: they can be read at run time, and what silences the checker says why."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest
import tyro
from torch import Tensor

from voxnerf.grid import Kernel, VoxelGrid
from voxnerf.mesh import Mesh
from voxnerf.snapshot import Snapshot

ROOT = Path(__file__).parents[1]
CORE = (
    *(
        "sjc_debiased." + name
        for name in (
            "clipping",
            "denoiser",
            "guidance",
            "guidance.paas",
            "guidance.sds",
            "guidance.vsd",
            "library",
        )
    ),
    *("sjc_debiased." + name for name in ("losses", "optimize", "scene", "schedules", "score")),
    *("prompts." + name for name in ("debias", "masked_lm", "views", "words")),
    *("voxnerf." + name for name in ("cameras", "field", "grid", "march", "rays", "render", "volrend")),
)
# What a module imports for types alone, because it is imported by what it names, or by a command alone.
FOR_TYPES = {
    **{"Kernel": Kernel, "Mesh": Mesh, "Snapshot": Snapshot, "VoxelGrid": VoxelGrid},
    **{"Tensor": Tensor, "tyro": tyro},
}
CHECKED = [*(ROOT / "sjc_debiased").rglob("*.py"), *ROOT.glob("voxnerf/*.py"), *ROOT.glob("prompts/*.py")]


def public(holder, module):
    """Yield the public functions that a module or a class defines, and those of its public classes."""
    for name, held in vars(holder).items():
        thing = getattr(held, "__func__", held)  # of a static method
        if name.startswith("_") and name != "__init__" or getattr(thing, "__module__", None) != module:
            continue
        if inspect.isclass(thing):
            yield thing.__qualname__, thing
            yield from public(thing, module)
        elif inspect.isfunction(thing):
            yield thing.__qualname__, thing


@pytest.mark.parametrize("name", CORE)
def test_the_annotations_of_the_core_can_be_read(name):
    module = import_module(name)
    found = dict(public(module, name))
    assert found
    for where, thing in found.items():
        try:
            hints = get_type_hints(thing, localns=FOR_TYPES)
        except NameError as error:
            pytest.fail(f"{name}.{where}: {error}")
        if inspect.isfunction(thing):
            named = {n for n in inspect.signature(thing).parameters if n not in ("self", "cls")}
            assert named <= hints.keys(), f"{name}.{where} does not say what {named - hints.keys()} are"
            assert "return" in hints or thing.__name__ == "__init__", f"{name}.{where} returns what?"


def test_what_silences_the_type_checker_says_why():
    for path in [*CHECKED, *ROOT.glob("*.py")]:
        for line in path.read_text().splitlines():
            if re.search(r"#\s*(type|pyright):", line):
                assert re.search(r"# pyright: ignore\[\w+\]  # \w", line), f"{path.name}: {line.strip()}"
