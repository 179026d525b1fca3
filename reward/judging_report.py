"""What a run of the judge came to: verdicts by who decided, the reasons of UNSCORED, and what was spent."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from agent.role_endpoint import Spent
from store.verdicts import Verdict
from store.vocabulary import Outcome

By = Literal["check", "rule", "cache", "llm"]
"""Who decided an item."""

_REASON_LENGTH = 100


@dataclass
class JudgingReport:
    """Counts up while the judge runs."""

    trajectories: int = 0
    """Looked at, whether there was something to judge or not."""
    turns: int = 0
    """With something to judge."""
    by: Counter[By] = field(default_factory=Counter)
    """Verdicts by who decided; those of a panel count once."""
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Kinds of reasons of what is UNSCORED."""
    stopped: str | None = None
    """Which limit was reached."""
    spent: list[tuple[str, Spent]] = field(default_factory=list)
    """At each judge's endpoint."""

    def count(self, verdict: Verdict, by: By) -> None:
        self.by[by] += 1
        self.outcomes[verdict.outcome] += 1
        if verdict.outcome is Outcome.UNSCORED:
            self.reasons[kind_of_reason(verdict.reason)] += 1


def spent_line(name: str, spent: Spent) -> str:
    """What was asked at a judge's endpoint, and what it cost."""
    notes = [f"{spent.failed} failed"] * bool(spent.failed)
    notes += [f"tokens of {spent.estimated} estimated"] * bool(spent.estimated)
    failed = f" ({', '.join(notes)})" if notes else ""
    return (
        f"{name}: {spent.calls} calls{failed}, {spent.prompt_tokens} tokens sent, {spent.cached_tokens} of them from "
        f"its cache, {spent.completion_tokens} answered, {spent.usd:.4f} USD"
    )


def kind_of_reason(reason: str) -> str:
    """The reason without what differs from turn to turn: quoted values, numbers, what was said besides."""
    general = re.sub(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"", "…", reason.split(";")[0])
    return re.sub(r"-?\d+(\.\d+)?", "n", general)[:_REASON_LENGTH]
