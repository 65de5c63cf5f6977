"""Several runs at a time, in one call of the 2D model for all of them."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from tqdm import tqdm

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import STATS
from sjc_debiased.making.session import Session
from sjc_debiased.making.watch import Watcher
from sjc_debiased.optimize import Step, begin_step
from sjc_debiased.options.config import Resolved

_ASK_AGAIN_S = 0.05
_SIGN_S = 60.0

Job = tuple[Resolved, AbstractContextManager[Session]]
"""A run, and what opens its folder when its turn comes (`prepare.open_session`)."""


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        run: which one.
        session: None where its folder could not be opened.
        error: None where it is done, or was stopped and saved with `session.remaining_steps` > 0.
    """

    run: Resolved
    session: Session | None
    error: Exception | None

    @property
    def stopped(self) -> bool:
        """Return whether the run was stopped before its last step, and saved."""
        return self.error is None and self.session is not None and self.session.remaining_steps > 0


def run_packed(
    jobs: Iterable[Job],
    denoiser: Denoiser,
    pack: int,
    quiet: bool = False,
    watchers: Sequence[Watcher] = (),
) -> Iterator[Ended]:
    """Optimise runs to their results, `pack` of them at a time; yield each as it ends.

    A run is opened when there is room for it. One that ends or fails leaves the rest running. After Ctrl-C or
    SIGTERM every run saves its state and ends, and no further one starts.

    Args:
        quiet: without a progress bar.
        watchers: look at every run after each of its steps.
    """
    jobs = list(jobs)
    waiting = iter(jobs)
    active: list[tuple[Resolved, Session]] = []
    n_steps = sum(run.n_steps for run, _ in jobs)
    with (
        ExitStack() as abandoned,
        _stop_requests() as stop,
        tqdm(total=n_steps, unit="step", disable=quiet) as bar,
    ):
        folders: dict[int, ExitStack] = {}
        while True:
            while len(active) < pack and not stop and (job := next(waiting, None)):
                run, opening = job
                folder = ExitStack()
                try:
                    session = folder.enter_context(opening)
                except Exception as error:  # whatever it is, it must not end the other runs
                    yield Ended(run, None, error)
                    continue
                folders[id(session)] = abandoned.enter_context(folder)
                active.append((run, session))
                if not bar.disable:
                    bar.initial += session.scene.done  # what was done before counts, but not for the speed
                    bar.n = bar.last_print_n = bar.n + session.scene.done
            if not active:
                return
            for (run, session), (step, failure) in zip(active[:], _step([s for _, s in active], denoiser)):
                error, stopping = failure, bool(stop)
                try:
                    if step:
                        session.record(step, stopping)
                        _show(session, step, watchers, stop)
                    bar.update(step is not None)
                    if error is None and session.remaining_steps == 0:
                        bar.refresh()
                        session.finish(quiet)
                        bar.unpause()  # the time of the results is not the steps'
                except Exception as caught:
                    error = caught
                if error or stopping or session.remaining_steps == 0:
                    active.remove((run, session))
                    session.end(error)
                    yield Ended(run, session, _closed(folders.pop(id(session)), error))
            if len(active) == 1 and step and step.clip_value is not None:
                bar.set_postfix(clip=f"{step.clip_value:.3g}", refresh=False)


def _closed(folder: ExitStack, error: Exception | None) -> Exception | None:
    """Leave a run's folder; return the run's error, or else that of leaving."""
    try:
        folder.close()
    except Exception as caught:
        return error or caught
    return error


def _step(sessions: list[Session], denoiser: Denoiser) -> list[tuple[Step | None, Exception | None]]:
    """Do the next step of every session that has one; return for each its step or its error.

    Where asking fails for all together (out of memory, say), each scene is tried alone.
    """
    ready = [s for s in sessions if s.remaining_steps]
    begun: dict[int, Callable[[], Step] | Exception] = {}
    try:
        if ready:
            begun = dict(zip(map(id, ready), begin_step([s.scene for s in ready], denoiser)))
    except Exception as together:
        traceback.clear_frames(together.__traceback__)  # they hold the memory that was too little
        for session in ready:
            try:
                (begun[id(session)],) = begin_step([session.scene], denoiser)
            except Exception as alone:
                traceback.clear_frames(alone.__traceback__)
                begun[id(session)] = alone if len(ready) > 1 else together
    return [_end(begun.get(id(s))) for s in sessions]


def _show(session: Session, step: Step, watchers: Sequence[Watcher], stop: list[int]) -> None:
    """Show a run to its watchers; wait while one of them wishes it, unless the run is ending."""
    while True:
        wishes = {watcher.between_steps(session, step) for watcher in watchers}
        if "stop" in wishes and not stop:
            stop.append(signal.SIGTERM)
        if "wait" not in wishes or stop or session.remaining_steps == 0:
            return
        if time.time() - RunReader(session.folder).last_sign > _SIGN_S:
            (session.folder / STATS).touch()  # paused, and not stopped
        time.sleep(_ASK_AGAIN_S)


def _end(begun: Callable[[], Step] | Exception | None) -> tuple[Step | None, Exception | None]:
    if begun is None or isinstance(begun, Exception):
        return None, begun
    try:
        return begun(), None
    except Exception as error:
        return None, error


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Yield a list that is empty until SIGINT or SIGTERM comes; a second one stops at once.

    Signals come to the main thread alone; in another the list stays empty until a watcher wishes to stop.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number, frame):
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
