"""Run folders: the names of their files, numbering, locking, and atomic files."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sjc_debiased.options.config import Resolved

OPTIONS = "options.json"
FINISHED = "result.json"
ENDED = "ended.json"
STATS = "stats.jsonl"
PREVIEWS = "previews"
CHECKPOINTS = "checkpoints"
TURNTABLE = "turntable.mp4"
CONTACT_SHEET = "contact_sheet.png"
SCORE_MAGNITUDE = "score_magnitude.png"
MESH = "mesh"
METRICS = "metrics.json"
VIEW = "view.html"
VIEWER = "viewer"
GALLERY = "index.html"
RANKING = "ranking.json"
RANKING_SHEET = "ranking.png"
LOCK = ".lock"
"""The files of a run folder, `GALLERY` of their parent, and those of a ranking in a folder beside them
(`evaluation.best`); what is in them: `reader`, `pages`."""

PARTIAL = ".partial-"
"""How the name of a file begins while it is written."""

PREVIEW_PANELS = ("image", "depth", "opacity", "score magnitude", "clipped score magnitude")
SHEET_VIEWS = 8  # of the contact sheet
FIXED_AZIMUTHS = (0, 90, 180, 270)
"""What the pictures in `PREVIEWS` show, from left to right: a preview, and the object from fixed views."""

KEPT_CHECKPOINTS = 2


class RunError(RuntimeError):
    """A run folder cannot be used; the message says the rule, what was found, and the way out."""


class FinishedError(RunError):
    """There is nothing left to do: another process has finished the run."""


def preview_path(folder: Path, done: int) -> Path:
    """Return where the preview after `done` steps lies."""
    return folder / PREVIEWS / f"step_{done:06d}.png"


def views_path(folder: Path, done: int) -> Path:
    """Return where the picture from fixed views after `done` steps lies."""
    return folder / PREVIEWS / f"views_{done:06d}.jpg"


def steps_of(picture: Path) -> int:
    """Return how many steps were done at a picture of `preview_path` or `views_path`."""
    return int(picture.stem.rpartition("_")[2])


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends well, or disappears.

    The file and its folder are flushed to the disk, so that after a power cut `path` is either the old
    file or the whole new one.
    """
    handle, name = tempfile.mkstemp(prefix=f"{PARTIAL}{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
        if os.name == "posix":  # other systems cannot open a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON atomically; non-finite numbers become null."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def slug(prompt: str, limit: int = 48) -> str:
    """Return a prompt as a part of a folder's name: a-z, 0-9 and hyphens, at most `limit` of them."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:limit].strip("-") or "prompt"


def check_run_root(place: Path, wanted: list[Resolved], resumed: bool = False) -> None:
    """Refuse a place that cannot take the runs, before any work is done.

    Args:
        place: the parent that will get them, or, where `resumed`, the run folder itself.

    Raises:
        RunError: the place is a run folder itself, cannot be written to, or has too little room.
    """
    if not resumed and (place / OPTIONS).exists():
        raise RunError(
            f"--run_root is the parent of run folders. {place} is a run folder itself. Name its parent, or "
            "go on with it by --resume."
        )
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(place, error) from error
    check_room(place, needed_bytes(wanted))


def check_room(place: Path, needed: int) -> None:
    """Refuse a folder that cannot be written to, or has not so many bytes free.

    Raises:
        RunError: says which.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as error:
        raise _unwritable(place, error) from error
    if free < needed:
        raise RunError(
            f"this needs about {needed / 2**20:.0f} MiB for checkpoints and pictures. {place} has "
            f"{free / 2**20:.0f} MiB free. Make room, or choose another place with --run_root."
        )


def needed_bytes(wanted: list[Resolved]) -> int:
    """Return about how much room the folders of these runs take: checkpoints of the field, and pictures."""
    n_floats = 5 * sum(r.field.resolution**3 for r in wanted)
    return checkpoint_bytes(4 * n_floats) + 64 * 2**20 * len(wanted)


def checkpoint_bytes(of_parameters: int) -> int:
    """Return what the kept checkpoints, and one that is written, take: parameters and their two moments."""
    return 3 * (KEPT_CHECKPOINTS + 1) * of_parameters


def _unwritable(place: Path, error: OSError) -> RunError:
    return RunError(
        f"the run folder must be writable. {place} is not ({error}). Choose another place, or change who may "
        "write there."
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends.

    Raises:
        RunError: another process is at work in the folder.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            f"one process at a time may work in a run folder. Another is at work in {folder}. Wait "
            "for it, or stop it."
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def run_folders(run_root: Path) -> list[Path]:
    """Return the numbered run folders of a parent, by their numbers."""
    if not run_root.is_dir():
        return []
    return sorted(p for p in run_root.iterdir() if re.match(r"\d{5}-", p.name) and p.is_dir())


def finite(value: object) -> object:
    """Return what JSON can hold of a value: numbers that are not finite become None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value
