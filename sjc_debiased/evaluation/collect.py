"""Gather measured runs, and compare presets on the same prompts and seeds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sjc_debiased.evaluation.intervals import Estimate, of_mean
from sjc_debiased.evaluation.measure import saved_metrics
from sjc_debiased.identity import saved_options
from sjc_debiased.runs import run_folders

_METHOD = ("views", "front_half_deg", "masked_lm", "keep", "pmi_normalized", "clip_start", "clip_end")
"""The options in which presets differ."""


@dataclass(frozen=True)
class Measured:
    """One measured run: where it is, what it was, and what was found.

    Attributes:
        identity: tells its resolved options from all others.
    """

    folder: Path
    identity: str
    prompt: str
    preset: str
    seed: int
    model: str
    commit: str
    metrics: dict


def collect(run_root: Path) -> list[Measured]:
    """Return every measured run of a folder, by prompt, preset and seed; of equal ones the newest."""
    found: dict[tuple, Measured] = {}
    options_of: dict[tuple, tuple[Path, dict]] = {}
    for folder in run_folders(run_root):
        metrics = saved_metrics(folder)
        if metrics is None:
            continue
        options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
        r = options["resolved"]
        commit = (options.get("git_commit") or "unknown")[:12]
        key = r["prompt"], r["preset"], r["seed"]
        _check_comparable(folder, saved_options(folder) or r, options_of)
        identity = hashlib.sha256(json.dumps(r, sort_keys=True).encode()).hexdigest()[:16]
        found[key] = Measured(folder, identity, *key, r["model"], commit, metrics)
    return [found[key] for key in sorted(found)]


def _check_comparable(folder: Path, resolved: dict, options_of: dict[tuple, tuple[Path, dict]]) -> None:
    """Refuse a run that differs from another in more than what is compared; remember it in `options_of`.

    Raises:
        ValueError: names the two and what differs.
    """
    prompt, preset, seed = (resolved[name] for name in ("prompt", "preset", "seed"))
    method = {"preset", *_METHOD}
    for key, without in (((prompt, preset, seed), {"preset"}), ((prompt, seed), method)):
        settings = {k: v for k, v in resolved.items() if k not in without}
        other, known = options_of.setdefault(key, (folder, settings))
        differing = sorted(k for k in settings.keys() | known.keys() if settings.get(k) != known.get(k))
        if differing:
            raise ValueError(
                f"results compare runs of one experiment. {folder.name} and {other.name} differ in "
                f"{', '.join(differing)}. Keep one of them in the folder."
            )


def mean_of(
    runs: list[Measured],
    preset: str,
    value: Callable[[dict], float | None],
    least: float = -math.inf,
    most: float = math.inf,
) -> Estimate | None:
    """Return the mean of a measurement over the objects of a preset, or None where there is none.

    The interval takes prompts for what is drawn, because the seeds of one prompt resemble each other.

    Args:
        least, most: the ends of what a value can be.
    """
    pairs = [(value(r.metrics), r.prompt) for r in runs if r.preset == preset]
    return _of_pairs(pairs, least, most)


def rate_of(runs: list[Measured], preset: str, holds: Callable[[dict], bool | None]) -> Estimate | None:
    """Return the share of a preset's objects for which something holds; the interval as in `mean_of`."""
    return mean_of(runs, preset, holds, 0, 1)


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
    return _of_pairs(pairs, -most, most)


def _of_pairs(pairs: list[tuple[float | None, str]], least: float, most: float) -> Estimate | None:
    """Return the mean of the values that were measured, by prompt."""
    found = [(v, prompt) for v, prompt in pairs if v is not None]
    return of_mean([v for v, _ in found], [prompt for _, prompt in found], least, most)
