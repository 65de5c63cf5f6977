"""What a run's options are called on the command line, and what they mean: their help, said nowhere else."""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.options.command import Options
from sjc_debiased.options.config import Resolved
from sjc_debiased.settings import GuidanceSettings, Prompting, Settings, Viewing
from voxnerf.settings import GridConfig


@dataclass(frozen=True)
class Row:
    """One option of a run: how it is written on the command line, its value, and its help text."""

    name: str
    value: str
    help: str


def option_groups(run: RunReader) -> list[tuple[str, list[Row]]]:
    """Return the options that a run was made with, in the groups of `--help`, each with the group's title.

    Raises:
        RunError: they cannot be read.
    """
    values = run.options | mesh_settings_of(run) | _machine(run)
    groups = []
    for group in typing.get_type_hints(Options).values():
        rows = [
            Row(f"--{flag}", _shown(values.pop(name)), text)
            for name, (flag, text) in help_texts(group).items()
            if name in values
        ]
        groups.append((str(group.__doc__), rows))
    rest = [Row(name, _shown(value), _attribute_text(name)) for name, value in values.items()]
    groups.append(("What is fixed by the model and the preset.", rest))
    return [(title, rows) for title, rows in groups if rows]


@cache
def help_texts(group: type) -> dict[str, tuple[str, str]]:
    """Return, by field of a class of options, what it is called on the command line and its help text."""
    types = typing.get_type_hints(group, include_extras=True)
    (definition,) = ast.parse(inspect.getsource(group)).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    found = {}
    for node, after in zip(body, body[1:]):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
            field = ast.unparse(node.target)
            names = [getattr(about, "name", None) for about in getattr(types[field], "__metadata__", ())]
            text = " ".join(str(ast.literal_eval(after.value)).split())
            found[field] = (next((name for name in names if name), field), text)
    return found


def _attribute_text(name: str) -> str:
    """Return what the parts of a run say of an attribute in their docstrings."""
    for part in (Resolved, Prompting, Settings, GuidanceSettings, GridConfig, Viewing):
        lines = (inspect.getdoc(part) or "").splitlines()
        for number, line in enumerate(lines):
            names, colon, text = line.strip().partition(": ")
            if colon and name in names.split(", "):
                words = [text, *_continued(line, lines[number + 1 :])]
                return f"{text[:1].upper()}{' '.join(words)[1:]}"
    return ""


def _continued(line: str, after: list[str]) -> Iterator[str]:
    """Yield the lines that go on with one, which are indented further; stripped."""
    for other in after:
        if len(other) - len(other.lstrip()) <= len(line) - len(line.lstrip()):
            return
        yield other.strip()


def mesh_settings_of(run: RunReader) -> dict:
    """Return the settings of a finished run's mesh, by the fields of `options.command.MeshOptions`."""
    if not run.finished:
        return {}
    settings = run.result.get("mesh", {}).get("settings", {})
    return {f"mesh_{name}": "auto" if value is None else value for name, value in settings.items()}


def _machine(run: RunReader) -> dict:
    machine = run.record.get("machine", {})
    return {name: machine[name] for name in ("device", "precision", "kernel") if name in machine}


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return str(value)
