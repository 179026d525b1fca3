"""Whether a version is better than the one it is held against, by the newest that the log knows of the two.

That is the newest decision of the gate on them, or the scenarios that both played as evaluations, whichever is newer.
Reads the log through store.versions and store.played; the choice and the words are pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from reward.comparison import measure_pairs, pair_dialogues
from store.database import Log
from store.played import played_by
from store.versions import GateDecision, PolicyVersion, list_gate_decisions, list_versions, predecessors_of
from store.vocabulary import Origin, VersionState

SEED = 0


class Finding(StrEnum):
    """What an interval of the difference says."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "no clear difference"
    TOO_FEW = "too few to say"


@dataclass(frozen=True)
class Evidence:
    """One paired comparison of two versions. Differences are of rewards in [0, 1], after − before."""

    difference: float | None
    """None where the gate refused the candidate before it played."""
    low: float | None
    high: float | None
    """None: no interval is known."""
    n: int | None
    unit: str
    """What n counts: "scenario", "chat"."""
    at: datetime
    decision: int | None = None
    """The gate's decision that it is from; None: from what both played as evaluations."""
    passed: bool | None = None
    reason: str = ""
    """Of the gate."""

    @property
    def finding(self) -> Finding:
        if self.low is None or self.high is None:
            return Finding.TOO_FEW
        return Finding.BETTER if self.low > 0 else Finding.WORSE if self.high < 0 else Finding.UNCLEAR

    @property
    def figures(self) -> str:
        """ "+15.2 points [+5.1, +25.1] over 96 scenarios, at the gate"."""
        said = []
        if self.difference is not None:
            said.append(f"{100 * self.difference:+.1f} points")
        if self.low is not None and self.high is not None:
            said.append(f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}]")
        if self.n is not None:
            said.append(f"over {self.n:,} {self.unit}{'' if self.n == 1 else 's'}")
        where = "at the gate" if self.decision is not None else "in evaluations"
        return f"{' '.join(said) or 'no difference was measured'}, {where}"


@dataclass(frozen=True)
class HeldAgainst:
    """A version, the one it is held against, and the newest evidence on the two; None: there is none."""

    after: str
    state: VersionState
    before: str
    evidence: Evidence | None

    @property
    def words(self) -> str:
        """In plain words: "v0004 is better than v0003", "v0004 was refused: …"."""
        if self.evidence is None:
            return f"{self.after} has not been held against {self.before}"
        if self.evidence.passed is False:
            return f"{self.after} was refused against {self.before}: {self.evidence.reason}"
        match self.evidence.finding:
            case Finding.BETTER | Finding.WORSE as found:
                return f"{self.after} is {found} than {self.before}"
            case Finding.UNCLEAR:
                return f"No clear difference between {self.before} and {self.after}"
            case Finding.TOO_FEW:
                return f"Too little is known to say whether {self.after} is better than {self.before}"


def newest_evidence(log: Log) -> list[HeldAgainst]:
    """The live version beside the one before it; and, where a newer one was made since, that one beside the live."""
    versions = list_versions(log)
    live = next((one for one in versions if one.state is VersionState.LIVE), None)
    if live is None:
        return []
    decisions = list_gate_decisions(log)
    pairs: list[tuple[PolicyVersion, str]] = []
    if before := predecessors_of(log, live.name):
        pairs.append((live, before[0]))
    if (newest := newest_contender(versions, live)) is not None:
        pairs.append((newest, live.name))
    return [
        HeldAgainst(after.name, after.state, before, evidence_on(log, decisions, before, after.name))
        for after, before in pairs
    ]


def newest_contender(versions: Sequence[PolicyVersion], live: PolicyVersion) -> PolicyVersion | None:
    """The newest version made after the live one that waits for the gate or was refused by it. `versions`: oldest
    first."""
    waiting = (VersionState.CANDIDATE, VersionState.REFUSED)
    return next((one for one in reversed(versions[versions.index(live) + 1 :]) if one.state in waiting), None)


def evidence_on(log: Log, decisions: Sequence[GateDecision], before: str, after: str) -> Evidence | None:
    """The newest evidence on two versions; `decisions`: of the gate, oldest first."""
    decided = [one for one in decisions if (one.live, one.candidate) == (before, after)]
    of_gate = evidence_of_gate(decided[-1]) if decided else None
    played = _evidence_of_play(log, before, after)
    known = [one for one in (of_gate, played) if one is not None]
    return max(known, key=lambda one: one.at, default=None)


def evidence_of_gate(decision: GateDecision) -> Evidence:
    """What a decision says of the difference, as far as its figures do."""
    figures = decision.figures
    difference, low, high = (_number(figures, name) for name in ("difference", "low", "high"))
    canary = bool(figures.get("canary"))
    count = figures.get("chats_candidate" if canary else "pairs")
    return Evidence(
        difference=difference,
        low=low,
        high=high,
        n=count if isinstance(count, int) else None,
        unit="chat" if canary else "scenario",
        at=decision.created_at,
        decision=decision.id,
        passed=decision.passed,
        reason=decision.reason,
    )


def _evidence_of_play(log: Log, before: str, after: str) -> Evidence | None:
    sides = [played_by(log, version, origin=Origin.EVALUATION) for version in (before, after)]
    pairs, _ = pair_dialogues(*sides)
    if not pairs:
        return None
    whole = measure_pairs("all", pairs, SEED)
    return Evidence(
        difference=whole.difference,
        low=whole.interval.low if whole.interval else None,
        high=whole.interval.high if whole.interval else None,
        n=whole.scenarios,
        unit="scenario",
        at=max(one.created_at for pair in pairs for one in (*pair.before, *pair.after)),
    )


def _number(figures: dict[str, Any], name: str) -> float | None:
    value = figures.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
