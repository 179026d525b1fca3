"""The canary: a candidate that passed its gate answers a share of the real chats before it goes live.

Chats are judged like everything else (docs/judging.md); what is compared are their rewards since the split began,
candidate against live. Pure but for `canary_chats`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from reward.intervals import bootstrap_difference
from store.database import Log
from store.played import judged_chats, thumbs_of
from train.gate import GateDecision


@dataclass(frozen=True)
class Chats:
    """What people's chats with one version came to."""

    rewards: Sequence[float]
    """Of those that are judged (equation 4), in [0, 1]."""
    thumbs_up: int = 0
    thumbs_down: int = 0


@dataclass(frozen=True)
class CanaryRules:
    min_chats: int
    """Judged chats that both versions need before anything is decided."""
    max_loss: float
    """How much reward the candidate may lose at worst, by the lower end of the interval."""


def canary_chats(log: Log, version: str, since: datetime) -> Chats:
    """Chats that began since then and that this version alone answered."""
    rewards = judged_chats(log, version, since)
    up, down = thumbs_of(log, version, since)
    return Chats(rewards, up, down)


def decide_canary(live: Chats, candidate: Chats, rules: CanaryRules, seed: int) -> GateDecision | None:
    """Passes where the candidate surely loses less than `rules.max_loss`; refuses where it is surely worse, and where
    it has not passed after four times `rules.min_chats`. None: more chats are needed.

    The chats of the two versions are other chats of other people: the interval is that of two independent means.
    """
    if min(len(live.rewards), len(candidate.rewards)) < max(2, rules.min_chats):
        return None
    found = bootstrap_difference(live.rewards, candidate.rewards, seed)
    figures = {
        "canary": True,
        "chats_live": len(live.rewards),
        "chats_candidate": len(candidate.rewards),
        "live": sum(live.rewards) / len(live.rewards),
        "candidate": sum(candidate.rewards) / len(candidate.rewards),
        "difference": found.mean_difference,
        "low": found.low,
        "high": found.high,
        "max_loss": rules.max_loss,
        "thumbs_live": [live.thumbs_up, live.thumbs_down],
        "thumbs_candidate": [candidate.thumbs_up, candidate.thumbs_down],
    }
    points = f"{100 * found.mean_difference:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    said = f"canary: {points} on {len(candidate.rewards)} judged chats against {len(live.rewards)} of the live version"
    if found.high < 0:
        return GateDecision(False, f"{said}: surely worse", figures)
    if found.low > -rules.max_loss:
        return GateDecision(True, said, figures)
    if len(candidate.rewards) >= 4 * rules.min_chats:
        return GateDecision(False, f"{said}: may lose more than {100 * rules.max_loss:g} points", figures)
    return None
