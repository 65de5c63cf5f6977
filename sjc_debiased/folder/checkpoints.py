"""Checkpoints of a run: saved whole or not at all, with a checksum, the newest two kept."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from sjc_debiased.folder.runs import (
    CHECKPOINTS,
    KEPT_CHECKPOINTS,
    PARTIAL,
    RunError,
    atomic,
    sha256,
    write_json,
)

_STATE = r"step_(\d+)\.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Point at one saved state: `step` steps are done."""

    path: Path
    step: int


def remove_partial_files(folder: Path) -> None:
    """Remove what a process that was killed left half done, and no other file; the folder must be locked."""
    for path in [*folder.rglob(f"{PARTIAL}*"), *(p for p, _ in _states(folder) if not _manifest(p).exists())]:
        path.unlink(missing_ok=True)  # a page is written without the lock, and may be whole by now


def save_checkpoint(folder: Path, step: int, tensors: dict) -> Checkpoint:
    """Save the state after `step` steps, with its checksum, and keep the newest two.

    Args:
        tensors: name -> tensor, whatever resuming needs.

    Raises:
        OSError: the disk is full, or the folder gone; what was saved before stays.
    """
    from safetensors.torch import save

    place = folder / CHECKPOINTS
    place.mkdir(exist_ok=True)
    path = place / f"step_{step:06d}.safetensors"
    with atomic(path) as partial:
        partial.write_bytes(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))
        digest = sha256(partial)
    write_json(_manifest(path), {"step": step, "sha256": digest})
    for old in _checkpoints(folder)[:-KEPT_CHECKPOINTS]:
        _manifest(old.path).unlink()
        old.path.unlink()
    return Checkpoint(path, step)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint of a run, or None where it has none."""
    return next(iter(reversed(_checkpoints(folder))), None)


def state_digest(folder: Path) -> str | None:
    """Return what tells an object from all others, 16 hexadecimal digits of its newest state, or None.

    Raises:
        RunError: the file beside that state is damaged.
    """
    newest = newest_checkpoint(folder)
    if newest is None:
        return None
    try:
        return json.loads(_manifest(newest.path).read_text(encoding="utf-8"))["sha256"][:16]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"a checkpoint has its SHA-256 beside it. {_manifest(newest.path)} cannot be read ({error}). "
            f"Delete it and {newest.path.name} to go by the one before."
        ) from error


def load_checkpoint(checkpoint: Checkpoint) -> dict:
    """Return the tensors of a checkpoint.

    Raises:
        RunError: the file is not the one that was saved.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    manifest = _manifest(checkpoint.path)
    problem = None
    try:
        if sha256(checkpoint.path) != json.loads(manifest.read_text(encoding="utf-8"))["sha256"]:
            problem = "its checksum differs: it was truncated or changed"
        else:
            return load_file(checkpoint.path)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        problem = str(error)
    raise RunError(
        f"a checkpoint must be as it was saved. {checkpoint.path} is not ({problem}). Delete it and "
        f"{manifest.name} to go on from the one before."
    )


def newest_state(folder: Path) -> tuple[int, dict] | None:
    """Return (steps done, tensors) of the newest checkpoint, or None where a run has none yet.

    Raises:
        RunError: the file is not the one that was saved.
    """
    checkpoint = newest_checkpoint(folder)
    return None if checkpoint is None else (checkpoint.step, load_checkpoint(checkpoint))


def _checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints whose manifest was written, that is the complete ones, oldest first."""
    return [Checkpoint(path, step) for path, step in _states(folder) if _manifest(path).exists()]


def _states(folder: Path) -> list[tuple[Path, int]]:
    """Return (file, step) of every state that a run saved, oldest first; a copy's name is another."""
    named = ((path, re.fullmatch(_STATE, path.name)) for path in (folder / CHECKPOINTS).glob("*"))
    return sorted(((path, int(match[1])) for path, match in named if match), key=lambda state: state[1])


def _manifest(state: Path) -> Path:
    return state.with_suffix(".json")
