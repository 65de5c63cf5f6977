"""Reading what a run left in its folder."""

from pathlib import Path

from sjc_debiased.folder.reader import RunReader


def stats_of(folder: Path) -> list[dict]:
    """Return the measurements of every step."""
    return [*RunReader(folder).stats()]
