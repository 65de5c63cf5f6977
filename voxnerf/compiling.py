"""Watch numba compile the CPU kernel, which takes half a minute at its first use in a checkout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numba.core import event
from numba.core.dispatcher import Dispatcher

from voxnerf import march_cpu, march_cpu_places, march_cpu_voxels


def n_functions() -> int:
    """Return how many compiled functions the kernel consists of; a few are only ever inlined."""
    modules = march_cpu, march_cpu_places, march_cpu_voxels
    return len({id(value) for m in modules for value in vars(m).values() if isinstance(value, Dispatcher)})


@contextmanager
def each_compiled(tell: Callable[[], object]) -> Iterator[None]:
    """Within, call `tell` once for each of the kernel's functions that numba has compiled.

    What comes from numba's cache is not compiled, and not told.
    """
    with event.install_listener("numba:compile", _Listener(tell)):
        yield


class _Listener(event.Listener):
    def __init__(self, tell: Callable[[], object]):
        self._tell, self._seen = tell, set()

    def on_start(self, event: event.Event) -> None:
        pass

    def on_end(self, event: event.Event) -> None:
        function = getattr((event.data or {}).get("dispatcher"), "py_func", None)
        ours = function is not None and function.__module__.startswith("voxnerf.")
        if ours and function not in self._seen:
            self._seen.add(function)
            self._tell()
