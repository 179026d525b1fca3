"""The gate on hand-made rewards."""

from store.database import Log
from store.versions import add_version, list_gate_decisions
from train.gate import MIN_PAIRS, decide, record

LIVE = {f"s{n}": 0.4 for n in range(20)}


def test_a_better_candidate_passes_with_its_numbers() -> None:
    decision = decide(LIVE, dict.fromkeys(LIVE, 0.5), min_effect=0.0, seed=1)
    assert decision.passed
    assert decision.figures["pairs"] == 20
    assert abs(decision.figures["difference"] - 0.1) < 1e-9
    assert "+10.0 points" in decision.reason


def test_an_equal_candidate_is_refused() -> None:
    assert not decide(LIVE, dict(LIVE), min_effect=0.0, seed=1).passed


def test_less_than_the_minimum_effect_is_refused() -> None:
    assert not decide(LIVE, dict.fromkeys(LIVE, 0.45), min_effect=0.1, seed=1).passed


def test_what_could_not_be_judged_leaves_with_its_pair() -> None:
    """s0 failed for the candidate: it is no zero. 19 pairs of +0.1 remain, not 19 of +0.1 and one of -0.4."""
    candidate = dict.fromkeys(LIVE, 0.5) | {"s0": None}
    decision = decide(LIVE, candidate, min_effect=0.0, seed=1)
    assert (decision.figures["pairs"], decision.figures["excluded"]) == (19, 1)
    assert abs(decision.figures["difference"] - 0.1) < 1e-9


def test_too_few_pairs_are_no_evidence() -> None:
    few = {s: 1.0 if n < MIN_PAIRS - 1 else None for n, s in enumerate(LIVE)}
    decision = decide(LIVE, few, min_effect=0.0, seed=1)
    assert not decision.passed
    assert "could be judged" in decision.reason


def test_the_decision_is_recorded(sqlite_log: Log) -> None:
    add_version(sqlite_log, "v0001", parent=None, path="a", files={})
    add_version(sqlite_log, "v0002", parent="v0001", path="b", files={})
    record(sqlite_log, "v0002", "v0001", decide(LIVE, dict.fromkeys(LIVE, 0.5), min_effect=0.0, seed=1))
    (stored,) = list_gate_decisions(sqlite_log)
    assert (stored.candidate, stored.live, stored.passed) == ("v0002", "v0001", True)
