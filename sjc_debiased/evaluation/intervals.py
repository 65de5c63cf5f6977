"""How sure a figure is: 95 % intervals that take clusters (the seeds of a prompt) for what they are.

Values of one cluster resemble each other, so the cluster is what is drawn again, and what counts how much is
known. Where all clusters agree a bootstrap has no width, and `agreeing` says what so many clusters can tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

Z95 = 1.959964
N_DRAWS = 10_000
NONE = "–"
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, and the numbers of values and of clusters (prompts) behind it."""

    value: float
    low: float
    high: float
    n: int
    clusters: int


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Return the 95 % interval of a rate of independent answers (Wilson, 1927); (0, 1) where there are none.

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    p, spread = successes / n, z * z / n
    middle = (p + spread / 2) / (1 + spread)
    half = z * ((p * (1 - p) + spread / 4) / n) ** 0.5 / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)  # rounding goes past the ends


def agreeing(value: float, n: int, least: float = -math.inf, most: float = math.inf) -> tuple[float, float]:
    """Return the 95 % interval of a mean of which all n clusters have the same value.

    Clopper and Pearson (1934): where n of n are alike, a share of up to 1 - 0.025^(1/n) of all may differ.
    Those may have any value that there is. For a rate of 0 or 1 this is their exact interval.

    Args:
        least, most: the ends of what a value can be; without them nothing is known.

    >>> [round(x, 3) for x in agreeing(0.0, 6, 0, 1)]
    [0.0, 0.459]
    """
    unlike = 1 - 0.025 ** (1 / n)
    return value - unlike * (value - least), value + unlike * (most - value)


def bca(totals: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float] | None:
    """Return the 95 % BCa interval of a statistic (Efron, 1987), None where no draw differs from another.

    The bias z is read from the draws, half of the ties below, and the acceleration a from the statistic
    without each cluster in turn; the ends are the quantiles Phi(z + (z + q) / (1 - a (z + q))), q = -+1.96.
    The draws are fixed, so the same values give the same interval. Draws without a value are left out.

    Args:
        totals: float [n, m], what each cluster adds to m sums. statistic: of sums [..., m], gives [...].
    """
    n = len(totals)
    value = statistic(totals.sum(0))
    draws = statistic(_drawn_again(np.random.default_rng(0), n) @ totals)
    draws = draws[np.isfinite(draws)]
    if _has_no_width(draws):
        return None
    without = statistic(totals.sum(0) - totals)
    pull = np.nanmean(without) - without
    spread = np.nansum(pull**2) ** 1.5
    acceleration: Any = np.nansum(pull**3) / (6 * spread) if spread else 0.0
    below = ((draws < value).mean() + (draws <= value).mean()) / 2
    bias: float = _NORMAL.inv_cdf(min(max(below, 1 / N_DRAWS), 1 - 1 / N_DRAWS))
    low, high = (_NORMAL.cdf(bias + (bias + q) / (1 - acceleration * (bias + q))) for q in (-Z95, Z95))
    low, high = np.quantile(draws, [low, high])
    return float(low), float(high)


def of_mean(
    values: Sequence[float], clusters: Sequence[Hashable], least: float = -math.inf, most: float = math.inf
) -> Estimate | None:
    """Return the mean of values in clusters, None without any.

    BCa, but no end nearer than `agreeing` allows: clusters of a kind that was never met are in no draw, so
    that one success, or one difference, of few prompts would seem to tell more than none.

    Args:
        values: n values. clusters: n labels; all different where the values are independent.
        least, most: the ends of what a value can be; without them BCa's ends stand where it has any.
    """
    if not len(values):
        return None
    place = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    totals = np.zeros((len(place), 2))
    np.add.at(totals, [place[c] for c in clusters], [(v, 1.0) for v in values])
    value = float(np.mean(values))
    ends = bca(totals, lambda sums: ratio(sums[..., 0], sums[..., 1]))
    return Estimate(value, *_no_nearer(ends, value, len(place), least, most), len(values), len(place))


def of_rate(answers: Sequence[bool], clusters: Sequence[Hashable]) -> Estimate | None:
    """Return the share of yes among answers in clusters, None without any; as `of_mean` of 0 and 1."""
    return of_mean(answers, clusters, 0, 1)


def of_mean_two_ways(
    values: Sequence[float], rows: Sequence[Hashable], columns: Sequence[Hashable], least: float, most: float
) -> Estimate | None:
    """Return the mean of values in two kinds of clusters at once (people and pairs), None without any.

    Both are drawn again, each by itself, and a value counts as often as both together say (Owen, 2007,
    "The pigeonhole bootstrap"), percentile method, but no end nearer than `agreeing` allows to the fewer of
    the two.

    Args:
        rows, columns: the labels of n values. least, most: as in `of_mean`.
    """
    if not len(values):
        return None
    at = [{name: i for i, name in enumerate(dict.fromkeys(labels))} for labels in (rows, columns)]
    totals = np.zeros((2, len(at[0]), len(at[1])))
    for v, r, c in zip(values, rows, columns):
        totals[:, at[0][r], at[1][c]] += v, 1
    rng = np.random.default_rng(0)
    of_rows, of_columns = (_drawn_again(rng, len(labels)) for labels in at)
    part, whole = ((of_rows @ total * of_columns).sum(1) for total in totals)
    draws = ratio(part, whole)
    draws = draws[np.isfinite(draws)]
    value, fewer = float(np.mean(values)), min(map(len, at))
    low, high = np.quantile(draws, [0.025, 0.975]) if len(draws) else (value, value)
    return Estimate(value, *_no_nearer((low, high), value, fewer, least, most), len(values), fewer)


def _no_nearer(
    ends: tuple[float, float] | None, value: float, n: int, least: float, most: float
) -> tuple[float, float]:
    """Return the ends, none nearer than `agreeing` has them, or these where there are none."""
    low, high = agreeing(value, n, least, most)
    if ends is None:
        return low, high
    low, high = min(ends[0], low), max(ends[1], high)
    return float(low if math.isfinite(low) else ends[0]), float(high if math.isfinite(high) else ends[1])


def _drawn_again(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return how often each of n clusters is in each draw, int [N_DRAWS, n]."""
    picks = rng.integers(n, size=(N_DRAWS, n)) + n * np.arange(N_DRAWS)[:, None]
    return np.bincount(picks.ravel(), minlength=N_DRAWS * n).reshape(N_DRAWS, n)


def _has_no_width(draws: np.ndarray) -> bool:
    return not len(draws) or bool(np.ptp(draws) <= 1e-12 * max(1.0, abs(draws[0])))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN where the whole is nothing."""
    return part / np.where(whole, whole, np.nan)


def number(e: Estimate | None, digits: int = 4, sign: bool = False) -> str:
    """Return a figure with its interval: 0.1234 [0.1200, 0.1300], without ends where none are known."""
    if e is None:
        return NONE
    form = f"{'+' if sign else ''}.{digits}f"
    ends = f"{e.low:{form}}, {e.high:{form}}" if math.isfinite(e.high - e.low) else NONE
    return f"{e.value:{form}} [{ends}]"


def percent(e: Estimate | None, sign: bool = False) -> str:
    """Return a rate with its interval: 68 % [53, 80]."""
    if e is None:
        return NONE
    form = "+.0f" if sign else ".0f"
    return f"{100 * e.value:{form}} % [{100 * e.low:{form}}, {100 * e.high:{form}}]"
