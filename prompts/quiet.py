"""Silence for libraries that speak while they load a model."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """Keep transformers or diffusers from printing anything but errors, and their bars, within the block.

    Whoever uses it checks for himself what matters of what they say: whether every tensor was in the file.
    """
    with ExitStack() as stack:
        for library in libraries:
            logging = importlib.import_module(f"{library}.utils.logging")
            stack.callback(logging.set_verbosity, logging.get_verbosity())
            if logging.is_progress_bar_enabled():
                stack.callback(logging.enable_progress_bar)
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield
