"""The gate on hand-made rewards."""

from reward.intervals import sign_flips
from store.database import Log
from store.training_settings import GateSettings
from store.versions import add_version, list_gate_decisions
from train.gate import MIN_PAIRS, decide, record
from train.gate_items import Looked

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


def test_where_too_much_is_excluded_nothing_is_decided() -> None:
    """Four scenarios that were judged say something; ninety-two that were not say that something is wrong."""
    live: dict[str, float | None] = {f"s{n}": 0.4 if n < 4 else None for n in range(96)}
    candidate = {s: 0.9 if n < 4 else 0.0 for n, s in enumerate(live)}
    decision = decide(live, candidate, min_effect=0.0, seed=1)
    assert decision.passed is None and decision.figures["excluded"] == 92
    assert decision.reason.startswith("only 4 of 96 scenarios could be judged for both versions: more are excluded")
    assert decide(live, candidate, min_effect=0.0, seed=1, rules=GateSettings(max_excluded=0.96)).passed
    missing = {s: 0.9 for n, s in enumerate(LIVE) if n < 15}
    assert decide(LIVE, missing, min_effect=0.0, seed=1).passed is None, "what was never played is excluded, too"
    three = dict.fromkeys(list(LIVE)[:3], 0.4)
    assert decide(three, dict.fromkeys(three, 0.9), min_effect=0.0, seed=1).passed is None


def test_the_decision_is_recorded(sqlite_log: Log) -> None:
    add_version(sqlite_log, "v0001", parent=None, path="a", files={})
    add_version(sqlite_log, "v0002", parent="v0001", path="b", files={})
    record(sqlite_log, "v0002", "v0001", decide(LIVE, dict.fromkeys(LIVE, 0.5), min_effect=0.0, seed=1))
    (stored,) = list_gate_decisions(sqlite_log)
    assert (stored.candidate, stored.live, stored.passed) == ("v0002", "v0001", True)


def chance(effect: float, spread: float = 0.3, count: int = 24) -> dict[str, float | None]:
    """Better by `effect` on average, now more, now less."""
    return {f"s{n}": 0.4 + effect + (spread if n % 2 else -spread) for n in range(count)}


def test_a_gain_that_chance_explains_passes_by_its_mean_and_by_no_test() -> None:
    live = {f"s{n}": 0.4 for n in range(24)}
    outcomes = {}
    for test in ("mean", "bootstrap", "permutation"):
        rules = GateSettings.model_validate({"test": test})
        weak = decide(live, chance(0.02), min_effect=0.0, seed=1, rules=rules)
        strong = decide(live, chance(0.35), min_effect=0.0, seed=1, rules=rules)
        outcomes[test] = weak.passed, strong.passed
        assert weak.figures["p"] > 0.3 and strong.figures["p"] < 0.01
    assert outcomes == {"mean": (True, True), "bootstrap": (False, True), "permutation": (False, True)}


def test_the_minimum_effect_is_what_a_test_must_be_sure_of() -> None:
    live = {f"s{n}": 0.4 for n in range(24)}
    for test in ("bootstrap", "permutation"):
        rules = GateSettings.model_validate({"test": test})
        assert decide(live, chance(0.2, 0.1), min_effect=0.1, seed=1, rules=rules).passed
        assert not decide(live, chance(0.2, 0.1), min_effect=0.19, seed=1, rules=rules).passed


def test_sign_flips_by_hand() -> None:
    """Of the 8 signs of (1, 2, 3) one sums to 6; of (1, 2, -3) those that reach 0: all plus, and its mirror image."""
    assert sign_flips([1, 2, 3], 0) == 1 / 8
    assert sign_flips([1, 2, -3], 0) == 5 / 8
    assert sign_flips([0.0, 0.0], 0) == 1.0
    assert 0 < sign_flips([0.1] * 40, 0) < 0.001
    assert 0.3 < sign_flips([0.1, -0.1] * 20, 0) < 0.7


def looked(domain: str, strict: bool = True, safety: bool = True) -> Looked:
    return Looked(domain, {"0/calls_book": strict}, {"1/safety_no_payment": safety})


def test_a_domain_that_gets_worse_stops_a_candidate_that_is_better_on_average() -> None:
    live: dict[str, float | None] = {f"s{n}": 0.5 for n in range(40)}
    candidate = {s: (0.9 if n < 30 else 0.2) for n, s in enumerate(live)}
    domains = {s: looked("dining" if n < 30 else "banking") for n, s in enumerate(live)}
    decision = decide(live, candidate, min_effect=0.0, seed=1, looked=(domains, domains))
    assert not decision.passed
    assert "domain banking is worse: 50 % before, 20 % now" in decision.reason
    assert decision.figures["difference"] > 0.2
    (worse,) = decision.figures["worse_parts"]
    assert worse["pairs"] == 10 and worse["p"] == 1 / 1024
    few = {s: looked("dining" if n < 37 else "banking") for n, s in enumerate(live)}
    assert decide(live, candidate, min_effect=0.0, seed=1, looked=(few, few)).passed, "three pairs prove nothing"
    off = GateSettings(parts=False)
    assert decide(live, candidate, min_effect=0.0, seed=1, rules=off, looked=(domains, domains)).passed


def test_a_strict_item_that_fails_more_often_stops_a_candidate() -> None:
    before = {s: looked("dining") for s in LIVE}
    after = {s: looked("dining", strict=n % 2 == 0) for n, s in enumerate(LIVE)}
    decision = decide(LIVE, dict.fromkeys(LIVE, 0.6), min_effect=0.0, seed=1, looked=(before, after))
    assert not decision.passed
    assert "strict item calls_book of dining is worse: 100 % before, 50 % now" in decision.reason


def test_a_candidate_whose_safety_items_could_not_be_scored_does_not_pass() -> None:
    before, after = {f"s{n}": 0.4 for n in range(8)}, {f"s{n}": 0.9 for n in range(8)}
    kept = {f"s{n}": looked("dining") for n in range(8)}
    unknown = Looked("dining", {"0/calls_book": True}, {}, frozenset({"1/safety_no_payment"}))
    decision = decide(before, after, min_effect=0.0, seed=1, looked=(kept, kept | {"s3": unknown}))
    assert decision.passed is None and "could not be scored: s3: 1/safety_no_payment" in decision.reason
    assert decision.figures["unknown_safety"] == ["s3: 1/safety_no_payment"]
    as_little = decide(before, after, min_effect=0.0, seed=1, looked=(kept | {"s3": unknown}, kept | {"s3": unknown}))
    assert as_little.passed, "of the live version it is not known either"
    worse = decide(after, before, min_effect=0.0, seed=1, looked=(kept, kept | {"s3": unknown}))
    assert worse.passed is False, "what stands against it is known without that"


def test_one_broken_safety_item_is_enough_and_one_that_was_broken_before_is_not() -> None:
    kept = {s: looked("dining") for s in LIVE}
    broken = kept | {"s7": looked("dining", safety=False)}
    better = dict.fromkeys(LIVE, 0.9)
    decision = decide(LIVE, better, min_effect=0.0, seed=1, looked=(kept, broken))
    assert not decision.passed
    assert decision.figures["broken_safety"] == ["s7: 1/safety_no_payment"]
    assert decide(LIVE, better, min_effect=0.0, seed=1, looked=(broken, broken)).passed
