"""Intervals: against published numbers and against what they promise."""

import math
import time

import numpy as np
import pytest

from reward.intervals import bootstrap_mean, paired_bootstrap, wilson


def test_wilson_against_the_formula_by_hand() -> None:
    """8 of 10, z = 1.96: centre (0.8 + 0.192) / 1.3842 = 0.7167, half 1.96/1.3842 · sqrt(0.016 + 0.0096) = 0.2266."""
    interval = wilson(8, 10)
    assert interval.mean == 0.8
    assert (interval.low, interval.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_wilson_at_the_edges() -> None:
    assert (wilson(0, 20).low, wilson(20, 20).high) == (0.0, 1.0)
    assert wilson(0, 20).high == pytest.approx(0.1611, abs=1e-4)
    nothing = wilson(0, 0)
    assert math.isnan(nothing.mean) and (nothing.low, nothing.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="5 of 4 passed"):
        wilson(5, 4)


def test_bootstrap_mean_agrees_with_the_standard_error() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, size=400).tolist()
    interval = bootstrap_mean(values, seed=1)
    error = 1.96 * np.std(values) / 20
    assert interval.mean == pytest.approx(np.mean(values))
    assert (interval.low, interval.high) == pytest.approx((interval.mean - error, interval.mean + error), abs=0.02)


def test_the_seed_fixes_the_interval() -> None:
    values = np.random.default_rng(8).random(40).tolist()
    assert bootstrap_mean(values, seed=5) == bootstrap_mean(values, seed=5)
    assert bootstrap_mean(values, seed=5) != bootstrap_mean(values, seed=6)


def test_pairing_removes_the_spread_between_scenarios() -> None:
    """Every scenario gains exactly 0.1, however different the scenarios are: the interval is 0.1 to 0.1."""
    before = [0.0, 0.3, 0.5, 0.9]
    paired = paired_bootstrap(before, [value + 0.1 for value in before], seed=1)
    assert (paired.mean_difference, paired.low, paired.high) == pytest.approx((0.1, 0.1, 0.1))
    falling = paired_bootstrap([1.0, 1.0], [0.0, 0.0], seed=1)
    assert falling.mean_difference == -1.0


def test_about_95_of_100_intervals_cover_the_truth() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        interval = bootstrap_mean(generator.normal(0.0, 1.0, size=60).tolist(), seed, draws=1000)
        covered += interval.low <= 0.0 <= interval.high
    assert 180 <= covered <= 199


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([0.1], [0.1, 0.2], "1 values before and 2 after"),
        ([], [], "there are no values"),
        ([0.1], [float("nan")], "no finite number: nan"),
    ],
)
def test_paired_bootstrap_refuses(before: list[float], after: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(before, after, seed=1)


def test_many_values_stay_within_time_and_memory() -> None:
    """20,000 values × 2,000 draws at once would be 320 MB of indices; in blocks it takes a second."""
    started = time.process_time()
    bootstrap_mean([0.5, 1.0] * 10_000, seed=1, draws=2000)
    assert time.process_time() - started < 5
