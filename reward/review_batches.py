"""Draws turns for review and puts them up: what `checkloop judge sample`, the job `sample` and the pages do.

Reads what is known of judged turns, writes review_sample rows. Which turns are chosen is in reward/sampling.py.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from reward.sampling import choose_anchors, choose_batch
from store.database import Log
from store.review_samples import ANCHORS, ReviewSample, add_review_batch
from store.review_signals import Turn, TurnSignals, turn_signals

RANDOM, DISPUTED, UNCERTAIN = 20, 10, 10
"""Turns of each kind where nothing else is said."""


@dataclass(frozen=True)
class DrawnBatch:
    """What was put up; nothing was written where `turns` is empty."""

    name: str
    turns: Sequence[ReviewSample]
    reviewed: int
    """Of them, those that a person has judged before."""
    judged: int
    """Turns that there were to choose among."""

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(one.reason.value for one in self.turns))


def batch_name(anchors: int, named: str, at: datetime) -> str:
    """What a batch is called, which is also its seed: the anchor set has a name of its own, others that of the time."""
    return ANCHORS if anchors else named or f"{at:%Y-%m-%d-%H%M%S}"


def draw_batch(
    log: Log,
    name: str,
    *,
    randomly: int = RANDOM,
    disputed: int = DISPUTED,
    uncertain: int = UNCERTAIN,
    anchors: int = 0,
) -> DrawnBatch:
    """Puts at most so many turns of each kind up, or fixes the anchor set with `anchors` of them.

    Raises LogError for a batch that is there already, an anchor set among them, and a name that does not fit.
    """
    signals = turn_signals(log)
    chosen = _choose(signals, name, randomly, disputed, uncertain, anchors)
    add_review_batch(log, name, chosen)
    reviewed = sum(signals[one.trajectory_id, one.turn_index].reviewed for one in chosen)
    return DrawnBatch(name, chosen, reviewed, len(signals))


def _choose(
    signals: dict[Turn, TurnSignals], name: str, randomly: int, disputed: int, uncertain: int, anchors: int
) -> list[ReviewSample]:
    if anchors:
        return choose_anchors(signals, anchors, name)
    return choose_batch(signals, randomly=randomly, disputed=disputed, uncertain=uncertain, seed=name)
