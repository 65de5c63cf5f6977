"""Arrays have the shapes that annotations say: checked while tests run, of what is imported after this."""

from pathlib import Path
from typing import get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook

ROOT = Path(__file__).parents[1]
_ints_are_floats = beartype(conf=BeartypeConf(is_pep484_tower=True))


def modules():
    """Return the names of all modules that say shapes."""
    paths = [path for room in ("sjc_debiased", "voxnerf") for path in sorted((ROOT / room).rglob("*.py"))]
    said = [path.relative_to(ROOT) for path in paths if "\nfrom jaxtyping import" in path.read_text()]
    return [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in said]


def says_a_shape(hint):
    is_one = isinstance(hint, type) and issubclass(hint, AbstractArray)
    return is_one or any(map(says_a_shape, get_args(hint)))


def checked(function):
    """Return a function that refuses other shapes; what classes things are of, the type checker sees."""
    said = function.__annotations__.items()
    function.__annotations__ = {name: hint for name, hint in said if says_a_shape(hint)}
    return _ints_are_floats(function)


install_import_hook(modules(), "tests.shapes.checked")
