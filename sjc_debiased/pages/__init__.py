"""The HTML pages: their templates, and that they never stop what they show.

What a template gets is escaped, whoever wrote it. Pages open from the disk, without server or network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sjc_debiased.folder.runs import atomic

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")
VENDOR = Path(__file__).with_name("vendor")
MODEL_VIEWER = "model-viewer.min.js"
"""In `VENDOR`, with its licences: what turns a mesh in the browser, as a script."""


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {
        "sort_keys": False
    }  # the order of what is listed means something
    return environment


def render(template: str, values: Mapping[str, object]) -> str:
    """Return a page: a file of `templates/` with its values, which are escaped.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not given.
    """
    return _environment().get_template(template).render(values)


def write_page(path: Path, template: str, values: Mapping[str, object]) -> None:
    """Write a page atomically; what is no Unicode in it (half a surrogate pair) becomes "?".

    Raises:
        OSError: it could not be written.
    """
    page = render(template, values)
    with atomic(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="replace")


def or_warn(what: str, write: Callable[[], object]) -> None:
    """Write what is only to be looked at; where that fails, for whatever reason, say so and go on."""
    try:
        write()
    except Exception as error:  # no page is worth a run
        from tqdm import tqdm

        tqdm.write(
            f"warning: {what} could not be written ({type(error).__name__}: {error}). The run goes on "
            "without it; `python -m sjc_debiased.gallery RUN_ROOT` writes all pages again.",
            file=sys.stderr,
        )
