"""How far a run is: running, finished, failed or stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import ENDED, RunError, write_json

RUNNING, FINISHED, FAILED, STOPPED, UNREADABLE = "running", "finished", "failed", "stopped", "unreadable"
STATES = (RUNNING, FINISHED, FAILED, STOPPED, UNREADABLE)
SILENT_AFTER_S = 1800.0
"""A run that has not written anything for so long, and has not said how it ended, counts as stopped: a killed
process cannot say it. Looking at its lock would disturb a process that is about to take it."""


@dataclass(frozen=True)
class State:
    """Say how far a run is.

    Attributes:
        name: one of `STATES`.
        step, n_steps: steps done, and of how many.
        last_sign: when it last wrote something, seconds since 1970.
        why: what it failed with, or what is wrong with its folder; empty where there is nothing to say.
    """

    name: str
    step: int
    n_steps: int
    last_sign: float
    why: str = ""


def state_of(run: RunReader) -> State:
    """Return how far a run is, from what its folder says; a damaged folder is "unreadable"."""
    last_sign = run.last_sign
    try:
        n_steps = run.options["n_steps"]
    except RunError as error:
        return State(UNREADABLE, run.n_logged, 0, last_sign, str(error))
    if run.finished:
        return State(FINISHED, n_steps, n_steps, last_sign)
    ended = run.ended or {}
    if ended.get("state") in (FAILED, STOPPED):
        return State(str(ended["state"]), run.n_logged, n_steps, last_sign, str(ended.get("error") or ""))
    silent = time.time() - last_sign > SILENT_AFTER_S
    why = "It has not written anything for long, and did not say how it ended." if silent else ""
    return State(STOPPED if silent else RUNNING, run.n_logged, n_steps, last_sign, why)


def write_ended(run: RunReader, error: Exception | None) -> None:
    """Write down how a run ended before its results.

    Args:
        error: what it failed with; None where it was stopped.
    """
    why = None if error is None else (str(error) or type(error).__name__)
    write_json(run.folder / ENDED, {"state": STOPPED if error is None else FAILED, "error": why})
