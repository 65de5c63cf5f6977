"""Annotations say what is there: they can be read at run time, and what silences the checker says why."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

import sjc_debiased
from sjc_debiased.score import perturb
from tests import shapes
from voxnerf.cameras import Camera
from voxnerf.field import Rendering

ROOT = Path(__file__).parents[1]
ROOMS = [p for room in ("sjc_debiased", "voxnerf", "prompts") for p in sorted((ROOT / room).rglob("*.py"))]
BESIDE = sorted(ROOT.glob("*.py"))
CORE = (
    *(
        "clipping",
        "denoiser",
        "guidance",
        "guidance.paas",
        "guidance.sds",
        "guidance.vsd",
        "library",
        "losses",
    ),
    *("optimize", "making.scene", "schedules", "score", "seeing"),
)
CORE = (
    *("sjc_debiased." + name for name in CORE),
    *("prompts." + name for name in ("debias", "masked_lm", "views", "words")),
    *("voxnerf." + name for name in ("cameras", "field", "grid", "lights", "march", "rays", "raster")),
    *("voxnerf." + name for name in ("render", "shaded_grid", "shading", "snapshot", "tetra", "volrend")),
)
EXTRAS = {"gradio", "viser", "tensorboard"}  # packages that not everyone has


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


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


def read(path):
    """Yield name, function or class, and hints of all that is public in a module.

    Some names are imported for types alone, because their modules import this one or are heavy, and tyro
    where the module is a command.
    """
    blocks = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If)]
    imports = [n for block in blocks for n in block.body if isinstance(n, ast.Import | ast.ImportFrom)]
    name, for_types = module_of(path), {}
    try:
        module = import_module(name)
        exec(compile(ast.Module(imports, []), path, "exec"), for_types)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        pytest.skip(f"needs {error.name}")
    for where, thing in public(module, name):
        yield where, thing, get_type_hints(thing, localns=for_types)


@pytest.mark.parametrize("path", [*ROOMS, *BESIDE], ids=module_of)
def test_annotations_can_be_read(path):
    for _ in read(path):
        pass


@pytest.mark.parametrize("name", CORE)
def test_annotations_of_the_core_leave_nothing_out(name):
    (path,) = (path for path in ROOMS if module_of(path) == name)
    found = list(read(path))
    assert found
    for where, thing, hints in found:
        if inspect.isfunction(thing):
            named = {n for n in inspect.signature(thing).parameters if n not in ("self", "cls")}
            assert named <= hints.keys(), f"{where} does not say what {named - hints.keys()} are"
            assert "return" in hints or thing.__name__ == "__init__", f"{where} returns what?"


def test_public_names_can_be_read_as_they_are():
    """Nothing is given for `from sjc_debiased import ...`."""
    for name in sjc_debiased.__all__:
        thing = getattr(sjc_debiased, name)
        if inspect.isfunction(thing):
            assert get_type_hints(thing)


def test_another_shape_is_refused():
    picture, noise, sigma = torch.zeros(1, 4, 8, 8), torch.zeros(2, 4, 8, 8), torch.tensor(1.0)
    assert perturb(picture, sigma, noise).shape == noise.shape
    assert perturb(picture.half(), sigma, noise.half()).dtype == torch.float16
    with pytest.raises(TypeCheckError, match="noise"):
        perturb(picture, sigma, torch.zeros(2, 4, 8, 1))
    with pytest.raises(TypeCheckError, match="noise"):
        perturb(picture, sigma, noise.long())
    with pytest.raises(TypeCheckError, match="depth"):
        Rendering(picture, torch.zeros(8, 9), torch.zeros(8, 8), sigma)
    with pytest.raises(TypeCheckError, match="c2w"):
        Camera(np.eye(3), np.eye(3), 8, 8, 0.0, 0.0)


def test_every_module_that_says_shapes_is_checked():
    said = [import_module(name) for name in shapes.modules()]
    assert len(said) > 20
    for module in said:
        loader = module.__spec__.loader
        assert type(loader).__name__ == "_JaxtypingLoader", f"{module.__name__} was imported before the check"


def test_what_silences_the_type_checker_says_why():
    for path in [*ROOMS, *BESIDE]:
        for line in path.read_text().splitlines():
            if re.search(r"#\s*(type|pyright):", line):
                assert re.search(r"# pyright: ignore\[\w+\]  # \w", line), f"{path.name}: {line.strip()}"
