"""The viewer: a run in the browser while it goes on (`--viewer`), or one in its folder.

python -m sjc_debiased.viewer RUN
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.models.machine import choose_machine
from sjc_debiased.options.extras import check_address, check_extra
from sjc_debiased.refusals import refusals

if TYPE_CHECKING:
    from sjc_debiased.denoiser import Denoiser
    from sjc_debiased.making.session import Session
    from sjc_debiased.making.watch import Wish
    from sjc_debiased.optimize import Step
    from sjc_debiased.watching.viewer_page import Page

LOOPBACK = "127.0.0.1"
_POLL_S = 0.1


class Viewer:
    """Show runs while they go on, and take what a person wishes there; a `Watcher`.

    Whatever fails in it ends the viewer and not the run.

    Args:
        denoiser: whose decoder turns what is rendered into colors.
        host: address to listen at.
    """

    def __init__(self, denoiser: Denoiser, host: str = LOOPBACK):
        self._denoiser = denoiser
        self._page: Page | None = open_page(host)
        self._folder: Path | None = None
        self._sent: dict[str, str] = {}

    @property
    def page(self) -> Page | None:
        """Return the page, or None once it has failed."""
        return self._page

    def between_steps(self, session: Session, step: Step) -> Wish:
        """Take a person's wishes, and show the scene if somebody looks."""
        if self._page is None:
            return "go on"
        try:
            if self._page.alive:
                return self._tend(self._page, session, step)
            why = "its server has ended"
        except Exception as error:  # nobody may lose a run because it cannot be looked at
            why = repr(error)
        self._page = None
        print(f"warning: the viewer has ended ({why}). The run goes on without it.", file=sys.stderr)
        return "go on"

    def _tend(self, page: Page, session: Session, step: Step) -> Wish:
        if self._folder != session.folder:
            self._begin(page, session)
        if page.stop.is_set():
            page.stop.clear()
            return "stop"
        _change(page, session)
        if page.due():
            scene = session.scene
            view = session.views[step.step]
            what = f"{scene.done} of {scene.settings.n_steps}"
            what += "" if session.remaining_steps else "; its results are being written"
            page.tell(what, f"{view}: {self._sent.get(view, '')}")
            page.look(scene.field, self._denoiser, scene.done, step)
        return "wait" if page.paused else "go on"

    def _begin(self, page: Page, session: Session) -> None:
        from sjc_debiased.making.by_hand import clip_of, guidance_of
        from sjc_debiased.watching.viewer_pictures import HasDensity

        run, scene = RunReader(session.folder), session.scene
        self._folder, self._sent = session.folder, (run.view_prompts or {}).get("sent", {})
        has_surface = isinstance(scene.field, HasDensity)
        page.begin(run.options["prompt"], has_surface, clip_of(scene), guidance_of(scene), live=True)


def _change(page: Page, session: Session) -> None:
    """Change a run as the sliders say; one that says what cannot be goes back."""
    from sjc_debiased.making.by_hand import change, clip_of, guidance_of

    scene, folder = session.scene, session.folder
    if (clip := page.clip) is not None and (now := clip_of(scene)) not in (None, clip):
        try:
            change(scene, folder, "clip", [*clip])
        except ValueError:
            page.clip = now
    if (guidance := page.guidance) is not None and (scale := guidance_of(scene)) not in (None, guidance):
        try:
            change(scene, folder, "guidance", guidance)
        except ValueError:
            page.guidance = scale


def open_page(host: str) -> Page:
    """Open the viewer's page, and say where it is."""
    from sjc_debiased.watching.viewer_page import Page

    page = Page(host)
    who = "this machine alone" if host == LOOPBACK else "WHOEVER REACHES THAT ADDRESS can look, and change"
    print(f"viewer: {page.address} ({who})", flush=True)
    return page


def main(run: tyro.conf.Positional[Path], host: str = LOOPBACK, device: str = "cpu") -> None:
    """Show a run, finished or still going on elsewhere, from its checkpoints, until Ctrl-C.

    Args:
        run: its folder.
        host: address to listen at; 0.0.0.0 for whoever reaches this machine.
        device: cpu, cuda or auto, for the pictures.
    """
    check_extra("the viewer", "viser")
    check_address("--host", host)
    device = choose_machine(device).device
    reader = RunReader(run)
    n_steps = reader.options["n_steps"]  # refuses what is no run
    from sjc_debiased.making.made import load_scene

    page = open_page(host)
    page.begin(reader.options["prompt"], has_surface=True)
    page.tell("waiting for the first checkpoint", "")
    shown, field, denoiser = -1, None, None
    while page.alive:
        newest = reader.checkpoint
        if newest is not None and newest.step != shown:
            _, field, denoiser = load_scene(run, device, stopped=True)
            shown = newest.step
            page.tell(
                f"{shown} of {n_steps}" + ("" if reader.finished else ", so far"), _sent_last(reader, shown)
            )
        if field is not None and denoiser is not None and page.due():
            page.look(field, denoiser, shown)
        time.sleep(_POLL_S)


def _sent_last(reader: RunReader, done: int) -> str:
    """Return view and view prompt of the last of so many steps."""
    row = next(reader.stats(after=done - 1), None)
    sent = (reader.view_prompts or {}).get("sent", {})
    return "" if row is None else f"{row['view']}: {sent.get(row['view'], '')}"


if __name__ == "__main__":
    import tyro

    from sjc_debiased.folder.runs import RunError

    try:
        with refusals(ValueError, RunError):
            tyro.cli(main, prog="python -m sjc_debiased.viewer", use_underscores=True)
    except KeyboardInterrupt:
        sys.exit(130)
