"""Disks that fail for real: one that fills up, and a limit on the size of a file.

A small disk is a tmpfs in a mount namespace of the calling process alone, so it needs Linux, and root or user
namespaces. It goes with the process.
"""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

FILLER = "filler"
NOT_ALLOWED = 77  # the exit code where mounting is not allowed
_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000
_RECURSIVE, _PRIVATE = 1 << 14, 1 << 18


def mount_small_disk(place: Path, size_bytes: int) -> None:
    """Mount an empty disk of this size at `place`, seen by this process and its children alone.

    Raises:
        OSError: this machine does not allow it.
    """
    ids = os.getuid(), os.getgid()
    _call("unshare", _NEW_MOUNTS | (_NEW_USERS if ids[0] else 0))
    if ids[0]:
        Path("/proc/self/setgroups").write_text("deny")
        for name, number in zip(("uid_map", "gid_map"), ids):
            Path(f"/proc/self/{name}").write_text(f"0 {number} 1")
    _mount(b"none", Path("/"), None, _RECURSIVE | _PRIVATE, None)
    _mount(b"tmpfs", place, b"tmpfs", 0, f"size={size_bytes}")


def fill_disk(place: Path, free_bytes: int) -> None:
    """Leave so much room on the disk, with a file that is to be removed afterwards."""
    room = os.statvfs(place)
    with (place / FILLER).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(room.f_bavail * room.f_bsize - free_bytes, 1))


def limit_file_size(n_bytes: int) -> None:
    """Let every write beyond this size of a file fail in its middle, in this process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def _mount(source: bytes, place: Path, kind: bytes | None, flags: int, options: str | None) -> None:
    data = None if options is None else options.encode()
    _call("mount", source, os.fsencode(place), kind, ctypes.c_ulong(flags), data)


def _call(name: str, *arguments) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
