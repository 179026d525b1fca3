"""How far a judge agrees with people or with code checks. Pure.

Pairs come from store/agreement.py. UNSCORED on either side is counted apart and never taken for a FAIL (invariant 3).

Intervals are percentile bootstraps that resample trajectories, for verdicts of one dialogue stand and fall together. A
share that stands at 0 or 1 has nothing to resample; its interval is Wilson's, with the trajectories as the sample.

Axes in names: K trajectories, B bootstrap draws, C counts of a table.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from reward.intervals import resample_clusters, wilson
from store.agreement import Pair
from store.vocabulary import Outcome

DRAWS = 1000
FEWEST = 10
"""Trajectories that an interval needs: with fewer a bootstrap's interval is far too narrow to be shown."""

_MOST_UNDEFINED = 0.05
"""Share of bootstrap draws in which a figure may be undefined before its interval is not given."""

Key = TypeVar("Key", bound=Hashable)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A figure with its interval; what cannot be said is None, and `why` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Agreement:
    """Of a judge with a reference; PASS is what "positive" means."""

    both_pass: int
    wrongly_failed: int
    """The reference says PASS, the judge FAIL."""
    wrongly_passed: int
    """The reference says FAIL, the judge PASS."""
    both_fail: int
    trajectories: int
    judge_unscored: int
    """Pairs left out because the judge could not decide."""
    reference_unscored: int
    """Pairs left out because the reference could not."""
    base_rate: Figure
    """Share of PASS in the reference."""
    raw: Figure
    """Share of pairs in which both say the same."""
    kappa: Figure
    """Cohen's κ: agreement beyond what the two base rates alone would give (Cohen, 1960)."""
    true_positive_rate: Figure
    """Share of the reference's PASS that the judge passes."""
    false_positive_rate: Figure
    """Share of the reference's FAIL that the judge passes."""

    @property
    def n(self) -> int:
        """Pairs in which both say PASS or FAIL."""
        return self.both_pass + self.wrongly_failed + self.wrongly_passed + self.both_fail


def measure_agreement(pairs: Iterable[Pair], seed: int, draws: int = DRAWS, confidence: float = 0.95) -> Agreement:
    """One table of pairs; trajectories are the clusters. Percentile intervals at `confidence` from `draws` draws."""
    counts: dict[str, list[int]] = {}
    judge_unscored = reference_unscored = 0
    for pair in pairs:
        if pair.reference == Outcome.UNSCORED:
            reference_unscored += 1
        elif pair.judged == Outcome.UNSCORED:
            judge_unscored += 1
        else:
            cell = 2 * (pair.reference == Outcome.FAIL) + (pair.judged == Outcome.FAIL)
            counts.setdefault(pair.trajectory_id, [0, 0, 0, 0])[cell] += 1
    table_K_C = np.array(list(counts.values()), dtype=np.int64).reshape(-1, 4)
    totals = table_K_C.sum(axis=0)
    both_pass, wrongly_failed, wrongly_passed, both_fail = map(int, totals)
    sums_B_C = resample_clusters(table_K_C, seed, draws)

    def figure(top: Sequence[int], bottom: Sequence[int], nothing: str) -> Figure:
        having = int(np.any(table_K_C[:, bottom] > 0, axis=1).sum())
        return share_figure(totals, sums_B_C, top, bottom, having, confidence, nothing)

    return Agreement(
        both_pass=both_pass,
        wrongly_failed=wrongly_failed,
        wrongly_passed=wrongly_passed,
        both_fail=both_fail,
        trajectories=len(counts),
        judge_unscored=judge_unscored,
        reference_unscored=reference_unscored,
        base_rate=figure((0, 1), (0, 1, 2, 3), "no pairs"),
        raw=figure((0, 3), (0, 1, 2, 3), "no pairs"),
        kappa=_kappa_figure(totals, sums_B_C, len(counts), confidence),
        true_positive_rate=figure((0,), (0, 1), "the reference passes nothing"),
        false_positive_rate=figure((2,), (2, 3), "the reference fails nothing"),
    )


def measure_by(
    pairs: Iterable[Pair], by: Callable[[Pair], Key], seed: int, draws: int = DRAWS, confidence: float = 0.95
) -> dict[Key, Agreement]:
    """`measure_agreement` of each stratum, in the order of their keys."""
    strata: dict[Key, list[Pair]] = {}
    for pair in pairs:
        strata.setdefault(by(pair), []).append(pair)
    return {key: measure_agreement(strata[key], seed, draws, confidence) for key in sorted(strata, key=repr)}


def _shares(sums_C: NDArray[np.int64], top: Sequence[int], bottom: Sequence[int]) -> Floats:
    """Along the last axis; nan where there is nothing to take a share of."""
    above, below = sums_C[..., top].sum(axis=-1), sums_C[..., bottom].sum(axis=-1)
    return np.where(below > 0, above / np.maximum(below, 1), np.nan)


def _kappas(sums_C: NDArray[np.int64]) -> Floats:
    """(p_o - p_e) / (1 - p_e) along the last axis; nan where the reference is all of one class."""
    both_pass, wrongly_failed, wrongly_passed, both_fail = (sums_C[..., c].astype(np.float64) for c in range(4))
    n = both_pass + wrongly_failed + wrongly_passed + both_fail
    passes, fails = both_pass + wrongly_failed, wrongly_passed + both_fail
    by_chance = passes * (both_pass + wrongly_passed) + fails * (wrongly_failed + both_fail)
    mixed = (passes > 0) & (fails > 0)
    return np.where(mixed, (n * (both_pass + both_fail) - by_chance) / np.where(mixed, n * n - by_chance, 1.0), np.nan)


def share_figure(
    totals: NDArray[np.int64],
    sums_B_C: NDArray[np.int64],
    top: Sequence[int],
    bottom: Sequence[int],
    trajectories: int,
    confidence: float,
    nothing: str,
) -> Figure:
    """`trajectories` are those that have anything of `bottom`."""
    value = float(_shares(totals, top, bottom))
    if np.isnan(value):
        return Figure(None, why=nothing)
    if trajectories < FEWEST:
        return Figure(value, why=_too_few(trajectories))
    if value in (0.0, 1.0):
        outer = wilson(round(value * trajectories), trajectories, confidence)
        return Figure(value, outer.low, outer.high)
    return _interval(value, _shares(sums_B_C, top, bottom), confidence)


def _kappa_figure(
    totals: NDArray[np.int64], sums_B_C: NDArray[np.int64], trajectories: int, confidence: float
) -> Figure:
    n, passes = int(totals.sum()), int(totals[:2].sum())
    if n == 0:
        return Figure(None, why="no pairs")
    if passes in (0, n):
        return Figure(None, why=f"the reference says {'PASS' if passes else 'FAIL'} throughout")
    value = float(_kappas(totals))
    if trajectories < FEWEST:
        return Figure(value, why=_too_few(trajectories))
    if value == 1.0:
        return Figure(value, why="no disagreement to resample")
    return _interval(value, _kappas(sums_B_C), confidence)


def _interval(value: float, values_B: Floats, confidence: float) -> Figure:
    defined = values_B[~np.isnan(values_B)]
    if defined.size < (1 - _MOST_UNDEFINED) * values_B.size:
        return Figure(value, why="one class is too rare for an interval")
    low, high = np.quantile(defined, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Figure(value, float(low), float(high))


def _too_few(trajectories: int) -> str:
    word = "trajectory" if trajectories == 1 else "trajectories"
    return f"{trajectories} {word}: too few for an interval"
