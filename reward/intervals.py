"""Confidence intervals of shares, means and paired differences. Pure; seeds are arguments."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_CELLS_AT_ONCE = 2_000_000
"""Resampled values that are held in memory at once."""
_EXACT_PAIRS = 12
_ROUNDING = 1e-9
"""Sums that differ by less are equal."""


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedInterval:
    mean_difference: float
    """Mean of after − before."""
    low: float
    high: float

    def in_points(self) -> str:
        """Of rewards or shares, times 100: "+12.0 [+4.1, +19.8]"."""
        return f"{100 * self.mean_difference:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def wilson(passed: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share. Nothing known (n = 0): share nan, interval from 0 to 1.

    Raises ValueError if `passed` is not between 0 and `n`. Source: E. B. Wilson, JASA 22 (1927).
    """
    if not 0 <= passed <= n:
        raise ValueError(f"{passed} of {n} passed: the count must lie between 0 and {n}")
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = passed / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def bootstrap_mean(values: Sequence[float], seed: int, draws: int = 10_000, confidence: float = 0.95) -> Interval:
    """Percentile bootstrap of the mean. Raises ValueError for no values or one that is not finite."""
    sample_N = _finite(values, "values")
    low, high = _percentiles(sample_N, seed, draws, confidence)
    return Interval(float(sample_N.mean()), low, high)


def paired_bootstrap(
    before: Sequence[float], after: Sequence[float], seed: int, draws: int = 10_000, confidence: float = 0.95
) -> PairedInterval:
    """Percentile bootstrap of the mean of after − before, resampling pairs (the same scenario before and after).

    Raises ValueError for different lengths, no pairs, or a value that is not finite: leave out both values of a pair of
    which one could not be judged.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before and {len(after)} after: pairs need as many of each")
    difference_N = _finite(after, "after") - _finite(before, "before")
    low, high = _percentiles(difference_N, seed, draws, confidence)
    return PairedInterval(float(difference_N.mean()), low, high)


def bootstrap_difference(
    before: Sequence[float], after: Sequence[float], seed: int, draws: int = 10_000, confidence: float = 0.95
) -> PairedInterval:
    """Percentile bootstrap of mean(after) − mean(before) of two independent samples, each resampled by itself.

    Raises ValueError for an empty sample or a value that is not finite.
    """
    before_N, after_M = _finite(before, "before"), _finite(after, "after")
    generator = np.random.default_rng(seed)
    differences_B = _resampled_means(after_M, generator, draws) - _resampled_means(before_N, generator, draws)
    low, high = np.quantile(differences_B, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return PairedInterval(float(after_M.mean() - before_N.mean()), float(low), float(high))


def sign_flips(differences: Sequence[float], seed: int, draws: int = 10_000) -> float:
    """p that the mean of paired differences is this great or greater by chance: one-sided sign-flip permutation test.

    Exact up to 12 pairs, `draws` random flips beyond (with the observed one counted in, so p is never 0). Raises
    ValueError for no differences or one that is not finite. Source: R. A. Fisher, The Design of Experiments (1935).
    """
    sample_N = _finite(differences, "differences")
    if sample_N.size <= _EXACT_PAIRS:
        bits_B_N = np.arange(2**sample_N.size)[:, None] >> np.arange(sample_N.size) & 1
        sums_B = (1 - 2 * bits_B_N) @ sample_N
        return float((sums_B >= sample_N.sum() - _ROUNDING).mean())
    generator = np.random.default_rng(seed)
    reached = 0
    rows = max(1, _CELLS_AT_ONCE // sample_N.size)
    for done in range(0, draws, rows):
        flips_B_N = 1 - 2 * generator.integers(0, 2, size=(min(rows, draws - done), sample_N.size))
        reached += int((flips_B_N @ sample_N >= sample_N.sum() - _ROUNDING).sum())
    return (reached + 1) / (draws + 1)


def resample_clusters(table_K_C: NDArray[np.int64], seed: int, draws: int) -> NDArray[np.int64]:
    """Column sums B × C of B = `draws` tables, each of K clusters drawn with replacement from the K rows of counts.

    Clusters with the same counts are one kind, so drawing K of them is a multinomial draw over the kinds: the same
    distribution, and a few hundred kinds stand for any number of clusters.
    """
    if len(table_K_C) == 0:
        return np.zeros((draws, table_K_C.shape[1]), dtype=np.int64)
    kinds_U_C, often_U = np.unique(table_K_C, axis=0, return_counts=True)
    drawn_B_U = np.random.default_rng(seed).multinomial(len(table_K_C), often_U / len(table_K_C), size=draws)
    return drawn_B_U @ kinds_U_C


def _finite(values: Sequence[float], name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError(f"there are no values ({name}) to take an interval of")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a value that is no finite number: {array[~np.isfinite(array)][0]}")
    return array


def _percentiles(sample_N: NDArray[np.float64], seed: int, draws: int, confidence: float) -> tuple[float, float]:
    means_B = _resampled_means(sample_N, np.random.default_rng(seed), draws)
    low, high = np.quantile(means_B, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _resampled_means(sample_N: NDArray[np.float64], generator: np.random.Generator, draws: int) -> NDArray[np.float64]:
    rows = max(1, _CELLS_AT_ONCE // sample_N.size)
    means = [
        sample_N[generator.integers(0, sample_N.size, size=(min(rows, draws - done), sample_N.size))].mean(axis=1)
        for done in range(0, draws, rows)
    ]
    return np.concatenate(means)
