"""Figures of agreement against arithmetic by hand, against direct formulas, and against what intervals promise."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.agreement import FEWEST, Agreement, measure_agreement, measure_by
from reward.intervals import resample_clusters, wilson
from store.agreement import Pair
from store.vocabulary import Outcome

LETTERS = {"P": Outcome.PASS, "F": Outcome.FAIL, "U": Outcome.UNSCORED}


def pair(said: str, trajectory: str = "t1", **changes: object) -> Pair:
    """`said` is the reference's letter and the judge's."""
    fields = {
        "trajectory_id": trajectory,
        "turn_index": 0,
        "item_id": 1,
        "reference": LETTERS[said[0]],
        "judged": LETTERS[said[1]],
        "judge": "big-judge",
        "prompt": None,
        "kind": "llm",
        "channel": "user_visible_reply",
        "version": "v0001",
        "unbiased": True,
    }
    return Pair(**fields | changes)  # type: ignore[arg-type]


def table(both_pass: int, wrongly_failed: int, wrongly_passed: int, both_fail: int) -> list[Pair]:
    """So many pairs, each of a trajectory of its own."""
    said = ["PP"] * both_pass + ["PF"] * wrongly_failed + ["FP"] * wrongly_passed + ["FF"] * both_fail
    return [pair(letters, f"t{number}") for number, letters in enumerate(said)]


def measured(pairs: Sequence[Pair]) -> Agreement:
    return measure_agreement(pairs, seed=1)


def test_a_table_by_hand() -> None:
    """20 both PASS, 5 wrongly failed, 10 wrongly passed, 15 both FAIL, of 50.

    Agreement 35/50 = 0.7. The reference passes 25/50, the judge 30/50: by chance 0.5 · 0.6 + 0.5 · 0.4 = 0.5, so
    κ = (0.7 − 0.5) / (1 − 0.5) = 0.4. True positives 20/25 = 0.8, false positives 10/25 = 0.4.
    """
    found = measured(table(20, 5, 10, 15))
    assert (found.n, found.trajectories) == (50, 50)
    assert (found.both_pass, found.wrongly_failed, found.wrongly_passed, found.both_fail) == (20, 5, 10, 15)
    assert found.base_rate.value == 0.5
    assert found.raw.value == 0.7
    assert found.kappa.value == pytest.approx(0.4)
    assert found.true_positive_rate.value == 0.8
    assert found.false_positive_rate.value == 0.4


@pytest.mark.parametrize(
    ("cells", "kappa"),
    [((45, 15, 25, 15), 0.06 / 0.46), ((25, 35, 5, 35), 0.14 / 0.54), ((0, 10, 10, 0), -1.0), ((6, 0, 0, 4), 1.0)],
)
def test_kappa_tells_tables_of_equal_agreement_apart(cells: tuple[int, int, int, int], kappa: float) -> None:
    """Both first agree in 60 of 100. 60 % and 70 % PASS: chance 0.6 · 0.7 + 0.4 · 0.3 = 0.54, κ = 0.06/0.46 = 0.13.
    60 % and 30 % PASS: chance 0.6 · 0.3 + 0.4 · 0.7 = 0.46, κ = 0.14/0.54 = 0.26."""
    assert measured(table(*cells)).kappa.value == pytest.approx(kappa)


def test_a_reference_of_one_class_has_no_kappa() -> None:
    """99 of 100 right, yet the reference cannot tell a judge that looks from one that always passes."""
    found = measured(table(99, 1, 0, 0))
    assert found.raw.value == 0.99 and found.true_positive_rate.value == 0.99
    assert (found.kappa.value, found.kappa.why) == (None, "the reference says PASS throughout")
    assert (found.false_positive_rate.value, found.false_positive_rate.why) == (None, "the reference fails nothing")
    all_fail = measured(table(0, 0, 1, 30))
    assert (all_fail.kappa.value, all_fail.kappa.why) == (None, "the reference says FAIL throughout")
    assert all_fail.true_positive_rate.why == "the reference passes nothing"


def test_a_judge_that_always_passes_is_worth_nothing() -> None:
    """80 % right by the base rate alone; chance is 0.8 · 1 + 0.2 · 0 = 0.8, so κ = 0."""
    found = measured(table(40, 0, 10, 0))
    assert found.raw.value == 0.8
    assert found.kappa.value == 0.0
    assert (found.true_positive_rate.value, found.false_positive_rate.value) == (1.0, 1.0)


def test_unscored_is_no_fail_and_stands_apart() -> None:
    found = measured([*table(20, 5, 10, 15), pair("PU", "u1"), pair("FU", "u2"), pair("UP", "u3"), pair("UU", "u4")])
    assert (found.n, found.judge_unscored, found.reference_unscored) == (50, 2, 2)
    assert found.kappa.value == pytest.approx(0.4)
    assert found.trajectories == 50


def test_nothing_is_known_of_nothing() -> None:
    found = measured([pair("PU")])
    assert (found.n, found.judge_unscored) == (0, 1)
    assert {f.value for f in (found.base_rate, found.raw, found.kappa)} == {None}
    assert found.raw.why == found.kappa.why == "no pairs"


def test_few_trajectories_have_figures_but_no_interval() -> None:
    pairs = [pair(said, f"t{n}") for n in range(FEWEST - 1) for said in ("PP", "FF", "FP")]
    found = measured(pairs)
    assert found.raw.value == pytest.approx(2 / 3) and found.raw.low is None
    assert found.raw.why == found.kappa.why == f"{FEWEST - 1} trajectories: too few for an interval"
    more = measured([*pairs, *(pair(said, "t99") for said in ("PP", "FF", "FP"))])
    assert more.raw.low is not None and not more.raw.why


def test_a_class_that_is_too_rare_has_no_interval() -> None:
    """One trajectory of 40 has the only two FAILs: over a third of the draws miss it, and κ with it."""
    found = measured([*table(39, 1, 0, 0)[:39], pair("FF", "rare"), pair("FP", "rare")])
    assert found.kappa.value is not None and found.kappa.low is None
    assert found.kappa.why == "one class is too rare for an interval"
    assert found.false_positive_rate.why == "1 trajectory: too few for an interval"
    assert found.raw.low is not None


def test_a_perfect_share_is_not_certain() -> None:
    """30 of 30 right tells that at least 88.6 % are (Wilson), not that all are; κ has no spread to resample."""
    found = measured(table(20, 0, 0, 10))
    assert found.raw.value == 1.0
    assert (found.raw.low, found.raw.high) == (wilson(30, 30).low, 1.0)
    assert found.raw.low == pytest.approx(0.8865, abs=1e-4)
    assert (found.kappa.value, found.kappa.low, found.kappa.why) == (1.0, None, "no disagreement to resample")


def test_the_interval_knows_that_a_dialogue_is_one_sample() -> None:
    """40 trajectories of 25 pairs, 32 of them right throughout, 8 wrong: the error of 0.8 is that of 40 samples,
    1.96 · sqrt(0.8 · 0.2 / 40) = 0.124, not that of 1,000, which is 0.025."""
    pairs = [pair(said, f"t{n}") for n in range(40) for said in ["PP" if n % 5 else "FP"] * 25]
    found = measured(pairs)
    assert found.raw.value == 0.8
    assert found.raw.low is not None and found.raw.high is not None
    assert (found.raw.high - found.raw.low) / 2 == pytest.approx(0.124, abs=0.015)


def test_resampled_kinds_are_resampled_clusters() -> None:
    """Against drawing the clusters themselves: same mean and spread of each column's sum."""
    table_K_C = np.random.default_rng(4).integers(0, 3, size=(30, 2))
    sums_B_C = resample_clusters(table_K_C, seed=1, draws=20_000)
    drawn = np.random.default_rng(5).integers(0, 30, size=(20_000, 30))
    direct_B_C = table_K_C[drawn].sum(axis=1)
    assert sums_B_C.mean(axis=0) == pytest.approx(table_K_C.sum(axis=0), rel=0.01)
    assert sums_B_C.std(axis=0) == pytest.approx(direct_B_C.std(axis=0), rel=0.03)
    covariances = [float(np.cov(sums.T)[0, 1]) for sums in (sums_B_C, direct_B_C)]
    assert covariances[0] == pytest.approx(covariances[1], abs=0.6)


