"""Coverage of measured objects against that of the creatures that their prompts mean in the embedded world.

python scripts/coverage_of_truth.py results/menagerie-menagerie/tables/objects.csv
"""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sjc_debiased.evaluation.intervals import of_rate, percent
from sjc_debiased.evaluation.orbit import metric_orbit
from sjc_debiased.menagerie.creatures import build
from sjc_debiased.menagerie.truth import creature_of
from sjc_debiased.menagerie.world import photograph

ALIKE = 0.2
"""What may be missing or too much, as a share of the truth."""
_SHAPES = 3
_PIXELS, _EVERY = 64, 20


@cache
def true_coverage(prompt: str) -> float:
    """Return the share of its pictures that a prompt's creature covers, on the orbit of the measurement.

    The mean over three of the world's shapes of it, and five azimuths.
    """
    photos = []
    for shape in range(_SHAPES):
        parts = build(replace(creature_of(prompt), shape_seed=shape))
        photos += [
            photograph(parts, c, np.random.default_rng(shape)) for c in metric_orbit(_PIXELS)[::_EVERY]
        ]
    return float(np.mean([photo.coverage for photo in photos]))


def main(table: Path) -> None:
    """Print, by preset, the shares of the truth's coverage, and how many objects are within a fifth of it."""
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for preset in dict.fromkeys(row["preset"] for row in rows):
        of_it = [row for row in rows if row["preset"] == preset]
        shares = np.array([float(row["coverage"]) / true_coverage(row["prompt"]) for row in of_it])
        alike = of_rate(np.abs(shares - 1) <= ALIKE, [row["prompt"] for row in of_it])
        least, tenth, half, nine, most = (f"{x:.2f}" for x in np.quantile(shares, (0, 0.1, 0.5, 0.9, 1)))
        n = len(of_it)
        print(f"{preset}: {percent(alike)} of {n} objects are within a fifth of the truth's coverage")
        print(f"  shares of it: median {half}, 10 to 90 % {tenth} to {nine}, all {least} to {most}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
