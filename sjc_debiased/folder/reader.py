"""What is in the files of a run folder: the options' writer, and `RunReader`, the only reader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sjc_debiased.folder.checkpoints import Checkpoint, load_checkpoint, newest_checkpoint
from sjc_debiased.folder.runs import (
    CONTACT_SHEET,
    ENDED,
    FINISHED,
    MESH,
    METRICS,
    OPTIONS,
    PREVIEWS,
    SCORE_MAGNITUDE,
    STATS,
    TURNTABLE,
    RunError,
    write_json,
)
from sjc_debiased.options.config import Resolved, by_option, defaults

if TYPE_CHECKING:
    from torch import Tensor

_RESOLVED = "resolved"
BY_HAND = "changed_by_hand"
_MACHINE = ("device", "precision")


def write_options(folder: Path, run: Resolved, record: dict) -> None:
    """Write `options.json`: the resolved options, and beside them what the run says about itself.

    Args:
        record: of `provenance.record`, or `RunReader.record`.
    """
    write_json(folder / OPTIONS, {_RESOLVED: as_json(run), **record})


def as_json(run: Resolved) -> dict:
    """Return resolved options as `RunReader.options` returns them."""
    return json.loads(json.dumps(by_option(run)))


class RunReader:
    """Read a run folder, whatever version wrote it, finished or still at work.

    Nothing is remembered: every answer is that of the files as they are now.

    Attributes:
        folder: the run folder; it may be none, which is said when something is read.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def options(self) -> dict:
        """Return the resolved options that the run was made with.

        Those of an older version get the fields that came later, and lose the machine, which they held.

        Raises:
            RunError: the folder has no readable `options.json`.
        """
        options = {k: v for k, v in self.everything[_RESOLVED].items() if k not in _MACHINE}
        later = defaults() | {"schedule_steps": options["n_steps"]}
        return json.loads(json.dumps(later)) | options

    @property
    def record(self) -> dict:
        """Return what `options.json` says beside the options: command, view prompts, versions and so on.

        Raises:
            RunError: as `options`.
        """
        return {k: v for k, v in self.everything.items() if k != _RESOLVED}

    @property
    def digest(self) -> str:
        """Return what tells the options, as they are written, from all others: 16 hexadecimal digits.

        Raises:
            RunError: as `options`.
        """
        written = json.dumps(self.everything[_RESOLVED], sort_keys=True)
        return hashlib.sha256(written.encode()).hexdigest()[:16]

    @property
    def precision(self) -> str | None:
        """Return the precision that the run was begun in, or None where that is not written down.

        Raises:
            RunError: as `options`.
        """
        machine = self.record.get("machine", self.everything[_RESOLVED])  # older ones had it in the options
        return machine.get("precision") if isinstance(machine, dict) else None

    @property
    def view_prompts(self) -> dict | None:
        """Return what became of the prompt (the fields of `prompts.debias.ViewPrompts`), or None.

        Raises:
            RunError: as `options`.
        """
        return self.record.get("view_prompts")

    @property
    def best_of(self) -> int | None:
        """Return among how many the run was made to be chosen (`--best_of`), or None.

        Raises:
            RunError: as `options`.
        """
        return self.record.get("best_of")

    @property
    def finished(self) -> bool:
        """Return whether a run's results are written: those of its steps at that time."""
        return (self.folder / FINISHED).exists()

    @property
    def result(self) -> dict:
        """Return what a finished run took and what its mesh is.

        Raises:
            RunError: the folder has no readable `result.json`: it is not finished, or damaged.
        """
        return self._read(FINISHED)

    @property
    def ended(self) -> dict | None:
        """Return how a run ended before its results, "state" and "error", or None where that is not said."""
        try:
            return self._read(ENDED)
        except RunError:
            return None

    @property
    def last_sign(self) -> float:
        """Return when the run last wrote something about itself, seconds since 1970; 0 where it never did."""
        files = (self.folder / name for name in (OPTIONS, STATS, ENDED, FINISHED))
        return max((path.stat().st_mtime for path in files if path.exists()), default=0.0)

    @property
    def n_logged(self) -> int:
        """Return how many steps are logged, without reading what was measured."""
        path = self.folder / STATS
        if not path.exists():
            return 0
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))

    @property
    def metrics(self) -> dict | None:
        """Return the measurements of `evaluation.measure`, or None where none can be read."""
        try:
            return self._read(METRICS)
        except RunError:
            return None

    @property
    def previews(self) -> list[Path]:
        """Return the previews' pictures in the order of their steps."""
        return sorted((self.folder / PREVIEWS).glob("step_*.png"))

    @property
    def fixed_views(self) -> list[Path]:
        """Return the pictures from `runs.FIXED_AZIMUTHS` by their steps; older runs have none."""
        return sorted((self.folder / PREVIEWS).glob("views_*.jpg"))

    @property
    def meshes(self) -> list[Path]:
        """Return the mesh's files, the one that was written last first."""
        found = [p for p in self.folder.glob(f"{MESH}*") if p.suffix in (".glb", ".obj", ".ply")]
        return sorted(found, key=lambda path: (-path.stat().st_mtime, path.name))

    @property
    def turntable(self) -> Path:
        """Return where the turntable lies once the steps are done."""
        return self.folder / TURNTABLE

    @property
    def contact_sheet(self) -> Path:
        """Return where the contact sheet lies once the steps are done."""
        return self.folder / CONTACT_SHEET

    @property
    def score_magnitude(self) -> Path:
        """Return where the picture of the score lies once the steps are done."""
        return self.folder / SCORE_MAGNITUDE

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Return the newest checkpoint, or None where there is none yet."""
        return newest_checkpoint(self.folder)

    def stats(self, after: int = 0) -> Iterator[dict]:
        """Yield the measurements of every step that is logged, in order, but for the first `after`.

        A line that is still being written is left for the next time. To follow a run, ask again with the
        number of rows that you have.

        Raises:
            RunError: a line is no JSON object.
        """
        path = self.folder / STATS
        if not path.exists():
            return
        with path.open("rb") as file:
            for number, line in enumerate(islice(file, after, None), after + 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield _object(line)
                except ValueError as error:
                    raise RunError(
                        f"{STATS} must hold a JSON object in every line. Line {number} in {self.folder} "
                        f"holds none ({error}). Bring the file back as it was, or make the run again."
                    ) from error

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the newest checkpoint: "grid." and "adamax.", and the parameter's name.

        Raises:
            RunError: there is none yet, or it is not as it was saved.
        """
        checkpoint = self.checkpoint
        if checkpoint is None:
            raise RunError(
                f"a scene is read from a checkpoint. {self.folder} has none yet. Let its run go on to 5 % of "
                "its steps."
            )
        return load_checkpoint(checkpoint)

    @property
    def changed_by_hand(self) -> list[dict]:
        """Return what was changed while the run went on (`by_hand`): first step, name, value."""
        return list(self.record.get(BY_HAND, ()))

    @property
    def everything(self) -> dict:
        """Return `options.json` as it is written.

        Raises:
            RunError: it cannot be read, or holds no options.
        """
        written = self._read(OPTIONS)
        resolved = written.get(_RESOLVED)
        if not isinstance(resolved, dict) or type(resolved.get("n_steps")) is not int:
            raise self._unreadable(OPTIONS, "no resolved options in it")
        return written

    def _read(self, name: str) -> dict:
        try:
            return _object((self.folder / name).read_bytes())
        except (OSError, ValueError) as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, why: object) -> RunError:
        remedy = "Remove what is there under that name, and repeat the command that writes it."
        if name == OPTIONS:
            remedy = "Name a folder that run_sjc.py made."
        needed = f"this needs a run folder with a readable {name}"
        return RunError(f"{needed}. {self.folder} has none ({why}). {remedy}")


def short_commit(commit: str | None) -> str:
    """Return a commit of a run's record as it is shown: twelve digits, and "dirty" where it was."""
    if commit is None:
        return "unknown"
    sha, _, dirty = commit.partition("-")
    return f"{sha[:12]} (dirty)" if dirty else sha[:12]


def _object(data: bytes) -> dict:
    """Return a JSON object.

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(data.decode())
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found