def test_the_seed_fixes_the_intervals() -> None:
    pairs = table(20, 5, 10, 15)
    assert measure_agreement(pairs, seed=3) == measure_agreement(pairs, seed=3)
    assert measure_agreement(pairs, seed=3) != measure_agreement(pairs, seed=4)


def test_about_95_of_100_intervals_hold_the_true_kappa() -> None:
    """Half PASS, 15 % of all verdicts wrong either way: agreement 0.85, chance 0.5, κ = 0.7."""
    rng, held = np.random.default_rng(7), 0
    for _ in range(120):
        said = [
            "".join(("PF"[a], "PF"[a ^ b])) for a, b in zip(rng.integers(0, 2, 80), rng.random(80) < 0.15, strict=True)
        ]
        kappa = measure_agreement([pair(s, f"t{n}") for n, s in enumerate(said)], seed=1, draws=400).kappa
        assert kappa.low is not None and kappa.high is not None
        held += kappa.low <= 0.7 <= kappa.high
    assert 106 <= held <= 120


def test_strata_add_up_to_the_whole() -> None:
    pairs = [
        p._replace(version=f"v{n % 3}", kind="called" if n % 2 else "llm") for n, p in enumerate(table(30, 8, 4, 18))
    ]
    by_both = measure_by(pairs, lambda p: (p.kind, p.version), seed=1)
    assert list(by_both) == [(kind, f"v{n}") for kind in ("called", "llm") for n in range(3)]
    assert sum(found.n for found in by_both.values()) == 60
    assert sum(found.wrongly_passed for found in by_both.values()) == 4
    alone = measured([p for p in pairs if (p.kind, p.version) == ("llm", "v0")])
    assert by_both["llm", "v0"] == alone


