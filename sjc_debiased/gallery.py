"""All runs of a parent on one page: python -m sjc_debiased.gallery RUN_ROOT.

`index.html` is written after each run too; the command writes the pages of all runs again as well. It opens
from the disk, without a server or a network.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import (
    FIXED_AZIMUTHS,
    GALLERY,
    PREVIEW_PANELS,
    SHEET_VIEWS,
    VIEW,
    RunError,
    run_folders,
)
from sjc_debiased.pages import write_page
from sjc_debiased.pages.chosen import Place, places_of
from sjc_debiased.pages.state import STATES, state_of
from sjc_debiased.refusals import refusals

_MOST_CHARACTERS = 240
_SEARCHED_CHARACTERS = 2000
_OURS = "<title>All runs</title>"  # of `templates/gallery.html`
_SHEET = (SHEET_VIEWS, 2)
_PANELS = (len(PREVIEW_PANELS), 1)
_FIXED = (len(FIXED_AZIMUTHS), 1)
"""Columns and rows of the pictures, of which a card shows the first."""


def write_gallery(run_root: Path) -> int:
    """Write `index.html` of a parent of run folders; return how many it shows.

    Raises:
        OSError: it could not be written. RunError: there is a page of that name that is no gallery.
    """
    place = run_root / GALLERY
    there = place.read_text(encoding="utf-8", errors="replace") if place.exists() else ""
    if there and _OURS not in there:
        raise RunError(
            f"a gallery takes the place of no page but its own. {place} is another. Move it, or make runs in "
            "another folder with --run_root."
        )
    cards = [card_of(folder) for folder in reversed(run_folders(run_root))]
    options = {name: sorted({card[name] for card in cards if card[name]}) for name in ("preset", "model")}
    options["state"] = [name for name in STATES if any(card["state"].name == name for card in cards)]
    write_page(place, "gallery.html", {"cards": cards, "options": options})
    return len(cards)


def card_of(folder: Path) -> dict:
    """Return what the gallery shows of a run; of a damaged one, what is wrong with it."""
    run = RunReader(folder)
    state = state_of(run)
    try:
        options = run.options
    except RunError:  # the state says why
        options = {"prompt": folder.name}
    prompt, preset, model, seed = (str(options.get(n, "")) for n in ("prompt", "preset", "model", "seed"))
    shown = f"{prompt[:_MOST_CHARACTERS]}…" if len(prompt) > _MOST_CHARACTERS else prompt
    place = quote(folder.name)
    thumbnail, grid = _thumbnail(run)
    return {
        "folder": folder.name,
        "prompt": shown,
        "words": prompt[:_SEARCHED_CHARACTERS],
        "preset": preset,
        "model": model,
        "seed": seed,
        "state": state,
        "why": state.why[:_MOST_CHARACTERS],
        "page": f"{place}/{VIEW}" if (folder / VIEW).exists() else None,
        "turntable": f"{place}/{run.turntable.name}" if run.turntable.exists() else None,
        "thumbnail": thumbnail and f"{place}/{thumbnail}",
        "grid": grid,
        "places": _places(run),
    }


def _places(run: RunReader) -> list[Place]:
    """Return where a run stands in rankings; of a damaged one, nothing: its own page says what is wrong."""
    try:
        return places_of(run)
    except (RunError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _thumbnail(run: RunReader) -> tuple[str | None, tuple[int, int]]:
    """Return a picture of a run, relative to its folder, and its columns and rows."""
    if run.contact_sheet.exists():
        return run.contact_sheet.name, _SHEET
    for pictures, grid in ((run.fixed_views, _FIXED), (run.previews, _PANELS)):
        if pictures:
            return pictures[-1].relative_to(run.folder).as_posix(), grid
    return None, (1, 1)


def main(run_root: tyro.conf.Positional[Path]) -> None:
    """Write the page of every run and the gallery of all.

    Args:
        run_root: parent of run folders.
    """
    from sjc_debiased.pages.view import write_view

    folders = run_folders(run_root)
    if not folders:
        raise RunError(
            f"RUN_ROOT must be a parent of run folders. {run_root} has none. Name the folder that run_sjc.py "
            "was given as --run_root, or make a run."
        )
    for page in (run_root / GALLERY, *(folder / VIEW for folder in folders)):
        page.touch()  # a page links to those that are there, whichever is written first
    for folder in folders:
        write_view(folder)
    print(f"{write_gallery(run_root)} runs: {run_root / GALLERY}")


if __name__ == "__main__":
    import tyro

    with refusals(RunError):
        tyro.cli(main, prog="python -m sjc_debiased.gallery", use_underscores=True)
