"""The gate: may a candidate go live? Paired rewards on the same validation scenarios, decided once and recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reward.intervals import paired_bootstrap
from store.database import Log
from store.versions import add_gate_decision

MIN_PAIRS = 4


@dataclass(frozen=True)
class GateDecision:
    passed: bool
    reason: str
    figures: dict[str, Any]


def decide(
    live: Mapping[str, float | None], candidate: Mapping[str, float | None], *, min_effect: float, seed: int
) -> GateDecision:
    """Passes if the candidate's mean reward exceeds the live one's by more than `min_effect`, pair by pair.

    `live` and `candidate` map scenario hashes to rewards in [0, 1]; None is excluded with its pair (invariant 3).
    Refuses when fewer than MIN_PAIRS pairs are left.
    """
    pairs = [(live[s], candidate[s]) for s in sorted(live.keys() & candidate.keys())]
    kept = [(a, b) for a, b in pairs if a is not None and b is not None]
    figures: dict[str, Any] = {"pairs": len(kept), "excluded": len(pairs) - len(kept), "min_effect": min_effect}
    if len(kept) < MIN_PAIRS:
        return GateDecision(False, f"only {len(kept)} scenarios could be judged for both versions", figures)
    before, after = [a for a, _ in kept], [b for _, b in kept]
    paired = paired_bootstrap(before, after, seed)
    figures |= {
        "live": sum(before) / len(before),
        "candidate": sum(after) / len(after),
        "difference": paired.mean_difference,
        "low": paired.low,
        "high": paired.high,
    }
    said = f"{100 * paired.mean_difference:+.1f} points [{100 * paired.low:+.1f}, {100 * paired.high:+.1f}]"
    if paired.mean_difference > min_effect:
        return GateDecision(True, f"better by {said}", figures)
    return GateDecision(False, f"not better than the live version: {said}", figures)


def record(log: Log, candidate: str, live: str, decision: GateDecision) -> None:
    add_gate_decision(log, candidate, live, decision.passed, decision.figures, decision.reason)
