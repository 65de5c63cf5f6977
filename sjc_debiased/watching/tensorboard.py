"""A run's log for TensorBoard: the numbers of `stats.jsonl` and the previews, and nothing of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import imageio.v3 as iio
from torch.utils.tensorboard import SummaryWriter

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import PREVIEW_PANELS, STATS, steps_of
from sjc_debiased.making.session import Session
from sjc_debiased.making.watch import Wish
from sjc_debiased.optimize import Step

PLACE = "tensorboard"
"""The folder in a run folder; `tensorboard --logdir RUN_ROOT` shows those of all runs."""
_PANELS, _FIXED = ", ".join(PREVIEW_PANELS), "fixed views"


class TensorBoard:
    """Copy what runs log into event files beside the log; a `Watcher`.

    A run that goes on has its files written anew, all of them, so that they never say more than the log.
    """

    def __init__(self):
        self._copies: dict[Path, _Copy] = {}

    def between_steps(self, session: Session, step: Step) -> Wish:
        """Copy what the log has got since the last time.

        Raises:
            OSError: it could not be written.
        """
        folder = session.folder
        if folder not in self._copies:
            self._copies[folder] = _Copy(folder)
        self._copies[folder].go_on()
        if session.remaining_steps == 0:
            self._copies.pop(folder).close()
        return "go on"


class _Copy:
    """Hold the event files of one run, and how far they are."""

    def __init__(self, folder: Path):
        shutil.rmtree(folder / PLACE, ignore_errors=True)
        self._run, self._writer = RunReader(folder), SummaryWriter(str(folder / PLACE))
        self._log = folder / STATS
        self._size = self._rows = 0
        self._shown: set[Path] = set()

    def go_on(self) -> None:
        size = self._log.stat().st_size
        if size == self._size:  # asked after every step, and written to every tenth
            return
        self._size = size
        for row in self._run.stats(after=self._rows):
            self._rows += 1
            for name, value in row.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._writer.add_scalar(name, value, row["step"])
        for tag, paths in ((_PANELS, self._run.previews), (_FIXED, self._run.fixed_views)):
            for path in paths:
                if path not in self._shown and steps_of(path) <= self._rows:
                    self._writer.add_image(tag, iio.imread(path), steps_of(path), dataformats="HWC")
                    self._shown.add(path)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
