"""The curves of a run by step, from `stats.jsonl`, as lines of an SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sjc_debiased.clipped import clipped_share, say_clipped

_BINS = 240
WIDTH, HEIGHT = 1000, 260
"""Of the drawing, in its own units; the page stretches it."""


@dataclass(frozen=True)
class Line:
    """One line of a chart: the means over bins of steps, and between which values they lie.

    Attributes:
        points: of an SVG polyline. band: of the polygon around it; empty where each bin is one step.
        values: the means, for what the page says at a step; None where nothing was measured.
    """

    label: str
    points: str
    band: str
    values: list[float | None]


@dataclass(frozen=True)
class Chart:
    """Hold one chart.

    Attributes:
        about: what is drawn, in a sentence. absent: why nothing is; empty where there is something.
        top: the value at the upper border; the lower one is 0.
        percent: whether values are shares.
    """

    title: str
    about: str
    absent: str
    top: float
    percent: bool
    lines: list[Line]

    def shown(self, value: float | None) -> str:
        """Return a value as it is read."""
        if value is None:
            return "–"
        return f"{value:.1%}" if self.percent else f"{value:.3g}"

    @property
    def alt(self) -> str:
        """Return the chart in words."""
        parts = []
        for line in self.lines:
            known = [v for v in line.values if v is not None]
            if known:
                parts.append(
                    f"{line.label}: {self.shown(known[0])} at first, {self.shown(known[-1])} at last"
                )
        return f"{self.title} by step. {'; '.join(parts)}"


_CHARTS = (
    (
        "Direction",
        "How hard the 2D model pulls, in units of predicted noise, before clipping.",
        {"direction_rms": "root mean square", "direction_p95_abs": "95 % are below"},
    ),
    (
        "Clip value",
        "The bound on every element of the direction, in the same units.",
        {"clip_value": "bound"},
    ),
    ("Clipped share", "How much of the direction was beyond the bound.", {"clipped_fraction": "clipped"}),
    ("Opacity", "How much of the picture the object fills, on average.", {"opacity_mean": "opacity"}),
    (
        "Orientation",
        "How far what is seen turns away from the camera, before its weight.",
        {"orientation_loss": "orientation"},
    ),
    ("Sparsity", "Mean of the root of opacity² + 0.01, before its weight.", {"sparsity_loss": "sparsity"}),
    (
        "Normal consistency",
        "1 - cos of the angle between neighbouring normals, before its weight.",
        {"roughness_loss": "roughness"},
    ),
)
_SHARES = ("Clipped share", "Opacity")
_OF_SOME = ("Orientation", "Sparsity", "Normal consistency")
"""What only scenes that have it show."""


def bins(n_steps: int) -> list[range]:
    """Return ranges of steps, at most `_BINS` of them, that together are all."""
    n = min(_BINS, n_steps)
    return [range(n_steps * i // n, n_steps * (i + 1) // n) for i in range(n)]


def charts(rows: Sequence[dict], n_steps: int) -> list[Chart]:
    """Return the charts of a run.

    Args:
        rows: of `RunReader.stats`, from the first step on. n_steps: of the whole run, a chart's width.
    """
    made, n_steps = [], max(n_steps, len(rows))
    parts = [part for part in bins(n_steps) if part.start < len(rows)]
    for title, about, columns in _CHARTS:
        measured = {}
        for name in columns:
            every = [[_number(row.get(name)) for row in rows[part.start : part.stop]] for part in parts]
            measured[name] = [[v for v in values if v is not None] for values in every]
        highest = max((v for column in measured.values() for values in column for v in values), default=0.0)
        top = highest or 1.0
        lines = [_line(label, parts, measured[name], n_steps, top) for name, label in columns.items()]
        anything = any(values for column in measured.values() for values in column)
        if not anything and title in _OF_SOME:
            continue
        absent = ""
        if not rows:
            absent = "Nothing is logged yet."
        elif not anything:
            absent = "This run does not clip." if "clip_value" in columns else "It was not measured."
        said = about + (_in_all(rows) if title == "Clipped share" else "")
        made.append(Chart(title, said, absent, top, title in _SHARES, lines))
    return made


def _in_all(rows: Sequence[dict]) -> str:
    """Return how much of a run was clipped, as a sentence behind others, or "" where it does not clip."""
    share = clipped_share(row for row in rows if _number(row.get("clipped_fraction")) is not None)
    return "" if share is None else f" In all: {say_clipped(share)}."


def _line(label: str, parts: list[range], measured: list[list[float]], n_steps: int, top: float) -> Line:
    def point(part: range, value: float) -> str:
        x = WIDTH * (part.start + part.stop - 1) / 2 / max(1, n_steps - 1)
        return f"{x:.1f},{HEIGHT * (1 - value / top):.1f}"

    drawn = [(part, values) for part, values in zip(parts, measured) if values]
    points = " ".join(point(part, sum(values) / len(values)) for part, values in drawn)
    upper = [point(part, max(values)) for part, values in drawn]
    lower = [point(part, min(values)) for part, values in reversed(drawn)]
    band = " ".join(upper + lower) if any(len(values) > 1 for _, values in drawn) else ""
    means = [sum(values) / len(values) if values else None for values in measured]
    return Line(label, points, band, means)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
