"""How sure a figure is: Wilson intervals of rates, bootstrap intervals of means and paired differences."""

from __future__ import annotations

import numpy as np

Z95 = 1.959964


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Return the 95 % interval of a rate (Wilson, 1927); (0, 1) where nothing was counted.

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    p, spread = successes / n, z * z / n
    middle = (p + spread / 2) / (1 + spread)
    half = z * ((p * (1 - p) + spread / 4) / n) ** 0.5 / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)  # rounding goes past the ends


def bootstrap(values: np.ndarray, groups: list, n_draws: int = 10_000) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `values`, by resampling whole groups (percentile method).

    Values of one group (the seeds of one prompt) resemble each other, so the group is the unit that is
    drawn again. The draws are fixed, so the same values give the same interval.

    Args:
        values: float [n]. groups: n labels; all different for a plain bootstrap.
    """
    values = np.asarray(values, dtype=np.float64)
    labels = list(dict.fromkeys(groups))
    sums = np.array([sum(v for v, g in zip(values, groups) if g == label) for label in labels])
    counts = np.array([groups.count(label) for label in labels])
    picks = np.random.default_rng(0).integers(len(labels), size=(n_draws, len(labels)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
