"""Progress bars of what happens before the first step: a model is loaded, the CPU kernel is compiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm


def parts_with_bar(folder: Path, files: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the parts of a model, while a bar counts the bytes of their files, named within its folder."""
    sizes = {part: sum((folder / file).stat().st_size for file in own) for part, own in files.items()}
    bar = tqdm(desc="loading the model", total=sum(sizes.values()), unit="B", unit_scale=True, leave=False)
    with bar:
        for part, size in sizes.items():
            yield part
            bar.update(size)


@contextmanager
def compile_bar() -> Iterator[None]:
    """Show how many of the CPU kernel's functions are compiled; nothing where they come from a cache."""
    try:
        from voxnerf.compiling import each_compiled, n_functions
    except ImportError:  # no numba: the trial says so
        yield
        return
    bar = tqdm(desc="compiling the renderer", total=n_functions(), unit="function", leave=False, delay=1)
    with bar, each_compiled(bar.update):
        yield
