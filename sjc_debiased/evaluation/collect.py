"""Gather measured runs, and compare presets on the same prompts and seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from prompts.suites import has_face
from sjc_debiased.evaluation.intervals import Estimate, of_mean, of_rate
from sjc_debiased.evaluation.measure import saved_metrics
from sjc_debiased.folder.identity import check_unchanged
from sjc_debiased.folder.reader import RunReader, short_commit
from sjc_debiased.folder.runs import run_folders
from sjc_debiased.settings import Prompting

_Value = TypeVar("_Value", bound=float)
_METHOD = (*(f.name for f in fields(Prompting)), "clip_start", "clip_end")
"""The options in which presets differ."""
_MEASURED_BY = ("clip_model", "clip_weights", "judge")
"""What `metrics.json` says of the networks that measured: as different ones, no figures of one column."""


@dataclass(frozen=True)
class Measured:
    """One measured run: where it is, what it was, and what was found.

    Attributes:
        identity: tells its resolved options from all others.
        face: whether its object has a face to count, by its own suite or those that come with the code.
    """

    folder: Path
    identity: str
    prompt: str
    preset: str
    seed: int
    model: str
    commit: str
    face: bool
    metrics: dict

    @property
    def files(self) -> RunReader:
        """Return what reads its files."""
        return RunReader(self.folder)


def collect(run_root: Path) -> list[Measured]:
    """Return every measured run of a folder, by prompt, preset and seed; of equal ones the newest.

    Raises:
        ValueError: two runs are not of one experiment, or were not measured by the same networks; or one is
            not to be counted.
        RunError: the options of a measured run cannot be read, or it was changed by hand.
    """
    found: dict[tuple, Measured] = {}
    seen: dict[tuple[str, str], tuple[Path, object]] = {}
    for folder in run_folders(run_root):
        metrics = saved_metrics(folder)
        if metrics is None:
            continue
        run = RunReader(folder)
        check_counted(run)
        r, commit = run.options, short_commit(run.record.get("git_commit"))
        key = r["prompt"], r["preset"], r["seed"]
        check_alike(folder, r, metrics, seen)
        face = run.record.get("face", True) and has_face(r["prompt"])
        found[key] = Measured(folder, run.digest, *key, r["model"], commit, face, metrics)
    return [found[key] for key in sorted(found)]


def check_counted(run: RunReader) -> None:
    """Refuse a run that was changed by hand, or made to be chosen among several: they are not counted.

    Counting all of several seeds would not be wrong, but that all of them are there cannot be seen.

    Raises:
        ValueError: names the run.
        RunError: its options cannot be read, or it was changed by hand.
    """
    check_unchanged(run.folder)
    if n := run.best_of:
        raise ValueError(
            f"what is counted must not have been chosen. {run.folder.name} was made by --best_of {n}. Move "
            "it to a folder of its own, and make its prompt and seeds anew with --seeds or by a sweep."
        )


def check_alike(
    folder: Path, resolved: dict, metrics: dict, seen: dict[tuple[str, str], tuple[Path, object]]
) -> None:
    """Refuse to pool a run that was made or measured otherwise than those before; remember it in `seen`.

    Runs of one preset differ in prompt and seed alone, and all runs beyond that in what makes presets differ.

    Args:
        seen: by preset ("" for all) and name, the first folder that has a value, and the value.

    Raises:
        ValueError: names two runs, what differs, and what it is in each.
    """
    made = {k: v for k, v in resolved.items() if k not in ("prompt", "preset", "seed")}
    by = {name: metrics[name] for name in _MEASURED_BY if metrics.get(name) is not None}
    alike = {("" if name not in _METHOD else resolved["preset"], name): v for name, v in (made | by).items()}
    differing = []
    for key, value in alike.items():
        other, known = seen.setdefault(key, (folder, value))
        if value != known:
            differing.append((key[1], other, f"{key[1]} ({known} and {value})"))
    if differing:
        name, other, _ = differing[0]
        remedy = (
            "Measure all alike (python -m sjc_debiased.evaluation.measure), or keep" if name in by else "Keep"
        )
        raise ValueError(
            f"results pool runs that were made and measured alike. {other.name} and {folder.name} differ in "
            f"{', '.join(said for _, _, said in differing)}. {remedy} one kind of them in the folder."
        )


def mean_of(runs: list[Measured], preset: str, value: Callable[[dict], float | None]) -> Estimate | None:
    """Return the mean of a measurement over the objects of a preset, or None where there is none.

    The interval takes prompts for what is drawn, because the seeds of one prompt resemble each other.
    """
    return of_mean(*_measured((value(r.metrics), r.prompt) for r in runs if r.preset == preset))


def rate_of(runs: list[Measured], preset: str, holds: Callable[[dict], bool | None]) -> Estimate | None:
    """Return the share of a preset's objects for which something holds; the interval is over prompts too."""
    return of_rate(*_measured((holds(r.metrics), r.prompt) for r in runs if r.preset == preset))


def difference(
    runs: list[Measured],
    preset: str,
    baseline: str,
    value: Callable[[dict], float | None],
    most: float = math.inf,
) -> Estimate | None:
    """Return the mean difference of two presets over the (prompt, seed) pairs that both have.

    Args:
        most: how much two values can differ, 1 for rates.
    """
    of = {(r.preset, r.prompt, r.seed): value(r.metrics) for r in runs}
    pairs = []
    for (name, prompt, seed), ours in of.items():
        theirs = of.get((baseline, prompt, seed))
        if name == preset and ours is not None and theirs is not None:
            pairs.append((float(ours) - float(theirs), prompt))
    return of_mean(*_measured(pairs), -most, most)


def _measured(pairs: Iterable[tuple[_Value | None, str]]) -> tuple[list[_Value], list[str]]:
    """Return the values that were measured, and their prompts."""
    found = [(value, prompt) for value, prompt in pairs if value is not None]
    return [value for value, _ in found], [prompt for _, prompt in found]
