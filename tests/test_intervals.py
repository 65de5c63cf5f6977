"""Intervals with known answers, and what few clusters can tell."""

import math

import numpy as np
import pytest

from sjc_debiased.evaluation.intervals import (
    agreeing,
    bca,
    number,
    of_mean,
    of_mean_two_ways,
    of_rate,
    wilson,
)

SPATIAL = [
    48,
    36,
    20,
    29,
    42,
    42,
    20,
    42,
    22,
    41,
    45,
    14,
    6,
    0,
    33,
    28,
    34,
    4,
    32,
    24,
    47,
    41,
    24,
    26,
    30,
    41,
]
"""Test A of Efron and Tibshirani, An Introduction to the Bootstrap, Table 14.1; its variance is 171.5."""


def ends(*arguments):
    """Return the ends of the interval of a mean."""
    found = of_mean(*arguments)
    return found.low, found.high


def variance(sums):
    return sums[..., 1] / sums[..., 2] - (sums[..., 0] / sums[..., 2]) ** 2


def unlike(n):
    """Return which share of all may differ where n of n are alike."""
    return 1 - 0.025 ** (1 / n)


def test_wilson():
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert wilson(0, 0) == (0.0, 1.0)
    assert all(0 <= end <= 1 for n in range(1, 60) for k in (0, n) for end in wilson(k, n))


def test_bca_is_that_of_scipy_on_the_books_skewed_variance():
    """The percentile interval ends at 251 there, so bias and acceleration are seen to move it."""
    from scipy import stats

    x = np.array(SPATIAL, float)
    totals = np.stack([x, x**2, np.ones(26)], 1)
    assert variance(totals.sum(0)) == pytest.approx(171.5, abs=0.05)
    ours = bca(totals, variance)
    theirs = stats.bootstrap(
        (x,), np.var, n_resamples=10_000, method="BCa", random_state=np.random.default_rng(0)
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), rel=1e-3)
    assert ours[1] > 260


def test_the_mean_of_independent_values_has_the_classical_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = ends(values, range(400))
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.02)
    assert (high - low) / 2 == pytest.approx(1.96 * 2 / math.sqrt(400), rel=0.15)
    grouped = ends(np.repeat(values[:40], 10), [g for g in range(40) for _ in range(10)])
    assert grouped[1] - grouped[0] > 2 * (high - low)


def test_a_cluster_counts_once_whatever_it_holds():
    prompts = [0, 1, 2, 3]
    once, often = (of_mean([0.0, 1.0, 0.0, 1.0] * k, prompts * k, 0, 1) for k in (1, 5))
    assert (often.low, often.high) == (once.low, once.high)
    assert (often.n, often.clusters) == (20, 4)


@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 6, 18])
def test_a_rate_on_which_all_prompts_agree_has_clopper_and_pearsons_interval(rate, n):
    from scipy import stats

    exact = stats.binomtest(int(rate * n), n).proportion_ci(method="exact")
    assert ends([rate] * (3 * n), [*range(n)] * 3, 0, 1) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize(
    ("values", "least", "most"),
    [([1, 0, 0] * 6, 0, 1), ([0.0] * 18, -1, 1), ([0.1] * 18, -math.inf, math.inf), ([1, 0, 0], 0, 1)],
)
def test_no_interval_is_without_a_width(values, least, most):
    low, high = ends(values, [i // 3 for i in range(len(values))], least, most)
    assert least <= low < np.mean(values) < high <= most


@pytest.mark.parametrize("n", [3, 18])
def test_one_success_tells_no_more_than_none(n):
    prompts = [i // 3 for i in range(3 * n)]
    none, one, two = (of_rate([i < k for i in range(3 * n)], prompts) for k in range(3))
    assert none.low == one.low == 0
    assert none.high < one.high < two.high
    assert none.high == pytest.approx(unlike(n))


def test_a_rate_of_many_prompts_that_differ_has_the_bca_interval():
    prompts = [i // 3 for i in range(54)]
    answers = [prompt % 3 == 0 for prompt in prompts]
    assert of_rate(answers, prompts) == of_mean(answers, prompts)


def test_one_difference_tells_no_more_than_none():
    """Of 24 prompts; three that all fell are 0.25 by the sign test, too few for an interval without zero."""
    none, one, three = (of_mean([-1.0] * k + [0.0] * (24 - k), range(24), -1, 1) for k in (0, 1, 3))
    assert (none.low, none.high) == pytest.approx((-unlike(24), unlike(24)))
    assert one.low < none.low
    assert three.low < one.low < 0 < three.high < one.high
    eight = of_mean([-1.0] * 8 + [0.0] * 16, range(24), -1, 1)
    assert eight.high < 0


def test_one_answer_of_another_kind_tells_no_more_than_none_of_people_and_pairs():
    people, pairs = [i // 20 for i in range(60)], [i % 20 for i in range(60)]
    alike, one = (of_mean_two_ways([1.0] * (60 - k) + [0.0] * k, people, pairs, 0, 1) for k in (0, 1))
    assert (alike.low, alike.high) == pytest.approx((1 - unlike(3), 1))
    assert one.low < alike.low
    assert of_mean_two_ways([], [], [], 0, 1) is None


def test_agreeing_clusters_of_unbounded_values_tell_nothing_and_that_is_shown():
    assert agreeing(0.2, 18) == (-math.inf, math.inf)
    assert number(of_mean([0.2] * 3, [0, 0, 0])) == "0.2000 [–]"
    assert of_mean([], []) is None
