"""Write the pages of a run that is at work or has just ended; none of this ever stops it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import GALLERY, OPTIONS, VIEW
from sjc_debiased.pages import or_warn


def refresh_view(folder: Path) -> None:
    """Write a run's page as the run is now; a stage within a run, which has no options, has no page."""
    if not (folder / OPTIONS).exists():
        return
    folder = folder.absolute()  # "." has neither a name nor a parent
    from sjc_debiased.pages.view import write_view

    or_warn(str(folder / VIEW), lambda: write_view(folder))


def refresh_ranked(folders: Sequence[Path]) -> None:
    """Write the pages of runs of one parent that were ranked, and the gallery; as `refresh_view`."""
    from sjc_debiased.gallery import write_gallery

    for folder in folders:
        refresh_view(folder)
    root = folders[0].parent
    or_warn(str(root / GALLERY), lambda: write_gallery(root))


def refresh_all(folder: Path) -> None:
    """Write the page of a run that has ended, the gallery, and the pages that show it; as `refresh_view`."""
    if not (folder / OPTIONS).exists():
        return
    folder = folder.absolute()
    from sjc_debiased.gallery import write_gallery
    from sjc_debiased.pages.view import partners

    or_warn(str(folder.parent / GALLERY), lambda: write_gallery(folder.parent))
    refresh_view(folder)
    or_warn(
        "pages of the same prompt", lambda: [refresh_view(other) for other in partners(RunReader(folder))]
    )
