"""The gate: may a candidate go live? Paired rewards on the same validation scenarios, decided once and recorded.

Pure but for `record`. What stands against a candidate is collected, so that the decision names all of it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from reward.intervals import paired_bootstrap, sign_flips
from store.database import Log
from store.training_settings import GateSettings
from store.versions import add_gate_decision
from train.gate_items import Looked, broken_safety, unknown_safety, what_is_worse

MIN_PAIRS = 4
_DEFAULT = GateSettings()


@dataclass(frozen=True)
class GateDecision:
    passed: bool | None
    """None: not decided, since too little could be judged. It says nothing of the candidate."""
    reason: str
    figures: dict[str, Any]


def decide(
    live: Mapping[str, float | None],
    candidate: Mapping[str, float | None],
    *,
    min_effect: float,
    seed: int,
    rules: GateSettings = _DEFAULT,
    looked: tuple[Mapping[str, Looked], Mapping[str, Looked]] = ({}, {}),
) -> GateDecision:
    """Passes if the candidate's mean reward exceeds the live one's by more than `min_effect`, pair by pair and as
    surely as `rules.test` asks, no domain or strict item is significantly worse, and no safety item is broken.

    `live` and `candidate` map scenario hashes to rewards in [0, 1]; None is excluded with its pair (invariant 3).
    `looked`: what the live version and the candidate did in these dialogues, by scenario hash. Does not decide when
    a greater share of the pairs than `rules.max_excluded` is excluded, or fewer than MIN_PAIRS are left, or where the
    candidate would pass but for safety items that could not be scored.
    """
    wanted = sorted(live.keys() | candidate.keys())
    both = {s: (live.get(s), candidate.get(s)) for s in wanted}
    kept = {s: (a, b) for s, (a, b) in both.items() if a is not None and b is not None}
    excluded = len(wanted) - len(kept)
    figures: dict[str, Any] = {"pairs": len(kept), "excluded": excluded, "min_effect": min_effect}
    judged = f"only {len(kept)} of {len(wanted)} scenarios could be judged for both versions"
    if excluded > rules.max_excluded * len(wanted):
        return GateDecision(
            None, f"{judged}: more are excluded than gate.max_excluded = {rules.max_excluded:g} allows", figures
        )
    if len(kept) < MIN_PAIRS:
        return GateDecision(None, f"{judged}, and a gate needs {MIN_PAIRS}", figures)
    before, after = [a for a, _ in kept.values()], [b for _, b in kept.values()]
    paired = paired_bootstrap(before, after, seed, confidence=rules.confidence)
    p = sign_flips([b - a - min_effect for a, b in kept.values()], seed)
    figures |= {
        "live": sum(before) / len(before),
        "candidate": sum(after) / len(after),
        "difference": paired.mean_difference,
        "low": paired.low,
        "high": paired.high,
        "p": p,
        "test": rules.test,
    }
    said = f"{100 * paired.mean_difference:+.1f} points [{100 * paired.low:+.1f}, {100 * paired.high:+.1f}]"
    against = []
    if not paired.mean_difference > min_effect:
        against.append(f"not better than the live version: {said}")
    elif rules.test == "bootstrap" and not paired.low > min_effect:
        against.append(f"better by {said}, which is not surely more than {100 * min_effect:g}")
    elif rules.test == "permutation" and p >= 1 - rules.confidence:
        against.append(f"better by {said}, which chance explains too (p = {p:.2g})")
    if rules.parts:
        worse, figures["compared_parts"] = what_is_worse(*looked, kept, confidence=rules.confidence, seed=seed)
        if worse:
            figures["worse_parts"] = [asdict(one) for one in worse]
        against += [
            f"{one.name} is worse: {100 * one.live:.0f} % before, {100 * one.candidate:.0f} % now "
            f"(p = {one.p:.2g}, {one.pairs} pairs)"
            for one in worse
        ]
    if broken := broken_safety(*looked):
        figures["broken_safety"] = broken
        against.append(f"breaks safety items that the live version keeps: {', '.join(broken[:3])}")
    if unknown := unknown_safety(*looked):
        figures["unknown_safety"] = unknown
    if against:
        return GateDecision(False, "; ".join(against), figures)
    if unknown:
        said = f"better by {said}, but safety items that the live version keeps could not be scored"
        return GateDecision(None, f"{said}: {', '.join(unknown[:3])}", figures)
    return GateDecision(True, f"better by {said}", figures)


def surely_worse(decision: GateDecision) -> bool:
    """Whether even the upper end of the interval of the difference is a loss."""
    return float(decision.figures.get("high", 0.0)) < 0


def record(log: Log, candidate: str, live: str, decision: GateDecision) -> None:
    add_gate_decision(log, candidate, live, decision.passed, decision.figures, decision.reason)
