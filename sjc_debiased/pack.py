"""Several runs at a time, in one call of the 2D model for all of them."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from tqdm import tqdm

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.optimize import Step, draw_noise, optimize_step
from sjc_debiased.session import Session

Ended = tuple[Session, Exception | None]


def run_packed(
    sessions: Iterable[Session], denoiser: Denoiser, pack: int, total_steps: int, quiet: bool = False
) -> Iterator[Ended]:
    """Optimise runs to their results, `pack` of them at a time; yield each as it ends.

    One that ends or fails leaves the rest running. After Ctrl-C or SIGTERM every run saves its state and
    ends with `remaining_steps` > 0, and no further one starts.

    Args:
        sessions: taken from one by one, as room appears.
        total_steps: of all of them, for the progress bar, which `quiet` leaves out.

    Yields:
        A session, and the error that ended it or None.
    """
    waiting, active = iter(sessions), []
    with _stop_requests() as stop, tqdm(total=total_steps, unit="step", disable=quiet) as bar:
        while True:
            while len(active) < pack and not stop and (session := next(waiting, None)):
                active.append(session)
            if not active:
                return
            for session, step, failure in _step(active, denoiser):
                error, stopping = failure, bool(stop)
                try:
                    if step:
                        session.record(step, stopping)
                    if error is None and session.remaining_steps == 0:
                        session.finish()
                except Exception as caught:  # whatever it is, it must not end the other runs
                    error = caught
                bar.update(step is not None)
                if error or stopping or session.remaining_steps == 0:
                    active.remove(session)
                    with suppress(OSError):  # what it could not write, it could not write before either
                        session.close()
                    yield session, error
            if len(active) == 1 and step and step.clip_value is not None:
                bar.set_postfix(clip=f"{step.clip_value:.3g}", refresh=False)


def _step(sessions: list[Session], denoiser: Denoiser) -> list[tuple[Session, Step | None, Exception | None]]:
    """Do the next step of every session that has one; return each with its step or its error.

    Where the step fails for all together (out of memory, say), each scene is tried alone.
    """
    ready = [s for s in sessions if s.remaining_steps]
    done = {id(s): (None, None) for s in sessions}
    try:
        steps = _advance(ready, denoiser) if ready else []
        done |= {id(s): (step, None) for s, step in zip(ready, steps)}
    except Exception as together:
        for session in ready:
            try:
                done[id(session)] = _advance([session], denoiser)[0], None
            except Exception as alone:
                done[id(session)] = None, (alone if len(ready) > 1 else together)
    return [(s, *done[id(s)]) for s in sessions]


def _advance(sessions: list[Session], denoiser: Denoiser) -> list[Step]:
    scenes = [s.scene for s in sessions]
    return optimize_step(scenes, [draw_noise(s, denoiser) for s in scenes], denoiser.denoise)


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Yield a list that is empty until SIGINT or SIGTERM comes; a second one stops at once."""
    received: list[int] = []

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
