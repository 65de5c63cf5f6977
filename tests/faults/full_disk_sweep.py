"""A sweep whose disk fills up after its first object, and the same command again with room.

    python tests/faults/full_disk_sweep.py FOLDER SWEEP_OPTIONS... --run_root FOLDER/runs

FOLDER is empty: a small disk is mounted there, for this process alone. Exits with 0 if no finished run was
lost and the second call completed the rest, with 77 where mounting is not allowed.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from sjc_debiased.folder.runs import FINISHED
from tests.faults.disks import FILLER, NOT_ALLOWED, mount_small_disk

DISK_BYTES = 384 << 20  # a sweep refuses to begin with less than it may need


def finished(disk: Path) -> dict[str, bytes]:
    """Return the last file of every finished run."""
    return {path.parent.name: path.read_bytes() for path in disk.glob(f"runs/*/{FINISHED}")}


def main(disk: Path, options: list[str]) -> int:
    """Fill the disk while a sweep runs, make room, run the same sweep again, and compare."""
    try:
        mount_small_disk(disk, DISK_BYTES)
    except OSError:
        return NOT_ALLOWED
    command = [sys.executable, "-m", "sjc_debiased.sweep", *options]
    sweep = subprocess.Popen(command)
    while sweep.poll() is None and not finished(disk):
        time.sleep(0.01)
    with (disk / FILLER).open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:  # until nothing fits, whatever the sweep writes meanwhile
            file.write(bytes(1 << 16))
    code, kept = sweep.wait(), finished(disk)
    print(f"with a full disk: exit code {code}, {len(kept)} runs finished", flush=True)
    (disk / FILLER).unlink()
    again, now = subprocess.call(command), finished(disk)
    print(f"with room: exit code {again}, {len(now)} runs finished", flush=True)
    lost = [name for name, data in kept.items() if now.get(name) != data]
    if lost:
        print(f"lost or changed: {', '.join(lost)}")
    return int(code != 1 or again != 0 or bool(lost))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
