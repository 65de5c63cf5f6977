"""How far the judge can be trusted: agreement with the eye beyond what chance, or always "no", would give.

Where most objects have no single face, a judge that never sees one agrees with the eye nearly always. Cohen's
kappa takes the agreement of chance away; sensitivity and specificity tell the two kinds of error apart.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from sjc_debiased.evaluation.intervals import Estimate, agreeing, bca, number, of_rate, percent, ratio


@dataclass(frozen=True)
class Answer:
    """One yes or no, by the eye and by the judge, and what it resembles (its object, or its prompt)."""

    eye: bool
    judge: bool
    cluster: Hashable


def rates(answers: list[Answer]) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """Return agreement, sensitivity and specificity; None where there is nothing to count."""

    def share(chosen: list[Answer]) -> Estimate | None:
        return of_rate([a.eye == a.judge for a in chosen], [a.cluster for a in chosen])

    return share(answers), share([a for a in answers if a.eye]), share([a for a in answers if not a.eye])


def kappa_of(table: np.ndarray) -> np.ndarray:
    """Return Cohen's kappa (1960) of counts by eye and judge [..., 2, 2]; NaN where chance never errs."""
    n = table.sum((-2, -1))
    same = ratio(table[..., 0, 0] + table[..., 1, 1], n)
    chance = ratio((table.sum(-1) * table.sum(-2)).sum(-1), n**2)
    return ratio(same - chance, 1 - chance)


def kappa(answers: list[Answer]) -> Estimate | None:
    """Return Cohen's kappa of n > 0 answers with its interval over clusters; None where it has no value.

    Without a single disagreement the lower end is the worst that the share of clusters which may still
    differ (see `agreeing`) could make of it.
    """
    place = {c: i for i, c in enumerate(dict.fromkeys(a.cluster for a in answers))}
    tables = np.zeros((len(place), 2, 2))
    for a in answers:
        tables[place[a.cluster], int(a.eye), int(a.judge)] += 1
    table = tables.sum(0)
    value = float(kappa_of(table))
    if np.isnan(value):
        return None
    ends = bca(tables.reshape(-1, 4), lambda sums: kappa_of(sums.reshape(*sums.shape[:-1], 2, 2)))
    if ends is None:
        moved = agreeing(0.0, len(place), 0, 1)[1] * table.sum()
        from_no, from_yes = np.minimum(np.diag(table), moved)
        worst = (np.array([[-from_no, from_no], [0, 0]]), np.array([[0, 0], [from_yes, -from_yes]]))
        ends = min([value, *(float(kappa_of(table + w)) for w in worst)]), 1.0
    return Estimate(value, *ends, len(answers), len(place))


def sentence(answers: list[Answer]) -> str:
    """Return the agreement on n > 0 answers in words, beside what always "no" would reach."""
    same, sensitivity, specificity = rates(answers)
    always_no = sum(not a.eye for a in answers) / len(answers)
    return (
        f'{percent(same)} (always "no" would reach {always_no:.0%}), Cohen\'s kappa '
        f"{number(kappa(answers), 2)}, sensitivity {percent(sensitivity)} ({_hits(sensitivity)}), "
        f"specificity {percent(specificity)} ({_hits(specificity)})"
    )


def _hits(e: Estimate | None) -> str:
    return f"{e.value * e.n:.0f} of {e.n}" if e else "0 of 0"
