"""Count the file operations of a process, and let something happen just before one of them.

Python announces every opening, renaming and removing of a file to its audit hooks, before it happens. Killing
the process before the k-th one, for every k, is killing it between any two of these. Writes are not
announced; killing at random times meets them. What the operating system holds back in memory survives.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.chmod")


class Moments:
    """Count file operations under a folder, and act before number `at` (from 0)."""

    def __init__(self, folder: Path, at: int | None = None, act: Callable[[], None] = lambda: None):
        self.folder, self.at, self.act, self.count = str(folder), at, act, 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        elif event in _EVENTS:
            path = arguments[0]
        else:
            return
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).startswith(self.folder):
            return
        self.count += 1
        if self.count - 1 == self.at:
            self.act()


def die() -> None:
    """End this process at once, with nothing cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def failing(number: int) -> Callable[[], None]:
    """Return an action that fails with an error number: the operation does not happen."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail
