"""The log of a run: `stats.jsonl`, a line for each step."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sjc_debiased.folder.runs import STATS, atomic, finite


class StatsLog:
    """Append one JSON line per step to `stats.jsonl`; opened at the step a run goes on from."""

    def __init__(self, folder: Path, first_step: int):
        path = folder / STATS
        if path.exists():
            kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:first_step]
            with atomic(path) as partial:
                partial.write_text("".join(kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def write(self, rows: list[dict]) -> None:
        """Append rows; non-finite numbers become null."""
        self._file.writelines(json.dumps(finite(row)) + "\n" for row in rows)
        self._file.flush()

    def flush(self) -> None:
        """Flush the lines to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush the lines to the disk and close the file."""
        self.flush()
        self._file.close()