PAIRS = st.lists(st.tuples(st.sampled_from("PFU"), st.sampled_from("PFU"), st.integers(0, 5)), max_size=60)


@given(PAIRS)
@settings(max_examples=150, deadline=None)
def test_against_direct_formulas(said: list[tuple[str, str, int]]) -> None:
    """κ as (p_o − p_e) / (1 − p_e) in fractions, the rates as counts; and what neither order nor names may change."""
    pairs = [pair(reference + judged, f"t{cluster}") for reference, judged, cluster in said]
    found = measure_agreement(pairs, seed=1, draws=100)
    both = [(r, j) for r, j, _ in said if "U" not in (r, j)]
    n = len(both)
    assert found.n == n
    assert found.judge_unscored + found.reference_unscored == len(said) - n
    assert found.reference_unscored == sum(r == "U" for r, _, _ in said)
    if n == 0:
        return
    assert found.raw.value == sum(r == j for r, j in both) / n
    passes, passed = sum(r == "P" for r, _ in both), sum(j == "P" for _, j in both)
    assert found.base_rate.value == passes / n
    if 0 < passes < n:
        by_chance = Fraction(passes * passed + (n - passes) * (n - passed), n * n)
        kappa = (Fraction(sum(r == j for r, j in both), n) - by_chance) / (1 - by_chance)
        assert found.kappa.value == pytest.approx(float(kappa), abs=1e-12)
        assert found.true_positive_rate.value == sum(p == ("P", "P") for p in both) / passes
        assert found.false_positive_rate.value == sum(p == ("F", "P") for p in both) / (n - passes)
    else:
        assert found.kappa.value is None
    figures = (found.base_rate, found.raw, found.kappa, found.true_positive_rate, found.false_positive_rate)
    for figure in figures:
        assert figure.value is None or -1 <= figure.value <= 1
        assert figure.low is None or (figure.high is not None and figure.low <= figure.high)
        assert figure.value is not None or figure.why
    backwards = measure_agreement(pairs[::-1], seed=1, draws=100)
    assert (backwards.n, backwards.kappa.value) == (found.n, found.kappa.value)
    mirrored = measure_agreement([p._replace(reference=p.judged, judged=p.reference) for p in pairs], 1, 100)
    if found.kappa.value is not None and mirrored.kappa.value is not None:
        assert math.isclose(mirrored.kappa.value, found.kappa.value, abs_tol=1e-12)
